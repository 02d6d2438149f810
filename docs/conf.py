"""The site: `make docs`. Pages are plain Markdown that also reads well on a code host.

What only the site needs is added here: the navigation, the tutorial as a notebook, formulas as MathML. docutils, which
Sphinx is built on, makes the MathML while the site is built. Browsers render MathML by themselves, so pages need no
script, no font and no network for it.
"""

import importlib
import os
import re
import sys
from pathlib import Path

import jupytext
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from jax.typing import ArrayLike, DTypeLike
from sphinx.application import Sphinx
from sphinx.util import inspect as sphinx_inspect
from sphinx.util.typing import stringify_annotation
from sphinx.writers.html5 import HTML5Translator

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

import jaxbn  # noqa: E402

project = "jaxbn"
author = copyright = "The jaxbn developers"
version = release = jaxbn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["site"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # the slugs of code hosts, so that a link to a heading works on both

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False

nitpicky = True  # references to jaxbn must resolve; other libraries' cannot, since nothing is fetched
nitpick_ignore_regex = [(r"py:.*", r"(?!jaxbn\b).*")]

smartquotes = False  # they would turn the two hyphens of an option into a dash

html_theme = "furo"
html_title = f"jaxbn {release}"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

PARTS = {
    "Start": ["tutorial", "recipes", "training"],
    "Guides": ["flax", "migrating", "tools", "scaling"],
    "Look up": ["semantics", "reference", "errors"],
    "Understand": ["math", "performance", "Ten claims, measured <studies>"],
    "Project": ["contributing", "changelog"],
}
MODULES = ("jaxbn", "jaxbn.linen", "jaxbn.nnx", "jaxbn.equinox", "jaxbn.interop")
NAMES = {f"{module}.{name}" for module in MODULES for name in importlib.import_module(module).__all__}


def tree(caption: str, pages: list[str]) -> str:
    """A table of contents for the side bar."""
    options = ":hidden:" + (f"\n:caption: {caption}" if caption else "")
    return f"\n```{{toctree}}\n{options}\n\n" + "\n".join(pages) + "\n```\n"


def notebook(app: Sphinx) -> Path:
    """Write the tutorial as a notebook, whose links to other pages are plain text, and return its path."""
    text = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    path = Path(app.outdir).parent / "tutorial.ipynb"
    cells = jupytext.reads(re.sub(r"\[([^\]]*)\]\((?!#)[\w/.]+(#[\w-]*)?\)", r"\1", text), "md")
    cells.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    jupytext.write(cells, path)
    return path


def add_what_the_site_needs(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the navigation to the first page, and the download to the tutorial."""
    if page == "index":
        source[0] += "".join(tree(part, pages) for part, pages in PARTS.items())
    if page == "reference":
        source[0] += tree("", ["reference/function", "reference/modules", "reference/tools", "reference/interop"])
    if page == "tutorial":
        title, rest = source[0].split("\n", 1)
        path = os.path.relpath(notebook(app), DOCS)
        source[0] = f"{title}\n\n{{download}}`Download this page as a notebook <{path}>`\n{rest}"


BLOCK = r"(?P<block>^ {4}\S.*(?:\n {4}.*)*)"  # indented lines, formulas above all
MARKS = r"(?<![`:])`(?P<code>[^`\n]+)`(?!`)|(?P<bars>\|\w+\|)|^(?P<label>Differs elsewhere|Source): "


def as_restructured_text(app: Sphinx, kind: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Turn the docstrings' Markdown into reStructuredText, before napoleon does their sections."""
    text = "\n".join(lines)
    heading = re.search(r"(?m)^(Args|Attributes|Returns|Example):$", text)
    end = heading.start() if heading else len(text)
    description = re.sub(f"(?m){BLOCK}|{MARKS}", marked, text[:end])
    lines[:] = (description + re.sub(f"(?m){MARKS}", marked, text[end:])).splitlines()


def marked(match: re.Match[str]) -> str:
    """The reStructuredText of what BLOCK and MARKS find."""
    found = {name: text for name, text in match.groupdict().items() if text}
    match found:
        case {"block": lines}:
            return f".. code-block:: text\n\n{lines}\n"
        case {"code": code}:  # a link where it is a public name
            name = code.removesuffix("()")
            return f":py:obj:`{name}`" if name in NAMES else f"``{code}``"
        case {"bars": bars}:  # which would mean a substitution
            return bars.replace("|", r"\|")
    return f"**{match['label']}.** "


def with_dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Put a dash between an argument and its explanation."""
    for node in list(doctree.findall(nodes.Text)):
        if node == " -- ":
            node.parent.replace(node, nodes.Text(" – "))


DEFAULTS = ((r"<class '([\w.]+)'>", r"\1"), (r"<function (\w+)[^>]*>", r"\1"), (r"<[^>]+>", "..."))
TYPES = ((ArrayLike, "ArrayLike"), (DTypeLike, "DTypeLike"))
ALIASES = {stringify_annotation(alias, "smart"): name for alias, name in TYPES}


def with_public_types(
    app: Sphinx, kind: str, name: str, value: object, options: object, signature: str | None, returns: str | None
) -> tuple[str, str | None] | None:
    """The signature with JAX's aliases by their names, and jaxbn's own types by their public names."""
    if signature is None:  # of data, and of a class that has none
        return None
    if kind == "class" and signature.startswith("(*args"):  # of a metaclass: it says nothing
        own = sphinx_inspect.signature(vars(value)["__init__"], bound_method=True)
        signature = sphinx_inspect.stringify_signature(own, unqualified_typehints=True)
    for pattern, default in DEFAULTS:
        signature = re.sub(pattern, default, signature)

    def shortened(text: str) -> str:
        for long, short in ALIASES.items():
            text = text.replace(long, short)
        return re.sub(r"(jaxbn(?:\.interop)?)\._\w+\.(\w+)", as_public, text)

    return shortened(signature), returns and shortened(returns)


def as_public(match: re.Match[str]) -> str:
    """The public name of a type that a private module defines; for a private type its bare name."""
    name = f"{match[1]}.{match[2]}"
    return name if name in NAMES else match[2]


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line as MathML."""
    self.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on lines of its own, in a box that scrolls where it is too wide."""
    self.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect all of the above to Sphinx."""
    app.connect("source-read", add_what_the_site_needs)
    app.connect("autodoc-process-docstring", as_restructured_text, priority=400)
    app.connect("autodoc-process-signature", with_public_types)
    app.connect("doctree-read", with_dashes)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_display, None))
