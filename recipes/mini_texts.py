"""The texts and queries that ``mini`` learns from, mixed from sources that you have on your disk.

    python -m recipes.mini_texts --data DATA --sources SOURCES --output COLLECTION [--sample N]

DATA is the folder that ``python -m benchmarks.fetch_data`` wrote. SOURCES holds git clones, each in a folder with the
repository's name (``git clone https://github.com/openstax/osbooks-astronomy``), and unpacked Debian packages, each in a
folder with the package's name (``apt-get download dict-wn && dpkg-deb -x dict-wn_*.deb SOURCES/dict-wn``). COLLECTION
becomes a folder as fetch_data writes them. A source that isn't there is left out with a message. The same seed
and sources give the same collection, and one source doesn't change what is drawn from another.

No text of these sources is part of this project. `ORIGINS` lists each with its licence and attribution.

The shipped weights learnt from a collection of 209,397 texts and 307,183 queries that a rougher script with the same
rules had made. Its random draws differ, as do the MedQuAD questions that are held out. It also took descriptions of
Stellarium under licences that forbid commercial use or changes, such as CC BY-ND: 378 texts, which this script leaves
out.
"""

from __future__ import annotations

import gzip
import html
import io
import json
import random
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from benchmarks.common import Collection, argument_parser
from benchmarks.fetch_data import Texts, one_line, write
from pyterrier_bertcat.data.pydoc_collection import pydoc_documents


class Origin(NamedTuple):
    """Where a source comes from. The commits are those that the shipped weights were trained on."""

    where: str
    licence: str
    attribution: str
    taken: str


ORIGINS = {
    "squad": Origin(
        "DATA/squad_train44",
        "CC BY-SA 4.0",
        "SQuAD 1.1, Rajpurkar et al. 2016; texts by Wikipedia's authors",
        "paragraphs and questions of 44 articles of the training set",
    ),
    "squadshifts": Origin(
        "DATA/squadshifts_new_wiki",
        "CC BY-SA (texts from Wikipedia)",
        "SQuADShifts, Miller et al. 2020; texts by Wikipedia's authors",
        "paragraphs and questions of New Wikipedia",
    ),
    "qed": Origin(
        "DATA/qed_nq",
        "CC BY-SA 3.0",
        "QED, Lamm et al. 2021, from Natural Questions, Kwiatkowski et al. 2019; texts by Wikipedia's authors",
        "paragraphs, and the training questions",
    ),
    "medquad": Origin(
        "DATA/medquad",
        "CC BY 4.0",
        "MedQuAD, Ben Abacha and Demner-Fushman 2019; answers from NIH pages",
        "answers in pieces, and questions but the held-out ones",
    ),
    "real-questions": Origin(
        "DATA/real_questions",
        "Natural Questions CC BY-SA 3.0, WebQuestions CC BY 4.0; TriviaQA's authors own no rights in its questions",
        "Kwiatkowski et al. 2019, Berant et al. 2013, Joshi et al. 2017, from castorini/anserini-tools",
        "questions only",
    ),
    "webquestions": Origin(
        "brmson/dataset-factoid-webquestions at 668890853388",
        "CC BY 4.0",
        "WebQuestions, Berant et al. 2013, as prepared by the brmson project",
        "questions only, without the test split",
    ),
    "pubmedqa": Origin(
        "pubmedqa/pubmedqa at 1cbae8e92f72",
        "MIT",
        "PubMedQA, Jin et al. 2019",
        "questions, abstracts and conclusions of the labelled part",
    ),
    "openstax": Origin(
        "openstax/osbooks-* at the commits in BOOKS, the last ones under this licence",
        "CC BY 4.0",
        "OpenStax, Rice University, openstax.org; the authors are listed in each book",
        "paragraphs, headings, glossaries and exercises that end with a question mark",
    ),
    "biology-book": Origin(
        "philschatz/biology-book at cf3dc8c0d87f",
        "CC BY 3.0",
        "Biology, OpenStax College 2014, as hosted by Philip Schatz",
        "paragraphs and headings",
    ),
    "vagov": Origin(
        "department-of-veterans-affairs/vagov-content at fd8a6dde72ba",
        "CC0 1.0",
        "U.S. Department of Veterans Affairs",
        "pages and their headings",
    ),
    "factbook": Origin(
        "factbook/factbook.json at 8662a8b17a78",
        "public domain (CC0 1.0)",
        "The World Factbook, CIA, as collected by factbook.json",
        "long entries as they are, short ones joined; made-up queries such as 'capital of chad'",
    ),
    "wordnet": Origin(
        "Debian's dict-wn 1:3.0-37",
        "WordNet 3.0 licence",
        "WordNet 3.0, Princeton University 2006",
        "22,000 entries of at least 14 words",
    ),
    "gcide": Origin(
        "Debian's dict-gcide 0.48.5+nmu2",
        "GPL-2.0-or-later",
        "GNU Collaborative International Dictionary of English, Patrick Cassidy",
        "14,000 entries of at least 25 words",
    ),
    "foldoc": Origin(
        "Debian's dict-foldoc 20230119-1",
        "GFDL-1.1-or-later",
        "The Free On-line Dictionary of Computing, foldoc.org, Editor Denis Howe",
        "entries of at least 15 words",
    ),
    "anarchism": Origin(
        "Debian's anarchism 15.3-3",
        "GPL-2.0-or-later",
        "An Anarchist FAQ, The Anarchist FAQ Editorial Collective",
        "the pages in Markdown",
    ),
    "debian-handbook": Origin(
        "Debian's debian-handbook 11.20220922",
        "GPL-2.0-or-later or CC BY-SA 3.0",
        "The Debian Administrator's Handbook, Raphaël Hertzog and Roland Mas",
        "the English pages",
    ),
    "gnome-help": Origin(
        "Debian's gnome-user-docs 43.0-2",
        "CC BY-SA 3.0",
        "GNOME Help, the GNOME Documentation Project",
        "the English pages",
    ),
    "stellarium": Origin(
        "Debian's stellarium-data 0.22.2-1",
        "GPL-2.0-or-later, CC BY-SA 2.0 to 4.0, Free Art License: each description's info.ini",
        "Stellarium; the authors named in each description",
        "descriptions of sky cultures and landscapes, but for those under NC or ND licences",
    ),
    "pydoc": Origin(
        "the running Python, as bertcat:pydoc reads it",
        "PSF-2.0",
        "Python Software Foundation",
        "documents, and some of their first sentences as queries for one another; never its questions",
    ),
}

