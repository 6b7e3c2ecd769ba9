"""The mean of several re-rankers."""

from __future__ import annotations

import pickle

import numpy as np
import pyterrier as pt
import pytest
from helpers.frames import frame
from helpers.tiny_models import tiny_model

from pyterrier_bertcat.errors import InputError, TruncationWarning
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pipeline.ensemble import MeanReRanker
from pyterrier_bertcat.reranker import BertCatReRanker

TEXTS = ["the quick brown fox", "a dog", "", "over the lazy dog " * 9, "jump"]


def member(tokenizer, seed: int, **options) -> BertCatReRanker:
    kind = "bert" if seed == 2 else "distilbert"
    checkpoint = Checkpoint(model=tiny_model(kind, seed=seed), tokenizer=tokenizer)
    return BertCatReRanker(checkpoint, device="cpu", verbose=False, **options)


def scores(transformer: pt.Transformer) -> np.ndarray:
    return transformer(frame(TEXTS)).sort_values("docno")["score"].to_numpy()


@pytest.mark.filterwarnings("ignore:.* too long")
@pytest.mark.parametrize(
    "options",
    [
        [{}, {}, {}],
        [{}, {"max_length": 20}, {}],
        [{}, {"passages": Passages(length=10, stride=5)}, {"batch_tokens": 30}],
    ],
)
def test_scores_are_the_mean_of_the_members(tokenizer, options):
    members = [member(tokenizer, seed, **some) for seed, some in enumerate(options)]
    ensemble = BertCatReRanker.mean(members)
    np.testing.assert_allclose(scores(ensemble), np.mean([scores(one) for one in members], axis=0), atol=5e-5)
    assert [statistics.pairs for statistics in ensemble.stats] == [5, 5, 5]


def test_it_is_what_its_members_are(tokenizer):
    members = [member(tokenizer, seed) for seed in range(2)]
    ensemble = MeanReRanker(members)
    same = pickle.loads(pickle.dumps(ensemble))
    assert same == ensemble == MeanReRanker(members[:])
    assert hash(same) == hash(ensemble)
    assert ensemble != MeanReRanker(members[::-1])
    np.testing.assert_array_equal(scores(same), scores(ensemble))
    assert ensemble(frame(TEXTS).iloc[:0]).columns.tolist() == ["qid", "query", "docno", "text", "score", "rank"]
    assert pt.inspect.transformer_inputs(ensemble) == [["qid", "docno", "query", "text"]]
    pt.schematic.draw(ensemble)


def test_what_does_not_go_together_is_refused(tokenizer):
    with pytest.raises(InputError, match="at least one"):
        BertCatReRanker.mean([])
    with pytest.raises(InputError, match="need the same text_field"):
        BertCatReRanker.mean([member(tokenizer, 0), member(tokenizer, 1, text_field="body")])
    with pytest.raises(InputError, match="leave depth"):
        BertCatReRanker.mean([member(tokenizer, 0, depth=3)])


def test_what_is_no_member_is_refused_by_name(tokenizer):
    mean = BertCatReRanker.mean([member(tokenizer, 0)])
    for other in ("mini", mean, pt.apply.doc_score(lambda row: 1.0)):
        with pytest.raises(InputError, match="are BertCatReRankers, got"):
            BertCatReRanker.mean([member(tokenizer, 0), other])


def test_it_loads_at_once_warns_of_what_was_cut_and_has_statistics(tokenizer):
    ensemble = BertCatReRanker.mean([member(tokenizer, 0, max_length=12), member(tokenizer, 1, max_length=12)]).load()
    assert ensemble.stats == ()
    with pytest.warns(TruncationWarning, match=r"1 of 5 pairs .*passages=Passages") as warned:
        ensemble(frame(TEXTS))
    assert len(warned) == 1  # both members cut the same pair
    assert [statistics.truncated_pairs for statistics in ensemble.stats] == [1, 1]
    whole = [member(tokenizer, seed, passages=Passages(length=6, stride=3)) for seed in range(2)]
    BertCatReRanker.mean(whole)(frame(TEXTS))  # a warning would be an error here
