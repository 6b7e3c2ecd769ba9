"""What the documentation shows is run: every public name's example, and the Python code of README and of ``pt_docs``.

``WRITE_OUTPUTS=1 pytest tests/test_documentation.py`` writes the outputs and pictures that have changed.
"""

from __future__ import annotations

import ast
import contextlib
import doctest
import inspect
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import pyterrier as pt
import pytest

import pyterrier_bertcat

PAGES = Path(str(resources.files("pyterrier_bertcat") / "pt_docs"))
PAGE_NAMES = sorted(page.name for page in PAGES.glob("*.rst"))
README = Path(__file__).resolve().parents[1] / "README.md"
STYLE = PAGES / "images" / "plots.mplstyle"
OUTPUT_OPTIONS = ("display.width", 88, "display.max_columns", 20, "display.max_colwidth", 40, "display.precision", 3)
COLUMN = 88
COMPARES = sys.version_info[:2] == (3, 11)
WRITES = bool(os.environ.get("WRITE_OUTPUTS"))


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Docstrings


def examples_of(name: str) -> list[doctest.DocTest]:
    """The examples in a public name's own docstring, and in those of its methods."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(getattr(pyterrier_bertcat, name), name, globs={}) if test.examples]


@pytest.mark.parametrize("name", pyterrier_bertcat.__all__)
def test_a_public_name_has_an_example(name):
    documentation = inspect.getdoc(getattr(pyterrier_bertcat, name)) or ""
    assert re.search(r"^Example:\n    >>> ", documentation, re.MULTILINE), f"{name}'s docstring has no 'Example:'"


@pytest.mark.parametrize("name", pyterrier_bertcat.__all__)
def test_its_examples_do_what_they_say(name):
    for test in examples_of(name):
        report: list[str] = []
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
        assert not report, "".join(report)


def test_a_wrong_example_is_found():
    """The checks above can fail."""
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(test, out=lambda _: None).failed


# Pages


class Block:
    """A page's ``.. code-block:: python``, or README's, and what the page says that it gives.

    It runs after those above it, unless its first line is a comment ``# Needs ...`` that says what tests don't have.
    What it gives follows it: a ``.. code-block:: text`` with what it prints and the value of its last line, or a file
    in ``images/``: a plot as ``.. image::``, an explanation as ``.. raw:: html``.
    """

    def __init__(self, page: Path, line: int, code: str) -> None:
        self.code = code
        self.is_run = not code.startswith("# Needs ")
        self.output: Lines | None = None
        self.picture: Path | None = None
        self.name = f"{page.name}, line {line + 1}"
        # Empty lines before it, so that an error names the page's line.
        self.compiled = compile("\n" * line + code, str(page), "exec")
        self._tree = ast.parse("\n" * line + code, str(page))

    def run(self, names: dict[str, object]) -> tuple[str, object]:
        """What it prints, the value of its last line included, and that value."""
        *before, last = self._tree.body
        value, printed = None, io.StringIO()
        with contextlib.redirect_stdout(printed):
            if not isinstance(last, ast.Expr):
                before.append(last)
            exec(compile(ast.Module(before, []), self.name, "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), self.name, "eval"), names)
        return printed.getvalue() + ("" if value is None else repr(value)), value


class Lines(NamedTuple):
    """Some lines of a page."""

    first: int
    after_last: int
    indentation: str
    text: str


def indented(lines: list[str], number: int, indentation: str) -> Lines:
    """The options and the content of the directive in the line before."""
    end = number
    while end < len(lines) and (not lines[end].strip() or lines[end].startswith(indentation + " ")):
        end += 1
    text = textwrap.dedent("\n".join(lines[number:end]))
    options = re.match(r"(:.*\n|\n)*", text)[0].count("\n")
    while end > number and not lines[end - 1].strip():
        end -= 1
    content = lines[number + options : end]
    deeper = min((re.match(" *", line)[0] for line in content if line.strip()), default=indentation, key=len)
    return Lines(number + options, end, deeper, textwrap.dedent("\n".join(content)) + "\n")


def blocks(page: Path) -> Iterator[Block]:
    """A page's Python code; one that is no Python is an error."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        directive = re.match(r"( *)\.\. code-block:: python$", line)
        if not directive:
            continue
        body = indented(lines, number + 1, directive[1])
        block = Block(page, body.first, body.text)
        following = next((n for n in range(body.after_last, len(lines)) if lines[n].strip()), len(lines))
        follower = lines[following] if following < len(lines) else ""
        if follower == directive[1] + ".. code-block:: text":
            block.output = indented(lines, following + 1, directive[1])
        elif follower == directive[1] + ".. raw:: html":
            block.picture = PAGES / re.search(r":file: (\S+)", lines[following + 1])[1]
        elif picture := re.match(directive[1] + r"\.\. image:: (images/\S+)$", follower):
            block.picture = PAGES / picture[1]
        yield block


def readme_blocks(page: Path) -> Iterator[Block]:
    """README's Python code, with what it prints."""
    lines = page.read_text(encoding="utf-8").splitlines()
    fences = [number for number, line in enumerate(lines) if line.startswith("```")]
    parts = list(zip(fences[::2], fences[1::2], strict=True))
    for (start, end), (next_start, next_end) in zip(parts, [*parts[1:], (0, 0)], strict=True):
        if lines[start] == "```python":
            block = Block(page, start + 1, "\n".join(lines[start + 1 : end]) + "\n")
            if lines[next_start] == "```text" and "print(" in block.code:
                text = "\n".join(lines[next_start + 1 : next_end]) + "\n"
                block.output = Lines(next_start + 1, next_end, "", text)
            yield block