BOOKS = {
    "osbooks-american-government": "5c90dd7907dbf25f42266417e63ca3bb0012f031",
    "osbooks-anatomy-physiology": "b0058a743bdd2cc08196abaaa7d5469970c0d80c",
    "osbooks-astronomy": "63157f370b09c06a4cc12832384aaaf4de1ced3b",
    "osbooks-business-law": "9d510e2126b7327a48d1e286f658dd0e83d47373",
    "osbooks-chemistry-bundle": "32c719622fbb7a0ca729cd645c1df4cf4e7d5b3a",
    "osbooks-college-physics-bundle": "f98d7a792138a6133fe7267d17e70aa04e9ccbed",
    "osbooks-entrepreneurship": "c1fa2c872ba07dc864c3aeb5a510b08b4f657288",
    "osbooks-introduction-anthropology": "418eedd9bef21ec1a6fa1b472c0d82c084e35c70",
    "osbooks-introduction-business": "78c9e7ad4e581d4ff98e78ea30214840e1fa7e1e",
    "osbooks-introduction-philosophy": "d7bd4f0f520529b3ad83272448a9c2be25c9040a",
    "osbooks-introduction-political-science": "4391e659b98eec43b71e8b3f08241215fb4dd4c4",
    "osbooks-introduction-sociology": "d35d5f3bdac40f93607d600134865d4f13ce1f9b",
    "osbooks-life-liberty-and-pursuit-happiness": "acb6fbe2744dd112187b6aff5946cfe969410fca",
    "osbooks-microbiology": "ecf34dad129d686703780e87ab5aa2e59c577a6a",
    "osbooks-principles-economics-bundle": "cd31beb103fffbc09cc81ebfe117d8c40cc12d1a",
    "osbooks-psychology": "e061043bf2f9e86ace51c4e8dc9555160f60a99d",
    "osbooks-us-history": "046331cfcea0ac1b1a8fd461b3e6aae638845af3",
    "osbooks-world-history": "3e17beda9130380d24be881e6d1942dfcc1be845",
}

