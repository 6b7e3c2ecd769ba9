"""``BertCatReRanker`` among what its users combine it with: caches, adaptive re-ranking, processes, windows."""

from __future__ import annotations

import platform
import sys

import pandas as pd
import pyterrier as pt
import pyterrier_adaptive
import pyterrier_caching
import pytest
from helpers.pipeline_stages import DOCUMENTS, TOPICS, Bm25sRetriever, pairs, text

from pyterrier_bertcat.reranker import BertCatReRanker


@pytest.fixture(scope="module")
def bertcat(saved_folder) -> BertCatReRanker:
    return BertCatReRanker(str(saved_folder), device="cpu", verbose=False)


@pytest.fixture(scope="module")
def pisa(tmp_path_factory) -> pt.Transformer:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("there is no PISA for this platform")
    import pyterrier_pisa

    index = pyterrier_pisa.PisaIndex(str(tmp_path_factory.mktemp("pisa") / "index"), text_field="text", threads=1)
    index.index({"docno": docno, "text": body} for docno, body in DOCUMENTS.items())
    return index.bm25(num_results=8, threads=1)


class Unavailable(BertCatReRanker):
    """Scores nothing: whoever asks did not use the cache."""

    def transform(self, inp):
        if len(inp):
            raise RuntimeError("scored although the scores were cached")
        return super().transform(inp)


def test_scorer_cache_keeps_the_scores(pisa, bertcat, tmp_path):
    expected = (pisa >> text >> bertcat)(TOPICS)
    with pyterrier_caching.ScorerCache(str(tmp_path / "cache"), bertcat) as cache:
        first = (pisa >> text >> cache)(TOPICS)
    assert pairs(first) == pytest.approx(pairs(expected), abs=5e-5)
    with pyterrier_caching.ScorerCache(str(tmp_path / "cache"), Unavailable("no/such-model")) as cache:
        again = (pisa >> text >> cache)(TOPICS)
    assert pairs(again) == pairs(first)
    assert again.sort_values(["qid", "rank"])["docno"].tolist() == expected["docno"].tolist()


@pytest.fixture(scope="module")
def corpus_graph(tmp_path_factory):
    documents = [{"docno": docno, "text": body} for docno, body in DOCUMENTS.items()]
    return pyterrier_adaptive.CorpusGraph.from_retriever(
        Bm25sRetriever(), documents, tmp_path_factory.mktemp("graph") / "graph", k=4
    )


def test_gar_reaches_documents_that_the_first_stage_missed(pisa, bertcat, corpus_graph):
    gar = pyterrier_adaptive.GAR(text >> bertcat, corpus_graph, num_results=10, batch_size=2)
    out = (pisa % 2 >> gar)(TOPICS)
    assert set(pairs(out)) > set(pairs((pisa % 2)(TOPICS)))
    for row in out.itertuples():
        [expected] = bertcat.scorer.score([row.query], [DOCUMENTS[row.docno]])
        assert row.score == pytest.approx(expected, abs=5e-5)


def test_gar_takes_its_batch_size_from_the_reranker(bertcat, corpus_graph):
    assert pyterrier_adaptive.GAR(bertcat, corpus_graph).batch_size == bertcat.batch_size


def test_parallel_processes_give_the_same(pisa, bertcat):
    candidates = (pisa >> text)(TOPICS)
    with pytest.warns(UserWarning, match="experimental"):
        parallel = bertcat.parallel(2)
    assert pairs(parallel(candidates)) == pytest.approx(pairs(bertcat(candidates)), abs=5e-5)


def test_between_pyterriers_own_sliding_windows_and_their_best(bertcat):
    long = pd.DataFrame(
        {
            "qid": ["1", "1", "2"],
            "query": ["copy a folder", "copy a folder", "sort"],
            "docno": ["long", "short", "long"],
            "text": [" ".join(DOCUMENTS.values()), DOCUMENTS["copy"], " ".join(DOCUMENTS.values())],
            "url": ["a", "b", "c"],
        }
    )
    windows = pt.text.sliding("text", length=20, stride=10, prepend_attr=None)
    out = (windows >> bertcat >> pt.text.max_passage())(long)
    cut = windows(long)
    assert len(cut) > 2 * len(long)
    cut["score"] = bertcat.scorer.score(cut["query"].tolist(), cut["text"].tolist())
    cut["document"] = cut["docno"].str.partition("%p")[0]
    best = cut.groupby(["qid", "document"])["score"].max()
    assert pairs(out) == pytest.approx(best.to_dict(), abs=5e-5)
    assert dict(zip(out["qid"] + out["docno"], out["url"], strict=True)) == {"1long": "a", "1short": "b", "2long": "c"}
    for _, ranking in out.groupby("qid"):
        assert ranking.sort_values("rank")["score"].is_monotonic_decreasing
