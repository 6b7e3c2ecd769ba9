"""Makes the collections that the benchmarks and `recipes.mini_texts` read, from where they are published.

    python -m benchmarks.fetch_data --data DATA [--only squad_dev vaswani] [--mirror URL]

Writes one folder per collection: ``docs.jsonl.gz`` (docno, text), ``topics*.tsv.gz`` (qid, query), ``qrels*.txt.gz``
(TREC) and ``SOURCE.txt``. A folder that exists is left alone. Then it counts what it made, and says whether the
content is exactly what the figures in README.md were measured on.

With ``--mirror http://host/path``, ``https://example.org/file`` is fetched from ``http://host/path/example.org/file``.
Vaswani comes through ir_datasets, which has its own settings for where to download from and to.

These conversions were tried on the published files and against a local server; the addresses themselves could not be
reached where this was written. All of `PUBLIC` is published; the one other collection that the benchmarks use,
``bertcat:pydoc``, comes with the package.
"""

from __future__ import annotations

import argparse
import csv
import functools
import gzip
import hashlib
import io
import json
import re
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

TIMEOUT_S = 60
GITHUB = "https://raw.githubusercontent.com/"
QED_FIRST = f"{GITHUB}google-research-datasets/QED/71e19e085640a2032c803a839d716f0a1b526bff/"
QED_LAST = f"{GITHUB}google-research-datasets/QED/2492920337122918bbfc7d12c1268b9af796c6cf/"
QUESTIONS = f"{GITHUB}castorini/anserini-tools/5b819c1a45c8a0a3ec9426f476694f44a29dfaf3/topics/"

Download = Callable[[str], bytes]


class Texts:
    """Documents, queries and judgments of one collection as they are read; equal texts are one document."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, str]] = {}  # text -> document
        self.queries: dict[str, dict[str, str]] = {}  # split -> qid -> query
        self.judged: dict[str, list[tuple[str, str, int]]] = {}  # split -> qid, docno, label

    def document(self, docno: str, text: str, **fields: str) -> str:
        """Adds a document unless its text is already there; returns the docno under which it is."""
        return self.documents.setdefault(text, {"docno": docno, "text": text, **fields})["docno"]

    def judge(self, qid: str, query: str, docno: str, *, split: str = "") -> None:
        """Adds a query with its relevant document."""
        self.queries.setdefault(split, {})[qid] = query
        self.judged.setdefault(split, []).append((qid, docno, 1))

    def lines(self) -> Iterator[tuple[str, list[str]]]:
        """The files of the collection's folder, with their lines."""
        if self.documents:
            yield "docs.jsonl.gz", [json.dumps(document) for document in self.documents.values()]
        for split, queries in self.queries.items():
            yield f"topics{split}.tsv.gz", [f"{qid}\t{query}" for qid, query in queries.items()]
        for split, judged in self.judged.items():
            yield f"qrels{split}.txt.gz", [f"{qid} 0 {docno} {label}" for qid, docno, label in judged]


@dataclass(frozen=True)
class Collection:
    """A collection, and what it must contain.

    Attributes:
        make: Downloads its files and reads them.
        documents: How many documents it has.
        queries: How many queries each split has.
        digest: Of its lines in any order, from the folder that README's figures were measured on.
        source: Where it is published, with its licence.
    """

    make: Callable[[Download], Texts]
    documents: int
    queries: dict[str, int]
    digest: str
    source: str


def squad(*addresses: str) -> Callable[[Download], Texts]:
    """Reads SQuAD's JSON: a document is a paragraph, and relevant to the questions asked about it."""

    def make(download: Download) -> Texts:
        texts = Texts()
        for article in (article for address in addresses for article in json.loads(download(address))["data"]):
            name = re.sub("[^A-Za-z0-9]+", "_", article["title"]).strip("_")
            for number, paragraph in enumerate(article["paragraphs"]):
                title = article["title"].replace("_", " ")
                docno = texts.document(f"{name}-{number}", one_line(paragraph["context"]), title=title)
                for question in paragraph["qas"]:
                    texts.judge(question["id"], one_line(question["question"]), docno)
        return texts

    return make


QED_FILES = {
    ".dev": [f"{QED_LAST}qed-dev.jsonlines", *(f"{QED_FIRST}nq-dev-0{n}-qed.jsonlines" for n in range(3))],
    ".train": [f"{QED_FIRST}nq-train-0{n}-qed.jsonlines" for n in range(6)],
}