MOST_CHARACTERS = 1400  # of a text
HELD_OUT = 300  # MedQuAD questions that are kept for validation
OWN_TEXT = -1  # the label of the text that a query was taken from: it is no candidate


class Mixture:
    """The collection so far, and what later queries are made from.

    Attributes:
        texts: Documents, queries and judgments. A qid begins with the query's kind, as in ``term-17``.
        terms: Headwords of dictionaries and glossaries.
        headings: Headings of books and pages.
        numbers: The current source's random numbers.
    """

    def __init__(self, seed: int, sample: int | None = None) -> None:
        self.texts = Texts()
        self.terms: list[str] = []
        self.headings: list[str] = []
        self.sources: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.seed = seed
        self.sample = sample
        self.begin("nothing")
        self._asked: set[str] = set()

    def begin(self, source: str) -> None:
        """Gives the next source random numbers of its own."""
        self.source = source
        self.numbers = random.Random(f"{self.seed} {source}")

    def some(self, items: Any) -> Iterator[Any]:
        """A source's items; only its first few if a sample is wanted."""
        return islice(iter(items), self.sample)

    def add(self, text: str) -> str:
        """Adds a text, cut at a word; returns its docno."""
        text = one_line(text)
        if len(text) > MOST_CHARACTERS:
            text = text[:MOST_CHARACTERS].rsplit(" ", 1)[0]
        count = len(self.texts.documents)
        docno = self.texts.document(f"{self.source}-{self.sources[self.source]}", text)
        self.sources[self.source] += len(self.texts.documents) - count
        return docno

    def add_pieces(self, text: str, low: int = 40, high: int = 110, *, least: int = 20) -> list[str]:
        """Adds a long text in pieces of whole sentences; returns their docnos."""
        return [self.add(piece) for piece in self.pieces(text, low, high, least=least)]

    def pieces(self, text: str, low: int = 40, high: int = 110, *, least: int = 20) -> Iterator[str]:
        """Whole sentences of ``low`` to ``high`` words together; a rest of fewer than ``least`` words is left out."""
        piece: list[str] = []
        wanted = self.numbers.randint(low, high)
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"“(])", one_line(text)):
            piece += sentence.split()
            if len(piece) >= wanted:
                yield " ".join(piece)
                piece, wanted = [], self.numbers.randint(low, high)
        if len(piece) >= least:
            yield " ".join(piece)

    def ask(self, kind: str, query: str, docno: str | None = None, label: int = 1) -> None:
        """Adds a query unless it was asked before, with its labelled text if it has one."""
        query = one_line(query)
        if not query or query.lower() in self._asked:
            return
        self._asked.add(query.lower())
        qid = f"{kind}-{self.kinds[kind]}"
        self.kinds[kind] += 1
        self.texts.queries.setdefault("", {})[qid] = query
        if docno is not None:
            self.texts.judged.setdefault("", []).append((qid, docno, label))

    def ask_as_people_do(self, kind: str, query: str, docno: str | None = None) -> None:
        """As `ask`, but half of the queries lose capitals and question mark."""
        if self.numbers.random() < 0.5:
            query = query.lower().rstrip("? ")
        self.ask(kind, query, docno)


# Reading


def clone_files(folder: Path, commit: str, *paths: str) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a clone's files at a commit, in the tree's order.

    Raises:
        FileNotFoundError: There is no such clone, or it lacks the commit.
    """
    done = subprocess.run(["git", "-C", folder, "archive", commit, *paths], capture_output=True, check=False)
    if done.returncode:
        raise FileNotFoundError(f"{folder} at {commit}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                yield member.name, file.read()


def package_files(folder: Path, pattern: str) -> list[Path]:
    """An unpacked Debian package's files.

    Raises:
        FileNotFoundError: There are none.
    """
    found = sorted(folder.rglob(pattern))
    if not found:
        raise FileNotFoundError(f"{folder}: no {pattern}")
    return found


def dictionary_entries(folder: Path, name: str, start: str) -> list[str]:
    """The entries of a dictionary in dictd's format; ``start`` is what stands before each."""
    file = folder / "usr/share/dictd" / f"{name}.dict.dz"
    with gzip.open(file, "rt", encoding="utf-8", errors="replace") as lines:
        return re.split(start, lines.read())


