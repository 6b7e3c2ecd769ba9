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
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
import torch
import tqdm
import transformers
from conftest import tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat import scoring
from pyterrier_bertcat.backends.torch import TorchBackend
from pyterrier_bertcat.checkpoints import Checkpoint
from pyterrier_bertcat.errors import InputError, PairTooLargeError, ScoreError
from pyterrier_bertcat.modeling import BertCatModel
from pyterrier_bertcat.pair_batches import PairBatch
from pyterrier_bertcat.scoring import PairScorer
from pyterrier_bertcat.truncation import Truncation

WORDS = "what is a fox dog and over the lazy quick brown jump unbelievably 🔥 café 1,000 of [SEP]".split()  # noqa: SIM905
QUERIES = [" ".join(WORDS[number % 5 : number % 5 + number % 4]) for number in range(60)]
TEXTS = [" ".join(WORDS * (number % 7))[: 1 + 13 * (number % 31)] for number in range(60)]


class LimitedBackend:
    """A device with little memory: it fails above a number of tokens or rows, and records what it scored."""

    device_name, dtype_name, pads = "limited", "float32", True
    default_batch_tokens = 1024
    most_running = 0

    def __init__(self, *, tokens: float = float("inf"), rows: float = float("inf"), error: Exception | None = None):
        self.tokens, self.rows = tokens, rows
        self.error = error or torch.OutOfMemoryError("CUDA out of memory.")
        self.scored: list[tuple[int, ...]] = []
        self.refused = 0

    def peak_memory_mb(self) -> None:
        return None

    def start(self, batch: PairBatch) -> Callable[[], np.ndarray]:
        if len(batch) * batch.lengths.max() > self.tokens or len(batch) > self.rows:
            self.refused += 1
            raise self.error
        ids = [tuple(part.tolist()) for part in np.split(batch.input_ids, batch.starts[1:])]
        self.scored += ids
        scores = [sum((place + 1) * token for place, token in enumerate(row)) / 1e4 for row in ids]
        return lambda: np.array(scores, np.float32)


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
from pyterrier_bertcat.checkpoints import Checkpoint
from pyterrier_bertcat.config import BertCatConfig
from pyterrier_bertcat.errors import PairTooLargeError
from pyterrier_bertcat.modeling import BertCatModel
from pyterrier_bertcat.scoring import PairScorer
from pyterrier_bertcat.truncation import Truncation

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
    assert scored.startswith("True True ['a batch did not fit in memory: going on with at most batch_tokens=")
    assert scored.count("did not fit") == 1
    assert "has 312 tokens and does not fit in memory even alone" in too_large


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
    with pytest.raises(InputError, match=f"{name} is a whole number of at least 1, got {value!r}"):
        PairScorer(tiny_checkpoint, **options)


def test_more_tokens_than_the_model_has_positions_are_refused(tiny_checkpoint):
    with pytest.raises(InputError, match=r"max_length=513 is more than the 512 positions of the model \(in memory\)"):
        PairScorer(tiny_checkpoint, truncation=Truncation(max_length=513))


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"dtype": "half", "device": "cpu"}])
def test_devices_and_precisions_that_can_not_be_are_refused(tiny_checkpoint, options):
    with pytest.raises(InputError):
        PairScorer(tiny_checkpoint, **options)


class SlowBackend(LimitedBackend):
    def start(self, batch):
        time.sleep(0.02)
        return super().start(batch)


def test_the_bar_counts_every_pair_with_the_rate(tiny_checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    scorer = PairScorer(tiny_checkpoint, batch_tokens=200, backend=SlowBackend())
    scorer.score([*QUERIES, *QUERIES], [*TEXTS, *TEXTS])
    shown = capsys.readouterr().err
    assert "120/120" in shown
    assert "pair/s" in shown


def test_the_bar_is_the_one_chosen_in_pyterrier(tiny_checkpoint, monkeypatch):
    output = io.StringIO()
    monkeypatch.setattr(scoring, "_BAR_DELAY_S", 0)
    monkeypatch.setattr(pt, "tqdm", lambda **options: tqdm.tqdm(**options, file=output, postfix="chosen"))
    PairScorer(tiny_checkpoint, backend=SlowBackend()).score(QUERIES, TEXTS)
    assert "chosen" in output.getvalue()


def test_short_calls_show_no_bar(tiny_checkpoint, capsys):
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


def test_two_scorers_of_one_checkpoint_do_not_disturb_each_other(tiny_checkpoint, scorer):
    expected = scorer.score(QUERIES, TEXTS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where the machine has no bfloat16
        half = PairScorer(tiny_checkpoint, device="cpu", dtype="bfloat16", verbose=False).score(QUERIES, TEXTS)
    assert 0 < np.abs(half - expected).max() < 0.5
    np.testing.assert_array_equal(scorer.score(QUERIES, TEXTS), expected)
    assert {weight.dtype for weight in tiny_checkpoint.model.parameters()} == {torch.float32}
