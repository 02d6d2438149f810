"""Every public name has a docstring with an example, and every function explains its arguments and its result."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

import ast
import importlib
import inspect
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

import jax.numpy as jnp
import pytest
from flax import nnx

import jaxbn
from jaxbn._normalize import ACTIVATIONS, ActivationName

MODULES = ("jaxbn", "jaxbn.equinox", "jaxbn.interop", "jaxbn.linen", "jaxbn.nnx")


class Public(NamedTuple):
    """A public name with its value and its documentation."""

    module: str
    name: str
    value: Any
    documentation: str

    @property
    def is_function(self) -> bool:
        """True if the name is defined by `def`, and not by an assignment."""
        return inspect.isfunction(self.value) and self.value.__module__.startswith("jaxbn")


def public_names(module: ModuleType) -> list[str]:
    """The names in `__all__`; otherwise those defined without underscore or imported as themselves for re-export."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    imports = [node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ImportFrom)]
    passed_on = {alias.name for node in imports for alias in node.names if alias.asname == alias.name}
    named = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return [n for n, v in named.items() if n in passed_on or getattr(v, "__module__", "") == module.__name__]


def text_below_assignments() -> dict[str, str]:
    """The strings below assignments at the top level of jaxbn's files, which document constants."""
    found = {}
    for path in Path(jaxbn.__path__[0]).glob("**/*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, below in pairwise(body):
            match statement, below:
                case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = text
    return found


def documentation(name: str, value: Any) -> str:
    """The docstring; the one that Python generates for a NamedTuple does not count."""
    if inspect.isclass(value) or (inspect.isfunction(value) and value.__module__.startswith("jaxbn")):
        text = value.__doc__ or ""
        return "" if text.startswith(f"{name}(") else inspect.cleandoc(text)
    return text_below_assignments().get(name, "")


def public() -> Iterator[Public]:
    for place in MODULES:
        module = importlib.import_module(place)
        for name in public_names(module):
            value = getattr(module, name)
            if not inspect.ismodule(value):  # whose own names are explained
                yield Public(place, name, value, documentation(name, value))


def section(text: str, title: str) -> str:
    """The indented text below a title such as `Args:`."""
    found = re.search(rf"^{title}:\n((?:[ ].*\n|\n)*)", text + "\n", re.MULTILINE)
    return found[1] if found else ""


PUBLIC = list(public())
FUNCTIONS = [entry for entry in PUBLIC if entry.is_function]


def name_of(entry: Public) -> str:
    return f"{entry.module}.{entry.name}"


def test_the_public_names_are_found():
    """The other tests rely on finding a function, a value, a constant, a module and a conversion."""
    expected = {"jaxbn.batch_norm", "jaxbn.BatchNormState", "jaxbn.save_pre_norm", "jaxbn.linen.BatchNorm"}
    found = {name_of(entry) for entry in PUBLIC}
    assert expected | {"jaxbn.nnx.BatchNorm", "jaxbn.interop.from_torch"} <= found
    assert not found & {"jaxbn.linen.promote", "jaxbn.linen.BatchNormState"}  # what is only imported there


@pytest.mark.parametrize("place", MODULES)
def test_public_names_are_declared(place):
    module = importlib.import_module(place)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


@pytest.mark.parametrize("place", ["jaxbn", "jaxbn.interop"])
def test_completion_and_help_show_the_public_names(place):
    module = importlib.import_module(place)
    assert set(dir(module)) - {"__version__"} == set(module.__all__)
    text = pydoc.plain(pydoc.render_doc(module))
    for name in module.__all__:
        assert inspect.ismodule(getattr(module, name)) or re.search(rf"^    (class )?{name}\b", text, re.MULTILINE), (
            name
        )


def test_the_modules_over_flax_are_imported_when_they_are_used():
    code = """
import sys
import jaxbn
assert not {"flax", "jaxbn.linen", "jaxbn.nnx"} & set(sys.modules)
assert "linen" in dir(jaxbn)
try:
    jaxbn.linnen
except AttributeError as error:
    assert (error.name, error.obj) == ("linnen", jaxbn) and "jaxbn" in str(error)
else:
    raise AssertionError
assert "flax" not in sys.modules
assert jaxbn.linen.BatchNorm.__module__ == "jaxbn.linen"
assert jaxbn.nnx.BatchNorm.__module__ == "jaxbn.nnx"
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(jaxbn.__path__[0]).parent)


def test_misspelt_activations_are_seen_by_the_type_checker():
    """The comments below are needed, says pyright, which this file asks to report those that are not."""
    assert get_args(ActivationName) == tuple(ACTIVATIONS)
    with pytest.raises(ValueError, match="got 'rleu'"):
        jaxbn.batch_norm(*jaxbn.init(3), jnp.ones((4, 3)), True, activation="rleu")  # pyright: ignore[reportArgumentType]
    jaxbn.linen.BatchNorm(activation="rleu")  # pyright: ignore[reportArgumentType]
    jaxbn.nnx.BatchNorm(3, activation="rleu", rngs=nnx.Rngs(0))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("entry", PUBLIC, ids=name_of)
def test_is_explained_with_an_example(entry):
    assert entry.documentation, "there is no docstring"
    assert ">>> " in section(entry.documentation, "Example"), "there is no example"


@pytest.mark.parametrize("entry", FUNCTIONS, ids=name_of)
def test_says_what_it_takes_and_gives(entry):
    signature = inspect.signature(entry.value)
    explained = re.findall(r"^ {4}\*{0,2}(\w+):", section(entry.documentation, "Args"), re.MULTILINE)
    assert explained == list(signature.parameters)
    gives_nothing = signature.return_annotation in (None, "None")
    assert gives_nothing or section(entry.documentation, "Returns"), "it does not say what it returns"
