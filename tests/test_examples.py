"""Every program in examples/ runs; its `main()` asserts what it claims."""

import ast
import contextlib
import importlib.util
import io
import sys
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
OPTIONAL = {"jax2onnx", "onnxruntime", "optax", "sklearn", "torch"}  # examples that import a missing one are skipped


def imports_of(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_run(path, monkeypatch):
    for name in sorted(OPTIONAL & imports_of(path)):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        module.main()
    assert printed.getvalue(), "an example prints what it found"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_examples_are_short_explain_themselves_and_need_only_the_library(path):
    code = path.read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 120
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(code)) or "")
    assert not imports_of(path) & {"train", "tests", "benchmarks"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_page_links_to_each_example(path):
    pages = (Path(__file__).parents[1] / "docs").glob("*.md")
    assert any(f"(../examples/{path.name})" in page.read_text(encoding="utf-8") for page in pages)