def without_tags(text: str) -> str:
    return html.unescape(re.sub(r"(?s)<[^>]+>", " ", text))


def without_links(markdown: str) -> str:
    """Markdown with links replaced by their words."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", markdown)


# Collections with judgments, and questions


def labelled(mixture: Mixture, folder: Path, kind: str, split: str = "") -> None:
    """A collection's texts, and its questions with their relevant texts."""
    collection = Collection.read(folder, split)
    docnos = {docno: mixture.add(text) for docno, text in mixture.some(collection.texts.items())}
    queries = dict(collection.topics.itertuples(index=False, name=None))
    for qid, docno in relevant(collection).items():
        if qid in queries and docno in docnos:
            mixture.ask_as_people_do(kind, queries[qid], docnos[docno])


def relevant(collection: Collection) -> dict[str, str]:
    """The first relevant text of each query."""
    judged = collection.qrels[collection.qrels["label"] > 0].drop_duplicates("qid")
    return dict(zip(judged["qid"], judged["docno"], strict=True))


def medquad(mixture: Mixture, data: Path) -> None:
    """Long answers: their first words are what the questions are labelled with; three more pieces of each."""
    collection = Collection.read(data / "medquad")
    first: dict[str, str] = {}
    for docno, text in mixture.some(collection.texts.items()):
        words = text.split()
        first[docno] = mixture.add(" ".join(words[: mixture.numbers.randint(60, 110)]))
        if len(words) > 130:
            for piece in islice(mixture.pieces(" ".join(words[90:])), 3):
                mixture.add(piece)
    queries = dict(collection.topics.itertuples(index=False, name=None))
    answers = relevant(collection)
    held_out = {queries[qid].lower() for qid in mixture.numbers.sample(sorted(answers), HELD_OUT)}
    for qid, docno in answers.items():
        if docno in first and queries[qid].lower() not in held_out:
            mixture.ask_as_people_do("medquad", queries[qid], first[docno])


def real_questions(mixture: Mixture, data: Path) -> None:
    with gzip.open(data / "real_questions" / "topics.tsv.gz", "rt", encoding="utf-8") as lines:
        for line in mixture.some(lines):
            mixture.ask_as_people_do("real", line.rstrip("\n").split("\t", 1)[1])


def webquestions(mixture: Mixture, sources: Path) -> None:
    files = ("main/trainmodel.json", "main/val.json")
    for _, content in clone_files(sources / "dataset-factoid-webquestions", "668890853388", *files):
        for entry in mixture.some(json.loads(content)):
            mixture.ask_as_people_do("webq", entry["qText"])


def pubmedqa(mixture: Mixture, sources: Path) -> None:
    """A question's labelled text is the abstract's conclusion; the abstract itself comes in pieces."""
    ((_, content),) = clone_files(sources / "pubmedqa", "1cbae8e92f72", "data/ori_pqal.json")
    for entry in mixture.some(json.loads(content).values()):
        for context in entry["CONTEXTS"]:
            mixture.add_pieces(context)
        mixture.ask_as_people_do("pubmedqa", entry["QUESTION"], mixture.add(entry["LONG_ANSWER"]))


# Books and pages

CNXML = "{http://cnx.rice.edu/cnxml}"
FORMULA = "{http://www.w3.org/1998/Math/MathML}math"


def openstax(mixture: Mixture, sources: Path) -> None:
    missing = []
    for book, commit in BOOKS.items():
        try:
            modules = [content for name, content in clone_files(sources / book, commit, "modules") if ".cnxml" in name]
        except FileNotFoundError:
            missing.append(book)
            continue
        for content in mixture.some(modules):
            openstax_module(mixture, ElementTree.fromstring(content))
    if missing:
        raise FileNotFoundError(", ".join(missing))


