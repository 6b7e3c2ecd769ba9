"""Sphinx's configuration: ``pyterrier_bertcat/pt_docs`` as a site of its own.

PyTerrier's site includes the same pages; what its pages may use and Sphinx lacks is in ``pyterrier_directives``.
Nothing is fetched from the network.
"""

import inspect
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import tomllib
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = "pyterrier-bertcat"
author = "The pyterrier-bertcat developers"
version = release = installed_version("pyterrier-bertcat")
html_title = f"{project} {release}"
html_theme = "furo"
html_theme_options = {
    "source_repository": PROJECT["urls"]["Repository"],
    "source_branch": "main",
    "source_directory": "pyterrier_bertcat/pt_docs",
    "footer_icons": [
        {
            "name": "Repository",
            "url": PROJECT["urls"]["Repository"],
            "html": '<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5">'
            '<path d="M5 4 1 8l4 4M11 4l4 4-4 4"/></svg>',
            "class": "",
        }
    ],
}
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_copyright = False

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "pyterrier_directives",
]
# Code, and not what it prints.
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre, div.highlight-console pre"
copybutton_prompt_text = "$ "
default_role = "py:obj"  # `PairScorer` in a docstring is a link
# A link to a public name of this package that leads nowhere is a warning. Other packages' names are not on this site.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!pyterrier_bertcat\.[A-Z]\w+).*")]
add_module_names = False
maximum_signature_line_length = 90
toc_object_entries_show_parents = "hide"

# As on PyTerrier's site.
autoclass_content = "both"
autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "description"

autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def constructor_signature(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    """Show ``__init__``'s parameters where Sphinx shows ``(*args, **kwargs)``, those of PyTerrier's ``__new__``."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    _, *parameters = inspect.signature(documented.__init__).parameters.values()
    shown = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return str(inspect.Signature(shown)), returned


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.connect("autodoc-process-signature", constructor_signature)
