"""``BertCatReRanker`` in pipelines: first stages, PyTerrier's operators, and experiments."""

from __future__ import annotations

import os
import platform
import sys

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
from helpers.pipeline_stages import DOCUMENTS, TOPICS, Bm25sRetriever, pairs, text
from pandas.testing import assert_frame_equal

from pyterrier_bertcat.reranker import BertCatReRanker

os.environ["PT_TEST_TRANSFORMER_REPORTS"] = "0"
QRELS = pd.DataFrame([("1", "copytree", 1), ("2", "socket", 1), ("3", "sort", 1)], columns=["qid", "docno", "label"])


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


class Counted(pt.Transformer):
    """Passes on to another transformer and counts the rows that it was given."""

    def __init__(self, inner):
        self.inner = inner
        self.rows = 0

    def transform(self, inp):
        self.rows += len(inp)
        return self.inner(inp)


@pytest.fixture(params=["pisa", "bm25s"])
def bm25(request) -> pt.Transformer:
    return request.getfixturevalue("pisa") if request.param == "pisa" else Bm25sRetriever()


class TestAsATransformer(pt.testing.transformer_test_class(lambda: BertCatReRanker("mini", verbose=False))):
    """PyTerrier's own tests of transformers."""


def test_a_first_stage_is_reranked(bm25, bertcat):
    first = (bm25 >> text)(TOPICS)
    out = (bm25 >> text >> bertcat)(TOPICS)
    assert set(pairs(out)) == set(pairs(first))
    assert out["docno"].tolist() != first["docno"].tolist()
    for row in out.itertuples():
        [expected] = bertcat.scorer.score([row.query], [DOCUMENTS[row.docno]])
        assert row.score == pytest.approx(expected, abs=5e-5)
    for _, group in out.groupby("qid"):
        assert group["rank"].tolist() == list(range(len(group)))
        assert group["score"].is_monotonic_decreasing


def test_a_query_without_results_is_no_problem(pisa, bertcat):
    topics = pd.concat([TOPICS, pd.DataFrame([("4", "xyzzy")], columns=["qid", "query"])])
    assert_frame_equal((pisa >> text >> bertcat)(topics), (pisa >> text >> bertcat)(TOPICS))
    nothing = (pisa >> text >> bertcat)(topics.iloc[3:])
    assert list(nothing.columns) == list((pisa >> text >> bertcat)(TOPICS).columns)
    assert len(nothing) == 0


def test_search_and_records(bm25, bertcat):
    pipeline = bm25 >> text >> bertcat
    assert pipeline.search("copy a folder")["docno"].tolist() == pipeline(TOPICS.iloc[:1])["docno"].tolist()
    assert pipeline(TOPICS.to_dict(orient="records")) == pipeline(TOPICS).to_dict(orient="records")


def test_a_cutoff_keeps_the_best(bm25, bertcat):
    whole = (bm25 >> text >> bertcat)(TOPICS)
    best = ((bm25 >> text >> bertcat) % 3)(TOPICS)
    assert_frame_equal(best, whole[whole["rank"] < 3].reset_index(drop=True))
    assert_frame_equal((bm25 >> text >> bertcat % 3).compile()(TOPICS), best)


def test_sums_and_products_of_scores(bm25, bertcat):
    reranked = pairs((bm25 >> text >> bertcat)(TOPICS))
    first = pairs(bm25(TOPICS))
    mixed = pairs((bm25 >> text >> (pt.Transformer.identity() + 2 * bertcat))(TOPICS))
    assert mixed == {pair: pytest.approx(first[pair] + 2 * reranked[pair], abs=1e-4) for pair in first}


def test_features(bm25, bertcat):
    out = (bm25 >> text >> (pt.Transformer.identity() ** bertcat))(TOPICS)
    first, reranked = pairs(bm25(TOPICS)), pairs((bm25 >> text >> bertcat)(TOPICS))
    for row in out.itertuples():
        pair = (row.qid, row.docno)
        np.testing.assert_allclose(row.features, [first[pair], reranked[pair]], atol=5e-5)


def test_set_operators(bm25, bertcat):
    candidates = (bm25 % 2) | (bm25 % 4)
    out = (candidates >> text >> bertcat)(TOPICS)
    assert set(pairs(out)) == set(pairs((bm25 % 4)(TOPICS)))


