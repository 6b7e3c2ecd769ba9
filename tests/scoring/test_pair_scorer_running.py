"""Scoring while it runs: memory that runs out, the bar, Ctrl-C, and threads."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter

import numpy as np
import pyterrier as pt
import pytest
import torch
import tqdm
from helpers.limited_backend import QUERIES, TEXTS, LimitedBackend

from pyterrier_bertcat.errors import PairTooLargeError
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.scoring import pair_scorer as scoring
from pyterrier_bertcat.scoring.backends.torch import TorchBackend
from pyterrier_bertcat.scoring.pair_scorer import PairScorer


@pytest.fixture(scope="module")
def scorer(tiny_checkpoint) -> PairScorer:
    return PairScorer(tiny_checkpoint, device="cpu", verbose=False)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:98] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("limit", [{"tokens": 700}, {"rows": 3}, {"tokens": 400, "rows": 9}])
def test_out_of_memory_halves_the_batches_and_loses_nothing(tiny_checkpoint, limit, error):
    unlimited = LimitedBackend()
    expected = PairScorer(tiny_checkpoint, verbose=False, backend=unlimited).score(QUERIES, TEXTS)

    backend = LimitedBackend(**limit, error=error)
    scorer = PairScorer(tiny_checkpoint, batch_size=64, batch_tokens=4096, verbose=False, backend=backend)
    with pytest.warns(RuntimeWarning, match="did not fit in memory") as caught:
        scores = scorer.score(QUERIES, TEXTS)
    np.testing.assert_array_equal(scores, expected)
    assert Counter(backend.scored) == Counter(unlimited.scored)
    assert backend.refused > 0
    assert len(caught) == 1
    tokens = int(re.search(r"at most batch_tokens=(\d+)$", str(caught[0].message))[1])
    assert tokens in [4096 >> halvings for halvings in range(1, 7)]
    assert caught[0].filename == __file__


def test_the_smaller_budget_is_kept_for_the_next_call(tiny_checkpoint):
    backend = LimitedBackend(tokens=600)
    scorer = PairScorer(tiny_checkpoint, batch_tokens=4096, verbose=False, backend=backend)
    with pytest.warns(RuntimeWarning, match="did not fit"):
        first = scorer.score(QUERIES, TEXTS)
    refused = backend.refused
    np.testing.assert_array_equal(scorer.score(QUERIES, TEXTS), first)  # a warning would be an error here
    assert backend.refused == refused


def test_a_pair_that_does_not_fit_alone_is_named_with_its_length(tiny_checkpoint):
    scorer = PairScorer(tiny_checkpoint, verbose=False, backend=LimitedBackend(tokens=50))
    with pytest.raises(PairTooLargeError, match="pair 2 has 83 tokens and does not fit in memory even alone"):
        scorer.score(["q", "q", "q"], ["a", "b", "fox " * 79])
    assert len(scorer.score(["q", "q"], ["a", "b"])) == 2


def test_other_errors_of_the_backend_are_not_taken_for_lack_of_memory(tiny_checkpoint):
    backend = LimitedBackend(rows=0, error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        PairScorer(tiny_checkpoint, verbose=False, backend=backend).score(QUERIES, TEXTS)
    assert backend.refused == 1


EXHAUST_MEMORY = """
import resource, sys, warnings
import numpy, torch, transformers
torch.set_num_threads(1)
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.errors import PairTooLargeError
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.pairs.truncation import Truncation

torch.manual_seed(0)
encoder = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=65536)
checkpoint = Checkpoint(
    model=BertCatModel(BertCatConfig.from_encoder_config(encoder)).eval(),
    tokenizer=transformers.BertTokenizerFast.from_pretrained(sys.argv[1]),
    source="in memory",
)
texts = ["fox " * (300 + number) for number in range(8)]
options = dict(device="cpu", verbose=False)
expected = PairScorer(checkpoint, batch_size=1, **options).score(["a dog"] * 8, texts)
scorer = PairScorer(checkpoint, batch_tokens=100_000, **options)
scorer.score(["a dog"], texts[:1])

def limit(mebibytes):
    with open("/proc/self/statm") as statm:
        used = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + mebibytes * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))