def openstax_module(mixture: Mixture, module: ElementTree.Element) -> None:
    """A chapter's section with its glossary. A formula becomes an ellipsis."""
    for formula in list(module.iter(FORMULA)):
        tail = formula.tail
        formula.clear()
        formula.text, formula.tail = " … ", tail
    title = words_of(module.find(f"{CNXML}title"))
    if mixture.numbers.random() < 0.5:
        mixture.headings.append(title)
    content = module.find(f"{CNXML}content")
    if content is not None:
        openstax_section(mixture, content, title)
    for definition in module.iter(f"{CNXML}definition"):
        term, meaning = (words_of(definition.find(f"{CNXML}{name}")) for name in ("term", "meaning"))
        if term and meaning:
            is_sentence = mixture.numbers.random() < 0.5
            mixture.add(f"{term[:1].upper()}{term[1:]} is {meaning}." if is_sentence else f"{term}: {meaning}")
            mixture.terms.append(term)


def openstax_section(mixture: Mixture, section: ElementTree.Element, heading: str) -> None:
    """Pieces of at least 70 words of the paragraphs below one heading, and of the sections in it."""
    heading = words_of(section.find(f"{CNXML}title")) or heading
    paragraphs: list[str] = []

    def finish() -> None:
        if mixture.add_pieces(" ".join(paragraphs), 70, 70, least=25):
            mixture.headings.append(heading)
        paragraphs.clear()

    for part in section:
        kind = part.tag.removeprefix(CNXML)
        if kind in ("section", "note", "example"):
            finish()
            openstax_section(mixture, part, heading)
        elif kind == "exercise":
            question = words_of(part.find(f"{CNXML}problem"))
            if question.endswith("?") and 4 <= len(question.split()) <= 30:
                mixture.ask_as_people_do("exercise", question)
        elif kind == "list":
            paragraphs.append("; ".join(words_of(item) for item in part))
        elif kind == "para" and "…" not in (paragraph := words_of(part))[:200]:
            paragraphs.append(paragraph)
    finish()


def words_of(element: ElementTree.Element | None) -> str:
    return "" if element is None else one_line("".join(element.itertext()))


def biology_book(mixture: Mixture, sources: Path) -> None:
    for _, content in mixture.some(clone_files(sources / "biology-book", "cf3dc8c0d87f", "contents")):
        text = re.sub(r"\{:[^}]*\}|!\[[^\]]*\]\([^)]*\)|\{%.*?%\}", " ", content.decode(errors="replace"))
        for block in re.split(r"\n\s*\n", without_tags(without_links(text))):
            block = one_line(block.replace("*", ""))
            if block.startswith("#"):
                mixture.headings.append(block.strip("# "))
            elif len(block.split()) >= 25 and not block.startswith(("-", "|")):
                mixture.add_pieces(block)


def vagov(mixture: Mixture, sources: Path) -> None:
    for name, content in mixture.some(clone_files(sources / "vagov-content", "fd8a6dde72ba", "pages")):
        if not name.endswith(".md"):
            continue
        text = content.decode(errors="replace")
        title = re.search(r"(?m)^title:\s*(.+)$", text)
        if title:
            mixture.headings.append(title.group(1).strip("\"' "))
        text = re.sub(r"(?s)^---.*?\n---\n", "", text)
        mixture.headings += [re.sub(r"<[^>]+>|[#*]", "", h) for h in re.findall(r"(?m)^#+\s*(.+)$", text)]
        text = without_tags(without_links(re.sub(r"\{[%{].*?[%}]\}", " ", text)))
        mixture.add_pieces(re.sub(r"[#*_]+", " ", text))


def factbook(mixture: Mixture, sources: Path) -> None:
    for name, content in mixture.some(clone_files(sources / "factbook.json", "8662a8b17a78")):
        if name.endswith(".json") and "/" in name and not name.startswith("meta"):
            factbook_country(mixture, json.loads(content))


