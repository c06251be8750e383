"""The documentation site: `scripts/docs` builds it, without network and with warnings as errors."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

import fti4cir

project = "fti4cir"
author = "FTI4CIR maintainers"
project_copyright = "the FTI4CIR maintainers, Apache-2.0"
version = release = fti4cir.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build", "images/README.md", "search.md"]
# Names such as `Model` exist in several modules, and annotations do not say which one they mean.
suppress_warnings = ["ref.python"]

# Docstrings write code in single backticks, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# The notebook runs at each build. A cell that fails, fails the build.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "furo"
html_title = f"fti4cir {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

# Files that pages link to, and the page that shows each here: outside of docs/, or of a name that Sphinx needs itself.
ELSEWHERE = {"../src/fti4cir/weights/mini/README.md": "mini.md", "search.md": "searching.md"}


class Mermaid(Directive):
    """A diagram, shown as the SVG that research/diagrams.py drew of its text."""

    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {}

    def run(self) -> list[nodes.Node]:
        """The image, or an error when it has not been drawn since the text changed."""
        name = hashlib.sha256("\n".join(self.content).strip().encode()).hexdigest()[:12] + ".svg"
        drawn = Path(__file__).parent / "_static" / "diagrams" / name
        if not drawn.is_file():
            raise self.error(f"The diagram is not drawn as it stands: run research/diagrams.py (no {name}).")
        return [nodes.image(uri=f"/_static/diagrams/{name}", alt="Diagram", classes=["diagram"])]


def show_elsewhere(app: Sphinx, docname: str, source: list[str]) -> None:
    """Lead links to the page that shows the file."""
    for path, page in ELSEWHERE.items():
        source[0] = source[0].replace(f"]({path}", f"]({page}")


def keep_drawings(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A tree that a docstring draws, and whatever follows it, is shown as it stands."""
    drawn = [number for number, line in enumerate(lines) if "├──" in line]
    if drawn:
        start = drawn[0] - 1
        lines[start:] = ["::", "", *(f"    {line}" for line in lines[start:])]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("mermaid", Mermaid)
    app.connect("source-read", show_elsewhere)
    app.connect("autodoc-process-docstring", keep_drawings)