limit(600)  # a pair takes 80 MiB in the first feed-forward layer, the batch of 8 pairs 640
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    scores = scorer.score(["a dog"] * 8, texts)
    again = scorer.score(["a dog"] * 8, texts)
print(numpy.abs(scores - expected).max() < 5e-5, numpy.array_equal(again, scores), [str(w.message) for w in caught])
limit(20)
try:
    scorer.score(["a cat"], texts[-1:])
except PairTooLargeError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory with Linux's RLIMIT_AS")
def test_memory_that_really_runs_out_is_survived(minilm_folder):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXHAUST_MEMORY, str(minilm_folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scored, too_large = done.stdout.strip().splitlines()
    assert scored.startswith("True True ['a batch did not fit in memory: from now on at most batch_tokens=")
    assert scored.count("did not fit") == 1
    assert "has 312 tokens and does not fit in memory even alone" in too_large


class SlowBackend(LimitedBackend):
    def start(self, batch):
        time.sleep(0.02)
        return super().start(batch)


@pytest.fixture
def bars(monkeypatch) -> list[tqdm.tqdm]:
    """The bars of this test, each of which keeps what it counted, with the total, after every move."""
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    made = []

    class Recorded(tqdm.tqdm):
        def __init__(self, **options):
            self.moves = []
            super().__init__(**options, file=io.StringIO(), miniters=1, mininterval=0)
            made.append(self)

        def update(self, n=1):
            super().update(n)
            self.moves.append((self.n, self.total))

    monkeypatch.setattr(pt, "tqdm", Recorded)
    return made


def test_the_bar_counts_the_pairs_that_are_scored_with_the_rate(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    scorer = PairScorer(tiny_checkpoint, batch_tokens=200, backend=SlowBackend())
    scorer.score([*QUERIES, *QUERIES], [*TEXTS, *TEXTS])
    shown = capsys.readouterr().err
    distinct = len(set(zip(QUERIES, TEXTS, strict=True)))
    assert f"{distinct}/{distinct}" in shown
    assert "pair/s" in shown


@pytest.mark.parametrize("window_pairs", [8192, 200])
def test_the_bar_moves_as_tokens_are_scored_although_the_longest_pairs_come_first(
    tiny_checkpoint, bars, monkeypatch, window_pairs
):
    monkeypatch.setattr(scoring, "_WINDOW_PAIRS", window_pairs)
    texts = ["fox " * 150 + str(number) if number % 10 == 0 else f"fox {number}" for number in range(400)]
    tokens = []

    class Counting(LimitedBackend):
        def start(self, batch):
            tokens.append(int(batch.lengths.sum()))
            return super().start(batch)

    PairScorer(tiny_checkpoint, batch_tokens=320, backend=Counting()).score(["what is a fox"] * 400, texts)
    [bar] = bars
    shown = np.array([n for n, _ in bar.moves])
    assert {total for _, total in bar.moves} == {400}
    assert shown[-1] == 400
    assert (np.diff(shown) >= 0).all()
    np.testing.assert_allclose(shown / 400, np.cumsum(tokens) / np.sum(tokens), atol=0.03)


@pytest.mark.parametrize("window_documents", [512, 1])
def test_with_passages_the_bar_counts_passages(tiny_checkpoint, bars, monkeypatch, window_documents):
    monkeypatch.setattr(scoring, "_WINDOW_DOCUMENTS", window_documents)
    passages = Passages(length=40, stride=20)
    scorer = PairScorer(tiny_checkpoint, passages=passages, batch_tokens=100, backend=LimitedBackend())
    scorer.score(["what is a fox"] * 2, ["fox " * 1000, "dog " * 1000])
    [bar] = bars
    assert bar.unit == "passage"
    assert bar.moves[-1] == (scorer.stats.rows, scorer.stats.rows)
    assert {total for _, total in bar.moves} == {scorer.stats.rows}
    assert max(np.diff([0, *(n for n, _ in bar.moves)])) <= 5  # it never stands still for long


def test_the_bar_is_right_when_batches_are_divided_because_memory_runs_out(tiny_checkpoint, bars):
    scorer = PairScorer(tiny_checkpoint, batch_tokens=4096, backend=LimitedBackend(tokens=400))
    with pytest.warns(RuntimeWarning, match="did not fit"):
        scorer.score(QUERIES, TEXTS)
    assert bars[0].moves[-1] == (scorer.stats.rows, scorer.stats.rows)


def test_the_bar_is_the_one_chosen_in_pyterrier(tiny_checkpoint, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    monkeypatch.setattr(pt, "tqdm", lambda **options: tqdm.tqdm(**options, file=output, postfix="chosen"))
    PairScorer(tiny_checkpoint, backend=SlowBackend()).score(QUERIES, TEXTS)
    assert "chosen" in output.getvalue()


def test_short_calls_show_no_bar(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 600)  # on a machine that stalls, short calls can take seconds
    scorer = PairScorer(tiny_checkpoint, backend=LimitedBackend())
    for _ in range(20):
        scorer.score(QUERIES[:5], TEXTS[:5])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("verbose", "rows"), [(False, 60), (True, 0)])
def test_no_bar_where_none_is_wanted_or_nothing_is_scored(tiny_checkpoint, monkeypatch, capsys, verbose, rows):
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    PairScorer(tiny_checkpoint, verbose=verbose, backend=SlowBackend()).score(QUERIES[:rows], TEXTS[:rows])
    assert capsys.readouterr().err == ""


def test_ctrl_c_leaves_the_scorer_usable(tiny_checkpoint):
    class Interrupted(TorchBackend):
        batches = 0

        def start(self, batch):
            self.batches += 1
            if self.batches == 3:
                signal.raise_signal(signal.SIGINT)
            return super().start(batch)

    backend = Interrupted(tiny_checkpoint.model, device="cpu")
    scorer = PairScorer(tiny_checkpoint, batch_tokens=300, backend=backend)
    with pytest.raises(KeyboardInterrupt):
        scorer.score(QUERIES, TEXTS)
    assert backend.batches == 3
    expected = PairScorer(tiny_checkpoint, batch_tokens=300, device="cpu").score(QUERIES, TEXTS)
    np.testing.assert_array_equal(scorer.score(QUERIES, TEXTS), expected)


def in_threads(work, count: int = 8) -> list[object]:
    """Runs ``work(number)`` in several threads at once; what they gave, or the exception they ended with."""
    results: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_may_share_a_scorer(scorer):
    expected = scorer.score(QUERIES, TEXTS)

    def work(number: int) -> np.ndarray:
        rows = np.roll(np.arange(60), number)
        for _ in range(3):
            scores = scorer.score([QUERIES[row] for row in rows], [TEXTS[row] for row in rows])
        return scores[np.argsort(rows)]

    for scores in in_threads(work):
        np.testing.assert_allclose(scores, expected, atol=5e-5)


def test_threads_that_run_out_of_memory_together_halve_no_further_than_one_alone(tiny_checkpoint):
    def budget_after(threads: int) -> tuple[int, list[object]]:
        backend = SlowBackend(rows=8)
        scorer = PairScorer(tiny_checkpoint, batch_tokens=10**6, verbose=False, backend=backend)
        results = in_threads(lambda number: scorer.score(QUERIES, TEXTS), threads)
        backend.scored.clear()
        before = backend.refused
        scorer.score(QUERIES, TEXTS)
        assert backend.refused == before
        return scorer._batch_tokens, results

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        alone, [expected] = budget_after(1)
        together, results = budget_after(6)
    assert together == alone
    for scores in results:
        np.testing.assert_array_equal(scores, expected)


@pytest.mark.precision
@pytest.mark.usefixtures("half_precision")
def test_two_scorers_of_one_checkpoint_do_not_disturb_each_other(tiny_checkpoint, scorer):
    expected = scorer.score(QUERIES, TEXTS)
    half = PairScorer(tiny_checkpoint, device="cpu", dtype="bfloat16", verbose=False).score(QUERIES, TEXTS)
    assert 0 < np.abs(half - expected).max() < 0.5
    np.testing.assert_array_equal(scorer.score(QUERIES, TEXTS), expected)
    assert {weight.dtype for weight in tiny_checkpoint.model.parameters()} == {torch.float32}