def factbook_country(mixture: Mixture, facts: dict[str, Any]) -> None:
    names = facts.get("Government", {}).get("Country name", {})
    forms = (names.get(f"conventional {form} form", {}).get("text") for form in ("short", "long"))
    country = next((without_tags(form).split(";")[0] for form in forms if form and form != "none"), None)
    if country is None:
        return
    short: list[str] = []
    for label, entry in factbook_entries(facts):
        words, asked = len(entry.split()), 0.0
        if words >= 25:
            for piece in mixture.pieces(entry):
                mixture.add(piece if mixture.numbers.random() < 0.3 else f"{country} - {label}: {piece}")
            asked = 0.15
        elif words >= 2:
            short.append(f"{label}: {entry}")
            if sum(len(part.split()) for part in short) > 60:
                mixture.add(f"{country}. {'. '.join(short)}")
                short = []
            asked = 0.1
        if mixture.numbers.random() < asked:
            form = mixture.numbers.choice(["{} of {}", "what is the {} of {}", "{1} {0}"])
            mixture.ask("factbook", form.format(label.lower(), country.lower()))


def factbook_entries(facts: Any, label: str = "") -> Iterator[tuple[str, str]]:
    """Label and text of each entry, without the tags."""
    if isinstance(facts, dict):
        for key, value in facts.items():
            yield from factbook_entries(value, label if key == "text" else key)
    elif isinstance(facts, str):
        yield label, one_line(without_tags(facts))


def pages(mixture: Mixture, folder: Path, pattern: str, wanted: Callable[[Path], bool] = lambda _: True) -> None:
    """Prose and help pages in Markdown, HTML or Mallard. Short paragraphs are joined to 60 words and more."""
    for file in mixture.some(filter(wanted, package_files(folder, pattern))):
        text = file.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"(?s)<(script|style|pre|code|info|credit)\b.*?</\1>", " ", text)
        marked = re.findall(r"(?m)^#+\s*(.+)$", text) + re.findall(r"(?s)<(?:title|h[1-4])[^>]*>(.*?)</", text)[:6]
        mixture.headings += [re.sub(r"<[^>]+>|[*\[\]_]|\(.*?\)", "", heading) for heading in marked]
        text = re.sub(r"(?s)</?(p|div|li|section|h\d|item|title)[^>]*>", "\n\n", text)
        joined = ""
        for block in re.split(r"\n\s*\n", without_links(without_tags(text))):
            block = one_line(block.replace("*", ""))
            joined += f" {block}" if len(block.split()) >= 6 else ""
            if len(joined.split()) >= 60:
                mixture.add_pieces(joined)
                joined = ""


def allows_everything(description: Path) -> bool:
    """Whether a description of Stellarium may be changed and sold: its info.ini names no NC or ND licence."""
    about = description.parent / "info.ini"
    licence = re.search(r"(?im)^license\s*=(.*)$", about.read_text(errors="replace")) if about.exists() else None
    return licence is None or not re.search(r"-(NC|ND)\b", licence.group(1))


# Dictionaries


def wordnet(mixture: Mixture, sources: Path) -> None:
    entries = dictionary_entries(sources / "dict-wn", "wn", r"\n(?=\S)")
    mixture.numbers.shuffle(entries)
    for entry in mixture.some(entries):
        head, _, body = entry.partition("\n")
        body = one_line(re.sub(r"(?s)\[(syn|ant|also):[^\]]*\]|[{}]", "", body))
        if len(body.split()) >= 14 and len(head.split()) <= 4 and not head.startswith("00"):
            mixture.add(f"{head}: {body}")
            mixture.terms.append(head)
        if mixture.sources["wordnet"] >= 22_000:
            break


def gcide(mixture: Mixture, sources: Path) -> None:
    entries = dictionary_entries(sources / "dict-gcide", "gcide", r"\n\n(?=\S)")
    mixture.numbers.shuffle(entries)
    found = 0
    for entry in mixture.some(entries):
        head = re.match(r"([A-Z][A-Za-z' -]{2,30}?)\s*\\", entry)
        body = one_line(re.sub(r"\\[^\\]*\\,?|\[[^\]]*\]|[{}]", " ", one_line(entry)))
        if head is not None and len(body.split()) >= 25:
            for piece in islice(mixture.pieces(body, 60), 2):
                mixture.add(piece)
            mixture.terms.append(head.group(1))
            found += 1
        if found >= 14_000:
            break


