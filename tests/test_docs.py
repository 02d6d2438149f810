"""The reference has every public name, and what says which version this is agrees."""

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

import jaxbn

ROOT = Path(__file__).parents[1]
MODULES = ("jaxbn", "jaxbn.equinox", "jaxbn.interop", "jaxbn.linen", "jaxbn.nnx")


def test_the_reference_has_every_public_name_once():
    pytest.importorskip("equinox")
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    entries = re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(page.read_text() for page in pages), re.MULTILINE)
    modules = [importlib.import_module(name) for name in MODULES]
    names = [(f"{module.__name__}.{name}", getattr(module, name)) for module in modules for name in module.__all__]
    assert sorted(entries) == sorted(name for name, value in names if not isinstance(value, ModuleType))


def test_the_overview_links_to_each_page_of_the_reference():
    overview = (ROOT / "docs" / "reference.md").read_text()
    pages = {path.name for path in (ROOT / "docs" / "reference").glob("*.md")}
    assert set(re.findall(r"\(reference/([\w.]+)\)", overview)) == pages


def test_the_version_is_that_of_the_package():
    """The package has it in one place; the citation and the changelog cannot read it there."""
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    stated = re.findall(r"version (\d+\.\d+\.\d+)", (ROOT / "README.md").read_text())
    assert {cited, newest, *stated} == {jaxbn.__version__}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_nothing_is_fetched_by_a_page():
    """Links may lead elsewhere; scripts, styles and pictures come with the site."""
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        assert re.findall(r"!\[[^\]]*\]\((?:\w+:)?//\S*\)|<(?:script|link|img)\b", page.read_text()) == []
