"""What a run reports of itself: counted by hand, on the scorer and on the re-ranker."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.frames import frame

from pyterrier_bertcat.errors import TruncationWarning
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

LONG = "the quick brown fox " * 30  # 120 tokens


@pytest.fixture
def short(tiny_checkpoint) -> BertCatReRanker:
    return BertCatReRanker(tiny_checkpoint, max_length=50, device="cpu", verbose=False)


def test_everything_is_counted(tiny_checkpoint):
    scorer = PairScorer(tiny_checkpoint, truncation=Truncation(max_length=50), device="cpu", verbose=False)
    assert scorer.stats is None
    scorer.score(["a dog"] * 4, [LONG, "fox", LONG, "lazy fox"])
    stats = scorer.stats
    assert (stats.pairs, stats.distinct_pairs, stats.rows) == (4, 3, 3)
    assert stats.tokens == 50 + 6 + 7
    assert (stats.truncated_pairs, stats.tokens_lost) == (2, 2 * (120 - 45))
    assert stats.truncated_share == 0.5
    assert stats.padding_share == 0
    assert 0 < stats.tokenising_seconds < stats.seconds
    assert 0 < stats.scoring_seconds < stats.seconds
    assert stats.pairs_per_second == pytest.approx(4 / stats.seconds)
    assert (stats.device, stats.dtype, stats.back_offs) == ("cpu", "float32", 0)
    assert stats.peak_memory_mb > 50


def test_padding_counts_where_the_model_takes_its_own_path(tokenizer, minilm_folder):
    from helpers.tiny_models import tiny_model

    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.backends.first_token import has_first_token_path

    model = tiny_model("bert")
    model.bert_model.config.is_decoder = True
    assert not has_first_token_path(model.bert_model)
    scorer = PairScorer(Checkpoint(model=model, tokenizer=tokenizer), device="cpu", verbose=False)
    scorer.score(["a dog"] * 2, ["fox", "the quick brown fox"])
    assert scorer.stats.padding_share == pytest.approx(1 - 15 / 18)


def test_the_reranker_warns_once_of_a_run_that_was_cut_and_says_what_helps(short):
    assert short.stats is None
    with pytest.warns(TruncationWarning, match=r"2 of 3 pairs .* \(0 queries, 2 texts\): passages=") as caught:
        short(frame([LONG, LONG, "fox"]))
    assert sum(warning.category is TruncationWarning for warning in caught) == 1
    assert short.stats.truncated_pairs == 2
    short(frame(["fox"]))  # a warning would be an error here
    assert short.stats.pairs == 1


def test_a_hundredth_may_be_cut_without_a_warning(short):
    short(frame([LONG] + ["fox"] * 99))
    assert short.stats.truncated_share == 0.01


def test_passages_cut_nothing(tiny_checkpoint):
    made = BertCatReRanker(
        tiny_checkpoint, max_length=50, passages=Passages(length=40, stride=20), device="cpu", verbose=False
    )
    made(frame([LONG, "fox"]))
    assert made.stats.truncated_pairs == made.stats.tokens_lost == 0
    assert made.stats.rows == 6


def test_statistics_show_as_a_row_as_text_and_as_html(short):
    short(frame(["fox", "the dog"]))
    table = short.stats.to_dataframe()
    assert table.shape[0] == 1
    assert table["pairs"].tolist() == [2]
    assert np.isclose(table["pairs_per_second"][0], short.stats.pairs_per_second)
    assert "\npadding share: 0" in str(short.stats)
    html = short.stats._repr_html_()
    assert "<th>distinct pairs</th>" in html
    assert "<td>2</td>" in html


def test_scores_from_a_store_still_warn(tiny_checkpoint, tmp_path):
    stored = BertCatReRanker(tiny_checkpoint, max_length=10, store=tmp_path / "store", device="cpu", verbose=False)
    with pytest.warns(TruncationWarning, match="2 of 3 pairs were too long"):
        stored(frame(["fox", "fox " * 50, "dog " * 60]))
    with pytest.warns(TruncationWarning, match="2 of 3 pairs were too long"):
        stored(frame(["fox", "fox " * 50, "dog " * 60]))
    assert (stored.stats.from_store, stored.stats.truncated_pairs) == (3, 2)
    stored(frame(["fox"]))  # of this one nothing was cut
    with pytest.warns(TruncationWarning, match="2 of 3 pairs were too long"):
        stored(frame(["fox", "dog " * 60, "cat " * 50]))


def test_a_warning_fits_the_passages(tiny_checkpoint):
    first = Passages(length=5, stride=5, aggregate="first")
    BertCatReRanker(tiny_checkpoint, passages=first, device="cpu", verbose=False)(frame(["fox " * 50]))
    short = BertCatReRanker(tiny_checkpoint, passages=Passages(), truncation="paper", device="cpu", verbose=False)
    with pytest.warns(TruncationWarning, match=r"\(1 queries, 0 texts\): shorten the queries"):
        short(frame(["fox"]).assign(query="fox " * 60))
    assert (short.stats.truncated_queries, short.stats.truncated_texts) == (1, 0)
