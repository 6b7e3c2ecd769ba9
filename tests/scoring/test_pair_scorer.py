"""Scores: those of the plain model, one for each row, whatever the batches; and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers.limited_backend import QUERIES, TEXTS, WORDS, LimitedBackend
from helpers.tiny_models import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError, ScoreError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.pair_scorer import PairScorer


def model_of_spread_scores(kind: str) -> BertCatModel:
    """Random weights that give logits of ordinary size, some units apart."""
    model = tiny_model(kind)
    with torch.no_grad():
        model._classification_layer.weight.mul_(30)
    return model


@pytest.fixture(scope="module")
def scorer(tiny_checkpoint) -> PairScorer:
    return PairScorer(tiny_checkpoint, device="cpu", verbose=False)


def plain_scores(checkpoint: Checkpoint, queries, texts, max_length: int = 512) -> np.ndarray:
    """Encoder, first token, linear layer: one pair at a time, with nothing of this package's engine."""
    model, scores = checkpoint.model, []
    for query, text in zip(queries, texts, strict=True):
        encoding = checkpoint.tokenizer(query, text, return_tensors="pt", truncation=True, max_length=max_length)
        if not model.uses_token_types:
            encoding.pop("token_type_ids", None)
        with torch.no_grad():
            scores.append(model._classification_layer(model.bert_model(**encoding)[0][:, 0]).item())
    return np.array(scores, dtype=np.float32)


@pytest.mark.parametrize("kind", ["distilbert", "bert", "electra"])
def test_scores_are_those_of_the_plain_model_one_pair_at_a_time(kind, tokenizer):
    checkpoint = Checkpoint(model=model_of_spread_scores(kind), tokenizer=tokenizer, source="in memory")
    scores = PairScorer(checkpoint, device="cpu", truncation=Truncation(max_length=64), verbose=False).score(
        QUERIES, TEXTS
    )
    expected = plain_scores(checkpoint, QUERIES, TEXTS, 64)
    assert np.abs(expected).max() < 20
    assert expected.std() > 0.4
    np.testing.assert_allclose(scores, expected, atol=5e-5)


def test_scores_of_a_real_encoder_are_those_of_the_plain_model(minilm_folder, tokenizer):
    encoder = transformers.AutoModel.from_pretrained(str(minilm_folder), dtype=torch.float32)
    torch.manual_seed(1)
    checkpoint = Checkpoint(model=BertCatModel.from_encoder(encoder, "MiniLM"), tokenizer=tokenizer, source="in memory")
    scores = PairScorer(checkpoint, device="cpu", verbose=False).score(QUERIES, TEXTS)
    expected = plain_scores(checkpoint, QUERIES, TEXTS)
    assert expected.std() > 0.01
    np.testing.assert_allclose(scores, expected, atol=5e-5)


@pytest.fixture(scope="module", params=["distilbert", "bert", "electra"])
def checkpoint_of_each_kind(request, tokenizer) -> Checkpoint:
    return Checkpoint(model=model_of_spread_scores(request.param), tokenizer=tokenizer, source="in memory")


@settings(max_examples=15)
@given(
    texts=st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), min_size=1, max_size=20),
    batch_size=st.integers(1, 16),
    batch_tokens=st.integers(1, 700),
    random=st.randoms(),
)
def test_a_score_depends_on_its_pair_alone(checkpoint_of_each_kind, texts, batch_size, batch_tokens, random):
    queries = random.choices(QUERIES, k=len(texts))
    alone = plain_scores(checkpoint_of_each_kind, queries, texts)
    rows = random.choices(range(len(texts)), k=2 * len(texts))
    scorer = PairScorer(
        checkpoint_of_each_kind, batch_size=batch_size, batch_tokens=batch_tokens, device="cpu", verbose=False
    )
    scores = scorer.score([queries[row] for row in rows], [texts[row] for row in rows])
    np.testing.assert_allclose(scores, alone[rows], atol=5e-5)


def test_scores_are_float32_and_one_per_row(scorer):
    scores = scorer.score(QUERIES, TEXTS)
    assert scores.dtype == np.float32
    assert scores.shape == (60,)


def test_no_rows_get_no_scores(scorer):
    scores = scorer.score([], [])
    assert scores.dtype == np.float32
    assert scores.shape == (0,)