def test_saved_results_from_df_can_be_reranked(bm25, bertcat):
    saved = (bm25 >> text)(TOPICS)
    from_saved = (pt.Transformer.from_df(saved) >> bertcat)(TOPICS)
    assert pairs(from_saved) == pytest.approx(pairs((bm25 >> text >> bertcat)(TOPICS)), abs=5e-5)


def test_trec_files_hold_the_scores(bm25, bertcat, tmp_path):
    out = (bm25 >> text >> bertcat)(TOPICS)
    pt.io.write_results(out, str(tmp_path / "run.res"))
    assert pairs(pt.io.read_results(str(tmp_path / "run.res"))) == pytest.approx(pairs(out), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.* too long")
@pytest.mark.filterwarnings("ignore:There are shared pipeline components:UserWarning")
@pytest.mark.parametrize("plan", ["linear", "tree"])
def test_experiments_measure_the_ranks_that_are_shown(pisa, bertcat, plan):
    wide = BertCatReRanker(bertcat.model, max_length=12, device="cpu", verbose=False)
    systems = [pisa, pisa >> text >> bertcat, pisa >> text >> wide]
    table = pt.Experiment(
        systems, TOPICS, QRELS, ["recip_rank"], names=["bm25", "bertcat", "short"], plan=plan, verbose=False
    )
    for name, system in zip(table["name"], systems, strict=True):
        out = system(TOPICS).merge(QRELS, on=["qid", "docno"])
        expected = (1 / (1 + out["rank"])).sum() / len(TOPICS)
        assert table.set_index("name")["recip_rank"][name] == pytest.approx(expected)


def test_the_tree_plan_runs_a_shared_first_stage_once(pisa, bertcat):
    counted = Counted(pisa)
    twin = BertCatReRanker(bertcat.model, device="cpu", verbose=True)
    systems = [counted >> text >> bertcat, counted >> text >> twin % 2, counted >> text >> bertcat % 4]
    pt.Experiment(systems, TOPICS, QRELS, ["map"], plan="tree", verbose=False)
    assert counted.rows == len(TOPICS)


def test_two_batch_sizes_can_be_compared_in_one_tree(pisa, bertcat):
    """Systems that are equal would be one to the tree plan, and the experiment would end in an error."""
    other = BertCatReRanker(bertcat.model, batch_size=2, device="cpu", verbose=False)
    table = pt.Experiment(
        [pisa >> text >> bertcat, pisa >> text >> other], TOPICS, QRELS, ["map", "mrt"], plan="tree", verbose=False
    )
    assert table["map"].nunique() == 1


def test_ties_are_ordered_as_experiments_order_them(bertcat):
    docnos = ["d3", "d10", "d20", "d1"]
    run = pd.DataFrame({"qid": "1", "query": "q", "docno": docnos, "text": "the same"})
    out = bertcat(run)
    assert out["score"].nunique() == 1
    for row in out.itertuples():
        table = pt.Experiment(
            [pt.Transformer.from_df(run) >> bertcat],
            TOPICS.iloc[:1],
            pd.DataFrame([("1", row.docno, 1)], columns=["qid", "docno", "label"]),
            ["recip_rank"],
        )
        assert table["recip_rank"][0] == pytest.approx(1 / (1 + row.rank))


@pytest.mark.filterwarnings("ignore:.* too long")
def test_a_grid_over_an_option_makes_each_scorer_anew(pisa, bertcat):
    made = BertCatReRanker(bertcat.model, device="cpu", verbose=False)
    found = pt.GridScan(
        pisa >> text >> made,
        {made: {"max_length": [6, 512]}},
        TOPICS,
        QRELS,
        ["recip_rank"],
        verbose=False,
        dataframe=False,
    )
    assert len(found) == 2
    for settings, measures in found:
        [(_, _, max_length)] = settings
        fresh = pisa >> text >> BertCatReRanker(bertcat.model, max_length=max_length, device="cpu", verbose=False)
        table = pt.Experiment([fresh], TOPICS, QRELS, ["recip_rank"])
        assert measures["recip_rank"] == pytest.approx(table["recip_rank"][0])


def test_weights_in_memory_have_a_schematic_too(tiny_checkpoint):
    assert "BERT_Cat" in pt.schematic.draw(BertCatReRanker(tiny_checkpoint, verbose=False))
