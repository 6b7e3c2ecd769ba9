"""PyTerrier's own directives, as far as ``pt_docs`` uses them, for a build outside of PyTerrier's site.

See ``docs/extras`` in terrier-org/pyterrier, whose versions are richer.
"""

from __future__ import annotations

import ast
from typing import Any

import pyterrier as pt
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class HowTo(SphinxDirective):
    """``.. how-to:: Question?``: a section with that title."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Make the section."""
        section = nodes.section(names=[nodes.fully_normalize_name(self.arguments[0])])
        self.state.document.note_implicit_target(section)
        title_nodes, messages = self.state.inline_text(self.arguments[0], self.lineno)
        section += nodes.title(self.arguments[0], "", *title_nodes)
        self.state.nested_parse(self.content, self.content_offset, section)
        return [section, *messages]


class Schematic(SphinxDirective):
    """``.. schematic::``: runs the code and draws the pipeline that its last line is."""

    has_content = True
    option_spec = {"input_columns": directives.unchanged}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        columns = self.options.get("input_columns")
        *before, last = ast.parse("\n".join(self.content)).body
        names: dict[str, Any] = {"pt": pt}
        exec(compile(ast.Module(before, []), "schematic", "exec"), names)
        pipeline = eval(compile(ast.Expression(last.value), "schematic", "eval"), names)
        html = pt.schematic.draw(pipeline, input_columns=columns and [name.strip() for name in columns.split(",")])
        return [nodes.raw("", html, format="html")]


class Cite(SphinxDirective):
    """``.. cite:: key`` with ``:citation:``, ``:link:`` and the BibTeX entry."""

    required_arguments = 1
    has_content = True
    option_spec = {"citation": directives.unchanged, "link": directives.uri}  # noqa: RUF012

    def run(self) -> list[nodes.Node]:
        """Show the citation and the entry."""
        bibtex = "\n".join(self.content)
        link = nodes.reference("", self.options["citation"], refuri=self.options["link"])
        return [nodes.paragraph("", "", link), nodes.literal_block(bibtex, bibtex, language="bibtex")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    for name, directive in (("how-to", HowTo), ("schematic", Schematic), ("cite", Cite)):
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
