"""What a run reports of itself: counted by hand, on the scorer and on the re-ranker."""

from __future__ import annotations

import re

import numpy as np
import pyterrier as pt
import pytest
from helpers.frames import frame

from pyterrier_bertcat.cli import main
from pyterrier_bertcat.errors import TruncationWarning
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.scoring.statistics import RunStatistics, truncation_message, warn_of_truncation

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
    with pytest.warns(TruncationWarning, match=r"2 of 3 pairs .* \(queries: 0, texts: 2\): passages=") as caught:
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
    html = short.stats._repr_html_()
    assert re.search(r"<th>pairs</th>\s*<td>2 in \S+ s: \S+ per second</td>", html)
    assert re.search(r"<th>cut</th>\s*<td>none</td>", html)


def test_statistics_read_as_sentences():
    cut = {"truncated_pairs": 15, "truncated_queries": 1, "truncated_texts": 14, "tokens_lost": 2345}
    read = {"distinct_pairs": 980, "rows": 1200, "tokens": 123456, "padding_share": 0.034, "max_length": 128}
    took = {"seconds": 2.0, "tokenising_seconds": 0.25, "scoring_seconds": 1.7, "peak_memory_mb": 1850.2}
    where = {"device": "cpu", "dtype": "float32", "batch_tokens": 2048, "back_offs": 1}
    assert str(RunStatistics(pairs=1500, from_store=500, **cut, **read, **took, **where)).splitlines() == [
        "pairs   1,500 in 2 s: 750 per second, 500 of them from a store",
        "cut     15 pairs (1.0%): 1 query and 14 texts, which lost 2,345 tokens",
        "scored  980 different pairs, read in 1,200 rows with 123,456 tokens in all, each at most 128 long; "
        "3% of what the model read was padding",
        "time    1.7 s in the model, 0.25 s on tokens",
        "device  cpu in float32, in batches of up to 2,048 tokens; 1 batch did not fit in memory",
        "memory  1,850 MB at most so far",
    ]
    assert repr(RunStatistics(pairs=3, from_store=3, seconds=0.01)).splitlines() == [
        "pairs  3 in 0.01 s: 300 per second, 3 of them from a store",
        "cut    none",
    ]


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
    with pytest.warns(TruncationWarning, match=r"\(queries: 1, texts: 0\): shorten the queries"):
        short(frame(["fox"]).assign(query="fox " * 60))
    assert (short.stats.truncated_queries, short.stats.truncated_texts) == (1, 0)


def cut(*, queries: int = 0, texts: int = 0, both: int = 0) -> RunStatistics:
    """Of a thousand pairs, in some only the query was cut, in some only the text, and in some both."""
    statistics = RunStatistics(pairs=1000)
    statistics.count_cut(np.repeat([[True, False, True], [False, True, True]], (queries, texts, both), axis=1))
    return statistics


MORE_OF_QUERIES = "shorten the queries, or keep more of them with max_query_length, max_length or another truncation"


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        (
            cut(queries=20),
            f"20 of 1,000 pairs were too long and were cut (queries: 20, texts: 0): {MORE_OF_QUERIES}",
        ),
        (
            cut(texts=20),
            "20 of 1,000 pairs were too long and were cut (queries: 0, texts: 20): "
            "passages=Passages() scores documents whole",
        ),
        (
            cut(queries=10, texts=20, both=30),
            "60 of 1,000 pairs were too long and were cut (queries: 40, texts: 50): "
            f"passages=Passages() scores documents whole; {MORE_OF_QUERIES}",
        ),
    ],
    ids=["queries", "texts", "both"],
)
def test_the_advice_fits_what_was_cut(statistics, message):
    assert truncation_message(statistics, passages=None) == message


@pytest.mark.parametrize("statistics", [cut(queries=20), cut(texts=20), cut(both=20)])
def test_with_passages_only_the_queries_can_be_at_fault(statistics):
    message = truncation_message(statistics, passages=Passages())
    assert message is not None
    assert message.endswith(f": {MORE_OF_QUERIES}")


def test_text_after_the_first_passage_is_left_out_on_purpose_but_queries_are_not():
    first = Passages(aggregate="first")
    assert truncation_message(cut(texts=900, both=10), passages=first) is None
    message = truncation_message(cut(texts=900, both=11), passages=first)
    assert message == f"11 of 1,000 pairs were too long and were cut (queries: 11, texts: 0): {MORE_OF_QUERIES}"


def test_in_training_the_advice_is_about_training():
    message = truncation_message(cut(texts=20), passages=None, activity="training")
    assert message is not None
    assert "passages=" not in message
    assert "training reads the beginning of each text: keep more of it with max_length (--max-length)" in message
    assert str(truncation_message(cut(queries=20), passages=None, activity="training")).endswith(
        "shorten the queries, or keep more of them with max_length (--max-length)"
    )


def test_on_the_command_line_the_advice_names_options_that_it_has(capsys):
    with pytest.raises(SystemExit):
        main(["rerank", "--help"])
    known = capsys.readouterr().out.split()
    message = str(truncation_message(cut(both=20), passages=None, activity="command"))
    named = [word for word in message.split() if word.startswith("--")]
    assert named == ["--passages", "--max-length", "--truncation"]
    assert set(named) <= set(known)
    assert "max_" not in message


def test_ten_in_a_thousand_may_be_cut_without_a_message():
    assert truncation_message(cut(queries=4, texts=3, both=3), passages=None) is None
    assert truncation_message(cut(queries=4, texts=3, both=4), passages=None) is not None
    assert truncation_message(RunStatistics(), passages=None) is None


@pytest.mark.parametrize(
    "run",
    [
        lambda short, candidates: short(candidates),
        lambda short, candidates: (pt.Transformer.identity() >> short % 2)(candidates),
        lambda short, candidates: pt.Experiment(
            [pt.Transformer.from_df(candidates) >> short],
            candidates[["qid", "query"]].head(1),
            candidates[["qid", "docno"]].assign(label=1),
            ["map"],
        ),
    ],
    ids=["alone", "in a pipeline", "in an experiment"],
)
def test_the_warning_points_to_the_users_line_and_not_into_pyterrier(short, run):
    with pytest.warns(TruncationWarning, match="2 of 3 pairs") as caught:
        run(short, frame([LONG, LONG, "fox"]))
    assert {warning.filename for warning in caught} == {__file__}


def test_the_warning_points_to_the_line_that_asked_for_it():
    with pytest.warns(TruncationWarning, match="20 of 1,000 pairs") as caught:
        warn_of_truncation(cut(texts=20), passages=None, stacklevel=1)
    assert caught[0].filename == __file__