def is_same(shown: str, printed: str) -> bool:
    """Whether an output is what a page shows: word by word, numbers to their last digit, ``...`` for any word."""
    words, others = shown.split(), printed.split()
    return len(words) == len(others) and all(map(_is_same_word, words, others))


def _is_same_word(shown: str, printed: str) -> bool:
    if shown in (printed, "..."):
        return True
    shown, printed = shown.strip("[(,)]"), printed.strip("[(,)]")
    try:
        # CPUs differ in the last bits of a score: the last digit shown may be one more or less.
        return abs(float(shown) - float(printed)) <= 1.01 * 10.0 ** -len(shown.partition(".")[2])
    except ValueError:
        return False


def run(page: Path, names: dict[str, object], *, of: Callable[[Path], Iterator[Block]] = blocks) -> dict[str, object]:
    """Runs a page's blocks in order, beginning with some names; gives all names that there are afterwards.

    Outputs are compared on Python 3.11 only: the collection that most pages use is the running Python's documentation.
    With ``WRITE_OUTPUTS=1`` in the environment they are written into the page, and the pictures into ``images/``.
    """
    names = dict(names)
    wrong: list[tuple[Lines, str]] = []
    with plt.style.context(STYLE), pd.option_context(*OUTPUT_OPTIONS):
        for block in of(page):
            if not block.is_run:
                continue
            printed, value = block.run(names)
            if block.output and COMPARES and not is_same(block.output.text, printed):
                assert WRITES, f"{block.name} prints\n{printed}\nbut the page shows\n{block.output.text}"
                wrong.append((block.output, printed))
            if block.picture and WRITES:
                draw(value, block.picture)
    plt.close("all")
    lines = page.read_text(encoding="utf-8").splitlines()
    for place, printed in reversed(wrong):
        printed_lines = printed.rstrip().splitlines()
        lines[place.first : place.after_last] = [(place.indentation + line).rstrip() for line in printed_lines]
    if wrong:
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return names


def draw(value: Any, path: Path) -> None:
    """Writes a plot or an explanation."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".html":
        path.write_text(value._repr_html_() + "\n", encoding="utf-8")
    else:
        value.figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")


@pytest.fixture(scope="module")
def names_of_the_index(tmp_path_factory) -> dict[str, object]:
    """What the index page defines; the other pages continue from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("index"))
        return run(PAGES / "index.rst", {})


@pytest.mark.filterwarnings("ignore:.* too long")  # of whatever category; welcome on the pages
@pytest.mark.parametrize("page", PAGE_NAMES)
def test_the_code_of_a_page_runs_and_gives_what_the_page_shows(page, names_of_the_index):
    if page != "index.rst":
        run(PAGES / page, names_of_the_index)


@pytest.mark.skipif(not README.exists(), reason="the repository is not beside these tests")
@pytest.mark.filterwarnings("ignore:.* too long")
def test_readmes_code_runs_and_prints_what_readme_shows():
    run(README, {}, of=readme_blocks)


def test_another_output_is_found():
    """The checks above can fail."""
    assert is_same("  docno  score\n0 copytree 4.41", "docno score\n0  copytree  4.42")
    assert is_same("in ... s", "in 5.4 s")
    assert not is_same("0 copytree 4.41", "0 copytree 4.43")
    assert not is_same("0 copytree 4.41", "0 rmtree 4.41")
    assert not is_same("0 copytree", "0 copytree 4.41")


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_code_and_outputs_fit_the_sites_column(page):
    lines = (PAGES / page).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if directive := re.match(r"( *)\.\. code-block:: ", line):
            widest = max(indented(lines, number + 1, directive[1]).text.splitlines(), key=len)
            assert len(widest) <= COLUMN, f"{page}: wider than {COLUMN} characters: {widest}"


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_the_pictures_of_a_page_are_there(page):
    text = (PAGES / page).read_text(encoding="utf-8")
    for picture in re.findall(r"images/[\w.-]+", text):
        assert (PAGES / picture).is_file(), picture


class TwoDocuments:
    """Stands in for the pages' data set, whose 5,000 documents take minutes to encode."""

    texts: ClassVar = {"rmtree": "Delete a directory tree.", "copytree": "Copy a directory tree."}

    def get_corpus_iter(self):
        return [{"docno": docno, "text": text} for docno, text in self.texts.items()]

    def text_loader(self):
        return pt.apply.text(lambda row: self.texts[row["docno"]])


def test_dense_retrieval_is_reranked_as_the_page_says(minilm_folder):
    pyterrier_dr = pytest.importorskip("pyterrier_dr")
    [dense] = [block for block in blocks(PAGES / "coming-from.rst") if "# Needs bert_dot" in block.code]
    names = {
        "bert_dot": pyterrier_dr.SBertBiEncoder(str(minilm_folder), device="cpu"),  # BERT_Dot itself is on the hub
        "bertcat": pyterrier_bertcat.BertCatReRanker("mini", device="cpu", verbose=False),
        "dataset": TwoDocuments(),
    }
    exec(dense.compiled, names)
    results = names["pipeline"].search("how do I copy a directory")
    assert results["docno"].tolist() == ["copytree", "rmtree"]
    assert results["score"].round(1).tolist() == pytest.approx([0.1, -10.4])


def test_no_python_code_is_overlooked():
    for page in PAGE_NAMES:
        text = (PAGES / page).read_text(encoding="utf-8")
        assert text.count("code-block:: python") == len(list(blocks(PAGES / page))), page


def test_every_public_name_is_on_the_api_page():
    text = (PAGES / "api.rst").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto\w+:: pyterrier_bertcat\.(\w+)(?:\(\))?$", text, re.MULTILINE)
    assert sorted(shown) == sorted(pyterrier_bertcat.__all__)
