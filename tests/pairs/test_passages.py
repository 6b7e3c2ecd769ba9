"""Long documents: every token is read, short ones are scored as ever, and the best passage is the one shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

WORDS = "what is a fox dog and over the lazy quick brown jump unbelievably 🔥 café 1,000 of".split()  # noqa: SIM905
LENGTHS = [0, 1, 5, 12, 13, 24, 25, 40, 99]
TEXTS = [" ".join(WORDS[(3 * place + length) % len(WORDS)] for place in range(length)) for length in LENGTHS]
QUERIES = ["what is a dog" if number % 2 else "fox" for number in range(len(TEXTS))]

some_passages = st.integers(1, 60).flatmap(
    lambda length: st.builds(Passages, length=st.just(length), stride=st.integers(1, length))
)


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 400)), max_size=5),
    some_passages,
    st.integers(4, 100),
    st.sampled_from(["longest_first", "only_text"]),
)
def test_windows_cover_every_token_and_fit(lengths, passages, max_length, strategy):
    truncation = Truncation(max_length=max_length, strategy=strategy)
    queries, texts = np.array(lengths, dtype=np.int64).reshape(-1, 2).T
    windows = passages.windows(queries, texts, truncation, special=3)
    assert (windows.kept.sum(axis=0) + 3 <= max_length).all()
    for pair, (query, text) in enumerate(lengths):
        of_pair = windows.pairs == pair
        starts, sizes = windows.starts[of_pair], windows.kept[1, of_pair]
        assert of_pair.any()
        if not sizes.any():
            assert text == 0 or strategy == "only_text" or max_length == 4  # the query takes all the room
            continue
        read = np.zeros(text, dtype=bool)
        for start, size in zip(starts, sizes, strict=True):
            assert start + size <= text
            read[start : start + size] = True
        assert read.all()
        assert (sizes == sizes[0]).all()  # the last one has as much context as the others
        if query + text + 3 <= max_length and text <= passages.length:
            assert (starts.tolist(), sizes.tolist()) == ([0], [text])
            assert windows.kept[0, of_pair].tolist() == [query]


def by_hand(tiny_checkpoint, tokenizer, query: str, text: str, passages: Passages) -> list[float]:
    """The score of each passage, cut as words of the tokenizer and scored one at a time."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    starts = list(range(0, max(len(ids) - passages.length, 0) + passages.stride, passages.stride))
    starts = sorted({min(start, max(len(ids) - passages.length, 0)) for start in starts})
    scores = []
    for start in starts:
        part = ids[start : start + passages.length]
        query_ids = tokenizer(query, add_special_tokens=False)["input_ids"]
        separators = [tokenizer.sep_token_id]
        pair = [tokenizer.cls_token_id, *query_ids, *separators, *part, *(separators if ids else [])]
        with torch.no_grad():
            pair_ids = torch.tensor([pair])
            scores.append(float(tiny_checkpoint.model(pair_ids, torch.ones_like(pair_ids))))
    return scores


AGGREGATED = {
    "max": max,
    "first": lambda scores: scores[0],
    "mean": np.mean,
    "sum": np.sum,
    "kmax": lambda scores: np.mean(sorted(scores)[-2:]),
}


@pytest.mark.parametrize("aggregate", AGGREGATED)
def test_a_document_has_the_aggregate_of_its_passages_scores(tiny_checkpoint, tokenizer, aggregate):
    passages = Passages(length=12, stride=7, aggregate=aggregate, k=2 if aggregate == "kmax" else None)
    scorer = PairScorer(tiny_checkpoint, device="cpu", passages=passages, verbose=False)
    scored = scorer.score_in_detail(QUERIES, TEXTS)
    parts = [by_hand(tiny_checkpoint, tokenizer, q, t, passages) for q, t in zip(QUERIES, TEXTS, strict=True)]
    expected = [AGGREGATED[aggregate](part) for part in parts]
    np.testing.assert_allclose(scored.scores, expected, atol=5e-5)
    counts = [1 if aggregate == "first" else len(part) for part in parts]
    assert scored.passages.tolist() == counts
    assert max(counts) > 3 or aggregate == "first"
    assert scored.cut.any() == (aggregate == "first")