def qed(download: Download) -> Texts:
    """Reads QED's lines: a question of Natural Questions with the paragraph that answers it.

    The first version's training set came in six files; the later one is a single file with other paragraphs.
    """
    texts = Texts()
    seen: set[str] = set()
    for split, addresses in QED_FILES.items():
        for line in (line for address in addresses for line in download(address).decode().split("\n") if line):
            example = json.loads(line)
            qid = str(example["example_id"])
            if qid not in seen:
                seen.add(qid)
                paragraph, title = one_line(example["paragraph_text"]), one_line(example["title_text"])
                docno = texts.document(f"p{len(texts.documents)}", paragraph, title=title)
                texts.judge(qid, one_line(example["question_text"]), docno, split=split)
    return texts


MEDQUAD = "https://github.com/abachaa/MedQuAD/archive/577bd37b96c02d1833b2c9eed2de9f96964e96cb.zip"
MOST_WORDS, FEWEST_WORDS = 400, 15


def medquad(download: Download) -> Texts:
    """Reads MedQuAD's XML: answers of at least 15 words are the documents, cut at 400 words."""
    texts, archive = Texts(), zipfile.ZipFile(io.BytesIO(download(MEDQUAD)))
    queries = 0
    for name in sorted(name for name in archive.namelist() if name.endswith(".xml")):
        for pair in ElementTree.fromstring(archive.read(name)).iter("QAPair"):
            words = (pair.findtext("Answer") or "").split()
            if len(words) >= FEWEST_WORDS:
                queries += 1
                docno = texts.document(f"m{len(texts.documents)}", " ".join(words[:MOST_WORDS]))
                query = one_line((pair.findtext("Question") or "").replace(" ?", "?"))
                texts.judge(f"mq{queries}", query, docno)
    return texts


def real_questions(download: Download) -> Texts:
    """Reads questions without judgments: Natural Questions, WebQuestions, TriviaQA; those of qed_nq are left out."""
    texts = Texts()
    known = {query for queries in qed(download).queries.values() for query in queries.values()}
    natural = [f"{QUESTIONS}topics.dpr.nq.{part}.txt" for part in ("dev", "test")]
    asked = [one_line(row[0]) for address in natural for row in tab_separated(download(address))]
    beir = gzip.decompress(download(f"{QUESTIONS}topics.beir-v1.0.0-nq.test.tsv.gz")).decode()
    asked += [one_line(line.split("\t")[1]) for line in beir.splitlines()]
    web = download(f"{QUESTIONS}topics.dpr.wq.test.txt").decode().splitlines()
    # splitlines also ends a line at U+0085, which splits three questions. The figures were measured on them like that.
    trivia = download(f"{QUESTIONS}topics.dpr.trivia.dev.txt").decode().splitlines()
    texts.queries[""] = {
        f"{prefix}{number}": query
        for prefix, queries in (
            ("nq", dict.fromkeys(query for query in asked if query not in known)),
            ("wq", [one_line(json.loads(line)["question"]).removesuffix("?") for line in web]),
            ("tq", [one_line(line.split("\t")[0]) for line in trivia]),
        )
        for number, query in enumerate(queries)
    }
    return texts


def vaswani(_: Download) -> Texts:
    """Vaswani from ir_datasets. Its queries are in capitals: they are lower-cased."""
    import ir_datasets

    return from_ir_datasets(ir_datasets.load("vaswani"))


def from_ir_datasets(dataset: Any) -> Texts:
    """A data set of ir_datasets whose documents have an id and a text."""
    texts = Texts()
    for document in dataset.docs_iter():  # by docno, as some have the same text
        texts.documents[document.doc_id] = {"docno": document.doc_id, "text": one_line(document.text)}
    texts.queries[""] = {query.query_id: one_line(query.text).lower() for query in dataset.queries_iter()}
    texts.judged[""] = [(qrel.query_id, qrel.doc_id, qrel.relevance) for qrel in dataset.qrels_iter()]
    return texts


def one_line(text: str) -> str:
    """The text with single spaces only."""
    return " ".join(text.split())


def tab_separated(content: bytes) -> Iterable[list[str]]:
    return csv.reader(io.StringIO(content.decode(), newline=""), delimiter="\t")


