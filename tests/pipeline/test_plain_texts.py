"""``rank(query, texts)``: a plain list of strings, best first."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from helpers.tiny_models import tiny_model

from pyterrier_bertcat import RankedText
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.store.score_store import ScoreStore

QUERY = "what does the fox jump over"
TEXTS = ["a dog", "the quick brown fox", "jump over the lazy dog", "a dog", "music", "a dog"]


def made(model: object, **options: object) -> BertCatReRanker:
    return BertCatReRanker(model, device="cpu", verbose=False, **options)


def test_texts_come_back_best_first_with_position_score_and_text(tiny_checkpoint):
    bertcat = made(tiny_checkpoint)
    found = bertcat.rank(QUERY, TEXTS)
    scores = bertcat.scorer.score([QUERY] * len(TEXTS), TEXTS)
    assert [one.position for one in found] == np.argsort(-scores, kind="stable").tolist()
    for one in found:
        assert isinstance(one, RankedText)
        assert (one.score, one.text) == (float(scores[one.position]), TEXTS[one.position])
        assert (type(one.position), type(one.score)) == (int, float)


def test_equal_scores_stay_in_the_order_of_the_texts(tiny_checkpoint):
    many = ["a dog"] * 12  # as docnos, "10" would come before "9"
    assert [one.position for one in made(tiny_checkpoint).rank(QUERY, many)] == list(range(12))


@pytest.mark.parametrize(
    "texts", [tuple(TEXTS), np.array(TEXTS), pd.Series(TEXTS, index=[5, 5, 1, 0, 2, 9]), iter(TEXTS)]
)
def test_any_kind_of_list_will_do(tiny_checkpoint, texts):
    bertcat = made(tiny_checkpoint)
    assert bertcat.rank(QUERY, texts) == bertcat.rank(QUERY, TEXTS)


def test_no_texts_are_an_empty_list_and_load_nothing():
    bertcat = made("no/such-model")
    assert bertcat.rank(QUERY, []) == []
    assert bertcat._checkpoint is None


def test_a_store_passages_and_another_column_do_what_they_do_for_frames(tiny_checkpoint, tmp_path):
    store = ScoreStore(tmp_path / "store")
    stored = made(tiny_checkpoint, store=store, passages=Passages(length=2, stride=1), text_field="body")
    first = stored.rank(QUERY, TEXTS)
    assert first == made(tiny_checkpoint, passages=Passages(length=2, stride=1)).rank(QUERY, TEXTS)
    assert stored.rank(QUERY, TEXTS) == first
    assert stored.stats.from_store == len(TEXTS)


def test_depth_re_ranks_the_first_texts_and_keeps_the_others_below(tiny_checkpoint):
    found = made(tiny_checkpoint, depth=3).rank(QUERY, TEXTS)
    assert found[:3] == made(tiny_checkpoint).rank(QUERY, TEXTS[:3])
    assert [one.position for one in found[3:]] == [3, 4, 5]


def test_an_ensemble_ranks_by_its_mean(tiny_checkpoint, tokenizer):
    members = [made(tiny_checkpoint), made(Checkpoint(tiny_model(seed=1), tokenizer))]
    expected = {}
    for member in members:
        for one in member.rank(QUERY, TEXTS):
            expected[one.position] = expected.get(one.position, 0) + one.score / 2
    found = BertCatReRanker.mean(members).rank(QUERY, TEXTS)
    assert {one.position: one.score for one in found} == pytest.approx(expected, abs=1e-4)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize(
    ("query", "texts", "message"),
    [
        (QUERY, "a dog", "rank takes a query and a list of texts, all of them strings, got str and str"),
        (["a", "b"], TEXTS, "got list and list"),
        (QUERY, None, "got str and NoneType"),
        (QUERY, {"d1": "a dog"}, "got str and dict"),
        (QUERY, ["a dog", None], "1 of them are not strings .*: docno 1 of"),
        (QUERY, [("d1", "a dog")], "1 of them are not strings .*: docno 0 of"),
    ],
)
def test_what_is_no_list_of_strings_is_refused(query, texts, message):
    with pytest.raises(InputError, match=message):
        made("no/such-model").rank(query, texts)


def test_a_repr_is_short():
    assert repr(RankedText(3, 4.40771484375, "word " * 100)) == (
        "RankedText(position=3, score=4.408, text='" + ("word " * 100)[:59] + "…')"
    )
    assert repr(RankedText(0, -1.0, "a dog")) == "RankedText(position=0, score=-1, text='a dog')"


def test_rerank_says_what_it_takes_and_where_strings_go():
    with pytest.raises(InputError, match=r"expected a hit .* got the text 'a dog': .* use rank\(query, texts\)"):
        made("no/such-model").rerank(QUERY, TEXTS)