@pytest.mark.parametrize("sequence", [tuple, np.array, pd.array, lambda v: pd.Series(v, index=range(60, 0, -1))])
def test_any_sequence_is_taken_by_position(scorer, sequence):
    np.testing.assert_array_equal(scorer.score(sequence(QUERIES), sequence(TEXTS)), scorer.score(QUERIES, TEXTS))


def test_bad_values_are_refused_before_anything_is_scored(tiny_checkpoint):
    backend = LimitedBackend()
    scorer = PairScorer(tiny_checkpoint, verbose=False, backend=backend)
    with pytest.raises(InputError, match=r"texts\[2\] is None of type NoneType"):
        scorer.score(["a", "b", "c"], ["x", "y", None])
    with pytest.raises(InputError, match=r"queries\[1\] is nan of type float"):
        scorer.score(["a", float("nan")], ["x", "y"])
    with pytest.raises(InputError, match=r"texts\[1\] has the lone surrogate"):
        scorer.score(["a", "a"], ["x", "\udcff"])
    with pytest.raises(InputError, match="got 1 queries and 2 texts"):
        scorer.score(["a"], ["x", "y"])
    assert backend.scored == []


def test_each_distinct_pair_is_scored_once(tiny_checkpoint):
    backend = LimitedBackend()
    scorer = PairScorer(tiny_checkpoint, verbose=False, backend=backend)
    scores = scorer.score(["q", "p", "q", "q", "p", "q"], ["a", "a", "b", "a", "a", "c"])
    assert len(backend.scored) == len(set(backend.scored)) == 4
    assert scores[0] == scores[3] != scores[2]
    assert scores[1] == scores[4] != scores[0]


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({"batch_tokens": 300}, 300),
        ({"batch_size": 4, "truncation": Truncation(max_length=50)}, 200),
        ({"batch_size": 4, "truncation": Truncation(max_length=100), "batch_tokens": 300}, 300),
        ({"batch_size": 2, "truncation": Truncation(max_length=100), "batch_tokens": 300}, 200),
    ],
)
def test_batches_keep_to_their_bounds_and_the_longest_come_first(tiny_checkpoint, options, most):
    shapes: list[tuple[int, int]] = []

    class Recording(LimitedBackend):
        def start(self, batch):
            shapes.append((len(batch), batch.lengths.max()))
            return super().start(batch)

    scorer = PairScorer(tiny_checkpoint, verbose=False, backend=Recording(), **options)
    scorer.score(QUERIES, TEXTS)
    assert all(rows == 1 or rows * length <= most for rows, length in shapes)
    assert max(rows * length for rows, length in shapes) > 0.8 * most
    assert [length for _, length in shapes] == sorted((length for _, length in shapes), reverse=True)
    assert len(shapes) > 5


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_names_its_pair(tokenizer, value):
    model = tiny_model()
    with torch.no_grad():  # one damaged row: that of the word "dog"
        model.bert_model.embeddings.word_embeddings.weight[tokenizer.convert_tokens_to_ids("dog")] = value
    checkpoint = Checkpoint(model=model, tokenizer=tokenizer, source="in memory")
    scorer = PairScorer(checkpoint, device="cpu", verbose=False)
    with pytest.raises(ScoreError, match=r"the score of pair 2 is nan, .*; query 'what is it', text 'a dog'"):
        scorer.score(["a", "b", "what is it"], ["fox " * 30, "fox", "a dog"])
    assert np.isfinite(scorer.score(["a", "b"], ["fox " * 30, "fox"])).all()


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"batch_size": None},
        {"batch_size": True},
        {"batch_tokens": 0},
        {"batch_tokens": "many"},
    ],
)
def test_numbers_that_can_not_be_are_refused(tiny_checkpoint, options):
    [(name, value)] = options.items()
    with pytest.raises(InputError, match=f"{name} is a whole number of at least 1( or None)?, got {value!r}"):
        PairScorer(tiny_checkpoint, **options)


def test_more_tokens_than_the_model_has_positions_are_refused(tiny_checkpoint):
    with pytest.raises(InputError, match=r"max_length=513 is more than the 512 positions of the model \(in memory\)"):
        PairScorer(tiny_checkpoint, truncation=Truncation(max_length=513))


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"dtype": "half", "device": "cpu"}])
def test_devices_and_precisions_that_can_not_be_are_refused(tiny_checkpoint, options):
    with pytest.raises(InputError):
        PairScorer(tiny_checkpoint, **options)