def foldoc(mixture: Mixture, sources: Path) -> None:
    for entry in mixture.some(dictionary_entries(sources / "dict-foldoc", "foldoc", r"\n(?=\S)")):
        head, _, body = entry.partition("\n")
        body = one_line(re.sub(r"[{}]", "", body))
        if len(body.split()) >= 15 and not head.startswith("00"):
            for piece in islice(mixture.pieces(body), 3):
                mixture.add(piece if mixture.numbers.random() < 0.3 else f"{head}: {piece}")
            mixture.terms.append(head)


def pydoc(mixture: Mixture) -> None:
    """Python's documentation: a document's first sentence may serve as a query for the others."""
    for document in mixture.some(pydoc_documents()):
        docno = mixture.add(document["text"])
        body = one_line(document["text"].split("\n\n", 1)[-1])
        sentence = re.split(r"(?<=[.!?])\s", body)[0]
        if 4 <= len(sentence.split()) <= 25 and mixture.numbers.random() < 0.6:
            mixture.ask("pydoc", sentence, docno, OWN_TEXT)


# Queries made from terms, headings and sentences: unlabelled

STOP_WORDS = set(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been before being between but by can could did do does "
        "during each for from had has have he her him his how i if in into is it its may me might more most my no nor "
        "not of on one only or other our out over shall she should so some such than that the their them there these "
        "they this those through to two up us very was we were what when where which while who whom whose why will "
        "with would you your",
    )
)
TERM_FORMS = (
    "what is {}", "what is {}", "what is {}", "what are {}", "{} definition", "define {}", "{} meaning",
    "what does {} mean", "meaning of {}", "{}", "who was {}", "who is {}", "where is {}", "how does {} work",
    "what causes {}", "causes of {}", "types of {}", "examples of {}", "history of {}", "symptoms of {}",
    "why is {} important", "how to {}", "benefits of {}", "what is the purpose of {}", "what is the function of {}",
    "{} facts", "when was {}", "is {} good", "how long does {} last", "how much does {} cost",
    "what is the difference between {} and {}", "{} vs {}", "where does {} come from", "how is {} made",
    "what is the role of {}",
)  # fmt: skip
HEADING_FORMS = ("what is {}", "what are the {}", "explain {}", "how does {} work", "why {}", "{} definition")
QUESTION_STARTS = (
    "what is", "who", "when did", "where is", "how many", "how does", "why do", "what year", "which", "how to", "did",
    "can",
)  # fmt: skip
IS_A_FORMS = ("what {verb} {subject}", "{subject}", "who {verb} {subject}", "define {subject}")


def ask_about_terms(mixture: Mixture, most: int = 45_000) -> None:
    mixture.begin("queries about terms")
    terms = sorted({term.strip().lower() for term in mixture.terms if 2 < len(term) < 40})
    mixture.numbers.shuffle(terms)
    for term in terms[:most]:
        mixture.ask("term", mixture.numbers.choice(TERM_FORMS).format(term, mixture.numbers.choice(terms)))


def ask_about_headings(mixture: Mixture, most: int = 30_000) -> None:
    mixture.begin("queries about headings")
    headings = sorted({one_line(h).lower().rstrip(".") for h in mixture.headings if 1 < len(h.split()) < 13})
    mixture.numbers.shuffle(headings)
    for heading in headings[:most]:
        as_it_is = mixture.numbers.random() < 0.6
        mixture.ask("heading", heading if as_it_is else mixture.numbers.choice(HEADING_FORMS).format(heading))


def ask_about_sentences(mixture: Mixture) -> None:
    """One query from a sentence of each text, as short and clumsy as the ones that people type."""
    mixture.begin("queries from sentences")
    texts = list(mixture.texts.documents)
    mixture.numbers.shuffle(texts)
    for text in texts:
        sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if 6 <= len(s.split()) <= 40]
        if sentences:
            ask_about_sentence(mixture, mixture.numbers.choice(sentences))


