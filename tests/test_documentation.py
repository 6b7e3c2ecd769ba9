"""What the documentation shows is run: every public name's example, and the Python code of the pages in ``pt_docs``."""

from __future__ import annotations

import doctest
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import ClassVar

import pyterrier as pt
import pytest

import pyterrier_bertcat

PAGES = Path(str(resources.files("pyterrier_bertcat") / "pt_docs"))
PAGE_NAMES = sorted(page.name for page in PAGES.glob("*.rst"))


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
    """A page's ``.. code-block:: python``.

    It runs after those above it, unless its first line is a comment ``# Needs ...`` that says what tests don't have.
    """

    def __init__(self, page: Path, line: int, code: str) -> None:
        self.code = code
        self.is_run = not code.startswith("# Needs ")
        # Empty lines before it, so that an error names the page's line.
        self.compiled = compile("\n" * line + code, str(page), "exec")


def blocks(page: Path) -> Iterator[Block]:
    """A page's Python code; one that is no Python is an error."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        directive = re.match(r"( *)\.\. code-block:: python$", line)
        if not directive:
            continue
        body = []
        for follower in lines[number + 1 :]:
            if follower.strip() and not follower.startswith(directive[1] + " "):
                break
            body.append(follower)
        code = textwrap.dedent("\n".join(body))
        options = re.match(r"(:.*\n|\n)*", code)[0]
        yield Block(page, number + 1 + options.count("\n"), code[len(options) :].rstrip() + "\n")


def run(page: Path, names: dict[str, object]) -> dict[str, object]:
    """Runs a page's blocks in order, beginning with some names; gives all names that there are afterwards."""
    names = dict(names)
    for block in blocks(page):
        if block.is_run:
            exec(block.compiled, names)
    return names


@pytest.fixture(scope="module")
def names_of_the_index(tmp_path_factory) -> dict[str, object]:
    """What the index page defines; the other pages go on from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("index"))
        return run(PAGES / "index.rst", {})


@pytest.mark.filterwarnings("ignore:.* too long")  # of whatever category; welcome on the pages
@pytest.mark.parametrize("page", PAGE_NAMES)
def test_the_code_of_a_page_runs(page, names_of_the_index):
    if page != "index.rst":
        run(PAGES / page, names_of_the_index)


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
    results = names["pipeline"].search("how do I copy a folder")
    assert results["docno"].tolist() == ["copytree", "rmtree"]
    assert results["score"].round(1).tolist() == pytest.approx([4.4, 1.8])


def test_no_python_code_is_overlooked():
    for page in PAGE_NAMES:
        text = (PAGES / page).read_text(encoding="utf-8")
        assert text.count("code-block:: python") == len(list(blocks(PAGES / page))), page


def test_every_public_name_is_on_the_api_page():
    text = (PAGES / "api.rst").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto\w+:: pyterrier_bertcat\.(\w+)(?:\(\))?$", text, re.MULTILINE)
    assert sorted(shown) == sorted(pyterrier_bertcat.__all__)