def test_a_document_that_fits_is_scored_as_without(tiny_checkpoint):
    whole = PairScorer(tiny_checkpoint, device="cpu", verbose=False).score(QUERIES, TEXTS)
    passages = Passages(length=200, stride=50)
    scores = PairScorer(tiny_checkpoint, device="cpu", passages=passages, verbose=False).score(QUERIES, TEXTS)
    np.testing.assert_allclose(scores, whole, atol=1e-6)


def test_the_best_passage_is_named_by_its_characters(tiny_checkpoint, tokenizer):
    passages = Passages(length=12, stride=6)
    scorer = PairScorer(tiny_checkpoint, device="cpu", passages=passages, verbose=False)
    scored = scorer.score_in_detail(QUERIES, TEXTS)
    starts, ends = scorer.character_ranges(TEXTS, scored.best_passages)
    whole = PairScorer(tiny_checkpoint, device="cpu", verbose=False)
    for row, text in enumerate(TEXTS):
        passage = text[starts[row] : ends[row]]
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        first, end = scored.best_passages[:, row]
        tokens = tokenizer.convert_ids_to_tokens(ids)
        if not any(token.startswith("##") for token in (*tokens[first : first + 1], *tokens[end : end + 1])):
            again = whole.score([QUERIES[row]], [passage])
            np.testing.assert_allclose(again, scored.scores[row], atol=5e-5)


@settings(max_examples=25)
@given(st.text(max_size=80), st.integers(1, 9), st.data())
def test_character_ranges_hold_the_tokens(tokenizer, text, length, data):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = data.draw(st.integers(0, len(ids)))
    end = min(first + length, len(ids))
    [start], [stop] = PairTokenizer(tokenizer).character_ranges([text], np.array([[first], [end]]))
    assert 0 <= start <= stop <= len(text)
    if (first, end) == (0, len(ids)) and ids:
        assert tokenizer(text[start:stop], add_special_tokens=False)["input_ids"] == ids


def test_the_order_and_the_company_of_documents_do_not_matter(tiny_checkpoint, monkeypatch):
    passages = Passages(length=12, stride=7, aggregate="mean")
    options = {"device": "cpu", "passages": passages, "verbose": False}
    expected = PairScorer(tiny_checkpoint, **options).score(QUERIES, TEXTS)
    monkeypatch.setattr("pyterrier_bertcat.scoring.pair_scorer._WINDOW_DOCUMENTS", 2)
    scorer = PairScorer(tiny_checkpoint, batch_tokens=60, **options)
    order = [3, 8, 1, 1, 0, 7, 2, 6, 5, 4, 8]
    scores = scorer.score([QUERIES[row] for row in order], [TEXTS[row] for row in order])
    np.testing.assert_allclose(scores, expected[order], atol=5e-5)
    assert scorer.stats.distinct_pairs == 9
    assert scorer.stats.rows > 20


@pytest.mark.parametrize(
    "options",
    [
        {"length": 0},
        {"stride": 0},
        {"length": 10, "stride": 11},
        {"aggregate": "min"},
        {"aggregate": "kmax"},
        {"k": 3},
        {"aggregate": "kmax", "k": 0},
        {"length": 2.0},
    ],
)
def test_what_can_not_be_is_refused(options):
    with pytest.raises(InputError):
        Passages(**options)


def test_truncation_and_passages_go_together(tiny_checkpoint, tokenizer):
    truncation = Truncation(strategy="paper")
    scorer = PairScorer(
        tiny_checkpoint, truncation=truncation, passages=Passages(length=512, stride=512), device="cpu", verbose=False
    )
    scored = scorer.score_in_detail(["a dog"], ["the quick brown fox " * 150])
    assert scored.passages.tolist() == [3]
    assert scored.lost.tolist() == [[0], [0]]