SQUADSHIFTS = f"{GITHUB}modestyachts/squadshifts-website/b7cc4d50af791c36c49417fb94dd739d6a9e7bef/datasets/"
PUBLIC = {
    "squad_dev": Collection(
        squad("https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v1.1.json"),
        documents=2067,
        queries={"": 10570},
        digest="43def4725ef3112a",
        source="SQuAD 1.1, development set. CC BY-SA 4.0.",
    ),
    "squad_train44": Collection(
        squad(f"{GITHUB}tomhosking/aqleaderboard/79ed2dc0dff52b0594275812f48ab176bcc498eb/data/test-v1.1.json"),
        documents=2429,
        queries={"": 11877},
        digest="3b626ff86d870033",
        source="44 articles of SQuAD 1.1's training set, the test split of Du et al. (2017). CC BY-SA 4.0.",
    ),
    "squadshifts_new_wiki": Collection(
        squad(f"{SQUADSHIFTS}new_wiki_v1.0.json"),
        documents=1581,
        queries={"": 7938},
        digest="8a5b50a8431e3e15",
        source="SQuADShifts, New Wikipedia (Miller et al. 2020). Texts from Wikipedia.",
    ),
    "qed_nq": Collection(
        qed,
        documents=8100,
        queries={".dev": 1360, ".train": 7167},
        digest="08da78d595c5a8bd",
        source="google-research-datasets/QED: paragraphs and questions of Natural Questions. Texts CC BY-SA 3.0.",
    ),
    "medquad": Collection(
        medquad,
        documents=15509,
        queries={"": 16109},
        digest="43246d63c2e886a3",
        source="abachaa/MedQuAD: questions and answers of NIH pages. CC BY 4.0.",
    ),
    "real_questions": Collection(
        real_questions,
        documents=0,
        queries={"": 22850},
        digest="2fe09c881b503038",
        source="castorini/anserini-tools, topics: Natural Questions, WebQuestions, TriviaQA. Questions only.",
    ),
    "vaswani": Collection(
        vaswani,
        documents=11429,
        queries={"": 93},
        digest="2cb553c159ae73b2",
        source="Vaswani (NPL), by way of ir_datasets.",
    ),
}


def downloader(mirror: str | None) -> Download:
    """Fetches addresses, each once; with a mirror from there."""

    @functools.cache
    def download(address: str) -> bytes:
        if mirror is not None:
            address = f"{mirror.rstrip('/')}/{address.partition('://')[2]}"
        print(f"  {address}", flush=True)
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as response:
            return bytes(response.read())

    return download


def write(texts: Texts, folder: Path, source: str) -> None:
    """Writes a collection's folder; it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unfinished = Path(scratch) / folder.name
        unfinished.mkdir()
        for name, lines in texts.lines():
            content = "".join(f"{line}\n" for line in lines).encode()
            (unfinished / name).write_bytes(gzip.compress(content, mtime=0))
        (unfinished / "SOURCE.txt").write_text(f"{source}\n", encoding="utf-8")
        unfinished.rename(folder)


def counts(folder: Path) -> tuple[int, dict[str, int]]:
    """How many documents a folder has, and how many queries per split."""
    queries = {path.name.removeprefix("topics").removesuffix(".tsv.gz"): path for path in folder.glob("topics*.tsv.gz")}
    documents = folder / "docs.jsonl.gz"
    return (
        len(lines_of(documents)) if documents.exists() else 0,
        {split: len(lines_of(path)) for split, path in sorted(queries.items())},
    )


def digest(folder: Path) -> str:
    """A fingerprint of a folder's content: docno and text of documents, topics, judgments, in any order."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.gz")):
        lines = lines_of(path)
        if path.name == "docs.jsonl.gz":
            documents = [json.loads(line) for line in lines]
            lines = [f"{document['docno']}\t{document['text']}" for document in documents]
        total.update("\n".join([path.name, *sorted(lines)]).encode())
    return total.hexdigest()[:16]


def lines_of(path: Path) -> list[str]:
    """A compressed file's lines."""
    return gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n")


def fetch(name: str, collection: Collection, data: Path, download: Download) -> bool:
    """Makes a collection's folder unless it exists, and prints what it holds; False if that isn't what it must hold."""
    folder = data / name
    print(f"{name}: {collection.source}", flush=True)
    if not folder.exists():
        try:
            texts = collection.make(download)
        except (OSError, ValueError, LookupError, RuntimeError, ElementTree.ParseError, zipfile.BadZipFile) as error:
            print(f"  NOT MADE: {error!r}")
            return False
        write(texts, folder, collection.source)
    found, expected = counts(folder), (collection.documents, collection.queries)
    print(f"  {folder}: {found[0]:,} documents, queries {found[1]}")
    if found != expected:
        print(f"  NOT AS EXPECTED: {expected[0]:,} documents, queries {expected[1]}. Delete the folder to try again.")
        return False
    same = digest(folder) == collection.digest
    print("  " + ("exactly" if same else "as large as, but not exactly,") + " what README's figures were measured on")
    return True


def main(arguments: list[str] | None = None) -> None:
    """Fetches, and ends with exit code 1 unless all of it is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder to write collections into")
    parser.add_argument("--only", nargs="+", choices=PUBLIC, default=list(PUBLIC), help="fetch only these")
    parser.add_argument("--mirror", help="fetch from below this address instead")
    options = parser.parse_args(arguments)
    download = downloader(options.mirror)
    good = [fetch(name, PUBLIC[name], options.data, download) for name in options.only]
    if not all(good):
        sys.exit(f"{len(good) - sum(good)} of {len(good)} collections are missing or not as expected")


if __name__ == "__main__":
    main()