def ask_about_sentence(mixture: Mixture, sentence: str) -> None:
    numbers = mixture.numbers
    words = re.findall(r"[A-Za-z0-9'][A-Za-z0-9'.-]*[A-Za-z0-9]|[A-Za-z0-9]", sentence)
    content = [word for word in words if word.lower() not in STOP_WORDS]
    if len(content) < 3:
        return
    drawn = numbers.random()
    if drawn < 0.55:
        mixture.ask("run", " ".join(a_run(numbers, content, 2, 6)).lower())
    elif drawn < 0.75:
        asked = a_run(numbers, words, 2, 6)
        while asked and asked[0].lower() in STOP_WORDS:
            asked.pop(0)
        while asked and asked[-1].lower() in STOP_WORDS:
            asked.pop()
        if asked:
            mixture.ask("question-run", f"{numbers.choice(QUESTION_STARTS)} {' '.join(asked).lower()}")
    elif drawn < 0.9:
        subject = re.match(r"(?:The |A |An )?([A-Z][\w' -]{2,40}?) (is|are|was|were) (an? |the )?", sentence)
        if subject is not None:
            form = numbers.choice(IS_A_FORMS)
            mixture.ask("is-a", form.format(subject=subject.group(1).lower(), verb=subject.group(2)))
    else:
        mixture.ask("sentence", " ".join(sentence.split()[: numbers.randint(5, 14)]).lower().strip(".,;"))


def a_run(numbers: random.Random, words: list[str], low: int, high: int) -> list[str]:
    """Some consecutive words."""
    length = numbers.randint(low, min(high, len(words)))
    first = numbers.randint(0, len(words) - length)
    return words[first : first + length]


def mix(data: Path, sources: Path, *, seed: int = 7, sample: int | None = None) -> Texts:
    """Reads all sources that are there, and says which are not.

    Args:
        data: The folder that `benchmarks.fetch_data` wrote.
        sources: The folder of clones and packages.
        seed: Fixes what is drawn.
        sample: Reads only so many texts, files or entries of each source. None: all.
    """
    mixture = Mixture(seed, sample)
    readers: dict[str, Callable[[], None]] = {
        "squad": lambda: labelled(mixture, data / "squad_train44", "squad"),
        "squadshifts": lambda: labelled(mixture, data / "squadshifts_new_wiki", "squadshifts"),
        "qed": lambda: labelled(mixture, data / "qed_nq", "qed", ".train"),
        "medquad": lambda: medquad(mixture, data),
        "real-questions": lambda: real_questions(mixture, data),
        "webquestions": lambda: webquestions(mixture, sources),
        "pubmedqa": lambda: pubmedqa(mixture, sources),
        "openstax": lambda: openstax(mixture, sources),
        "biology-book": lambda: biology_book(mixture, sources),
        "vagov": lambda: vagov(mixture, sources),
        "factbook": lambda: factbook(mixture, sources),
        "wordnet": lambda: wordnet(mixture, sources),
        "gcide": lambda: gcide(mixture, sources),
        "foldoc": lambda: foldoc(mixture, sources),
        "anarchism": lambda: pages(mixture, sources / "anarchism", "*.md"),
        "debian-handbook": lambda: pages(mixture, sources / "debian-handbook", "en-US/*.html"),
        "gnome-help": lambda: pages(mixture, sources / "gnome-user-docs", "C/**/*.page"),
        "stellarium": lambda: pages(
            mixture, sources / "stellarium-data", "description.en.utf8", wanted=allows_everything
        ),
        "pydoc": lambda: pydoc(mixture),
    }
    for name, origin in ORIGINS.items():
        mixture.begin(name)
        try:
            readers[name]()
            print(f"{name}: {mixture.sources[name]:,} texts ({origin.licence})", flush=True)
        except FileNotFoundError as error:
            print(f"{name}: not, or not all, there ({origin.where}): {error}", flush=True)
    ask_about_terms(mixture)
    ask_about_headings(mixture)
    ask_about_sentences(mixture)
    print(f"{len(mixture.texts.documents):,} texts; queries by kind: {dict(mixture.kinds)}", flush=True)
    return mixture.texts


def main() -> None:
    """Reads the sources and writes the collection."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--sources", type=Path, required=True, help="the folder of git clones and unpacked packages")
    parser.add_argument("--output", type=Path, required=True, help="the collection's folder, which must not exist")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--sample", type=int, metavar="N", help="read only N texts, files or entries of each source")
    arguments = parser.parse_args()
    texts = mix(arguments.data, arguments.sources, seed=arguments.seed, sample=arguments.sample)
    write(texts, arguments.output, "What mini learns from; recipes/mini_texts.py lists sources and licences.")


if __name__ == "__main__":
    main()
