"""Worker processes: the same scores as one device's, whatever dies, and nothing left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_model
from helpers.waiting import HANGS_S

from pyterrier_bertcat.errors import InputError, WorkerError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.scoring.backends import workers
from pyterrier_bertcat.scoring.backends.workers import WorkersBackend
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "that", "asks", "what", "it", "is"]
PAIRS = 300
TWO_CPUS = ["cpu", "cpu"]

resource = pytest.importorskip("resource", reason="limits processes' memory with it")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


@pytest.fixture(autouse=True)
def _nothing_hangs():
    def hangs(*_: object) -> None:
        raise TimeoutError("a test of workers hangs")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(int(HANGS_S))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pairs(seed: int) -> tuple[list[str], list[str]]:
    """Texts of very different lengths, some of them several times."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(0, 60))) for _ in range(PAIRS // 2)]
    return random.choice(["a dog", "what is it", ""], PAIRS).tolist(), random.choice(texts, PAIRS).tolist()


def scorer_of(checkpoint: Checkpoint, backend: WorkersBackend | None, **options: int) -> PairScorer:
    return PairScorer(
        checkpoint, backend=backend or "torch", device="cpu", verbose=False, **{"batch_tokens": 256, **options}
    )


@pytest.fixture(scope="module")
def two(tiny_checkpoint):
    """For the tests that leave the workers as they found them, and for the one after them that kills both."""
    backend = WorkersBackend(tiny_checkpoint.model, devices=TWO_CPUS)
    yield backend
    backend.close()


@pytest.mark.parametrize("batch_tokens", [1, 100, 512, 100_000])
def test_scores_are_those_of_one_device_row_by_row(tiny_checkpoint, two, batch_tokens):
    queries, texts = pairs(batch_tokens)
    expected = scorer_of(tiny_checkpoint, None).score(queries, texts)
    assert len(np.unique(expected.round(4))) > PAIRS / 5
    scores = scorer_of(tiny_checkpoint, two, batch_tokens=batch_tokens).score(queries, texts)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=5e-5)


def test_both_workers_work_and_are_named_in_the_statistics(tiny_checkpoint, two):
    before = [processor_seconds(pid) for pid in two.process_ids]
    scorer = scorer_of(tiny_checkpoint, two, batch_tokens=2048)
    while not all(processor_seconds(pid) > start for pid, start in zip(two.process_ids, before, strict=True)):
        scorer.score(*pairs(1))  # the guard ends this where one of them is never given anything
    assert (scorer.stats.device, scorer.stats.dtype) == ("cpu, cpu", "float32")
    assert scorer.stats.peak_memory_mb > 50


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_threads_may_share_them(tiny_checkpoint, two):
    inputs = [pairs(seed) for seed in range(6)]
    alone, shared = scorer_of(tiny_checkpoint, None), scorer_of(tiny_checkpoint, two)
    with ThreadPoolExecutor(3) as pool:
        for scores, pair in zip(pool.map(lambda pair: shared.score(*pair), inputs), inputs, strict=True):
            np.testing.assert_allclose(scores, alone.score(*pair), atol=5e-5)


def test_after_an_interrupt_they_score_on_and_nothing_old_is_taken_for_new(tiny_checkpoint, two):
    scorer, workers = scorer_of(tiny_checkpoint, two), two.process_ids
    with pytest.raises(KeyboardInterrupt):
        scorer.score_in_detail(*pairs(1), finished=lambda *_: signal.raise_signal(signal.SIGINT))
    expected = scorer_of(tiny_checkpoint, None).score(*pairs(2))
    np.testing.assert_allclose(scorer.score(*pairs(2)), expected, atol=5e-5)
    assert two.process_ids == workers


def test_a_batch_that_does_not_fit_into_a_worker_is_halved(tiny_checkpoint, two):
    queries, texts = ["a dog"] * 2000, [f"{number} " + "fox " * 120 for number in range(2000)]
    expected = scorer_of(tiny_checkpoint, None).score(queries, texts)
    scorer_of(tiny_checkpoint, two).score(*pairs(1))  # what oneDNN has to make first doesn't count
    scorer = scorer_of(tiny_checkpoint, two, batch_tokens=1_000_000, batch_size=2000)
    unlimited = resource.prlimit(os.getpid(), resource.RLIMIT_AS)
    for pid in two.process_ids:
        in_use = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (in_use + 3 * 2**26, unlimited[1]))
    try:
        with pytest.warns(RuntimeWarning, match="did not fit in memory"):
            scores = scorer.score(queries, texts)
    finally:
        for pid in two.process_ids:
            resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    np.testing.assert_allclose(scores, expected, atol=5e-5)
    assert scorer.stats.back_offs > 0
    assert len(two.process_ids) == 2


def test_what_a_killed_worker_had_is_scored_by_the_other_and_without_any_left_there_is_one_error(tiny_checkpoint, two):
    scorer, (first, second) = scorer_of(tiny_checkpoint, two), two.process_ids
    expected = scorer_of(tiny_checkpoint, None).score(*pairs(1))
    os.kill(second, signal.SIGSTOP)  # so that what it is given stays with it
    done = 0

    def kill_the_second(rows: np.ndarray, *_: np.ndarray) -> None:
        nonlocal done
        if not done:
            os.kill(second, signal.SIGKILL)
        done += len(rows)

    killed = rf"^the worker on cpu \(process {second}\) was killed by SIGKILL \(exit code -9.*: its batches are scored"
    with pytest.warns(RuntimeWarning, match=killed) as caught:
        scored = scorer.score_in_detail(*pairs(1), finished=kill_the_second)
    assert len(caught) == 1
    np.testing.assert_allclose(scored.scores, expected, atol=5e-5)
    assert two.process_ids == [first]
    np.testing.assert_allclose(scorer.score(*pairs(1)), expected, atol=5e-5)  # a warning would be an error here

    os.kill(first, signal.SIGSTOP)
    killer = threading.Timer(0.5, os.kill, (first, signal.SIGKILL))
    killer.start()
    ends = rf"^no worker is left: .*process {second}\) was killed.*; .*process {first}\) was killed .*exit code -9"
    with pytest.raises(WorkerError, match=ends):
        scorer.score(*pairs(1))
    killer.join()


def test_new_workers_come_when_none_is_left_and_when_the_weights_change_and_end_with_the_backend(tokenizer):
    model = tiny_model()
    backend = WorkersBackend(model, devices=["cpu"])
    scorer = scorer_of(Checkpoint(model=model, tokenizer=tokenizer), backend)
    before, (first,) = scorer.score(*pairs(1)), backend.process_ids
    with torch.no_grad():
        model._classification_layer.bias += 1
    np.testing.assert_allclose(scorer.score(*pairs(1)), before + 1, atol=5e-5)
    (second,) = backend.process_ids
    os.kill(second, signal.SIGKILL)
    with pytest.raises(WorkerError, match="exit code -9"):
        scorer.score(*pairs(1))
    np.testing.assert_allclose(scorer.score(*pairs(1)), before + 1, atol=5e-5)
    (third,) = backend.process_ids
    del backend, scorer
    gc.collect()  # the traceback of the error above held them too
    wait_for_the_end_of(first, second, third)


class HangsOnce(BertCatModel):
    """Of all processes that have a copy of it, the first one to use it hangs."""

    mark: str

    def relevance(self, first_token: torch.Tensor) -> torch.Tensor:
        try:
            Path(self.mark).touch(exist_ok=False)
        except FileExistsError:
            return super().relevance(first_token)
        threading.Event().wait()


@pytest.fixture
def hanging(tokenizer, tmp_path) -> Checkpoint:
    model = tiny_model()
    model.__class__, model.mark = HangsOnce, str(tmp_path / "hangs")
    return Checkpoint(model=model, tokenizer=tokenizer)


@pytest.fixture
def patience(monkeypatch):
    """Sets after how many silent seconds a worker is taken for dead, whatever it has to score."""

    def set_to(seconds: float) -> None:
        monkeypatch.setattr(workers, "_PATIENCE_S", seconds)
        monkeypatch.setattr(workers, "_PATIENCE_S_PER_TOKEN", 0.0)

    return set_to


SILENT = r"the worker on cpu \(process \d+\) said nothing for \d+ s \(stopped, or hanging\) and was killed"


@pytest.mark.parametrize("what", ["stopped", "hanging"])
def test_what_a_silent_worker_had_is_scored_by_the_other(what, tiny_checkpoint, hanging, patience):
    backend = WorkersBackend((hanging if what == "hanging" else tiny_checkpoint).model, devices=TWO_CPUS)
    before = backend.process_ids
    if what == "stopped":
        os.kill(before[0], signal.SIGSTOP)
    patience(4.0)  # of an honest worker, no batch takes a hundredth of it
    with pytest.warns(RuntimeWarning, match=f"^{SILENT}: its batches are scored by the others") as caught:
        scores = scorer_of(tiny_checkpoint, backend).score(*pairs(1))
    assert len(caught) == 1
    np.testing.assert_allclose(scores, scorer_of(tiny_checkpoint, None).score(*pairs(1)), atol=5e-5)
    (alive,) = backend.process_ids
    wait_for_the_end_of(*set(before) - {alive})


def test_when_the_only_worker_hangs_that_is_an_error_and_the_next_batch_starts_another(
    tiny_checkpoint, hanging, patience, monkeypatch
):
    backend = WorkersBackend(hanging.model, devices=["cpu"])
    scorer, (first,) = scorer_of(hanging, backend), backend.process_ids
    patience(0.2)
    with pytest.raises(WorkerError, match=f"^no worker is left: {SILENT}$"):
        scorer.score(*pairs(1))
    wait_for_the_end_of(first)
    monkeypatch.undo()
    expected = scorer_of(tiny_checkpoint, None).score(*pairs(1))
    np.testing.assert_allclose(scorer.score(*pairs(1)), expected, atol=5e-5)


def test_a_worker_that_says_nothing_while_it_starts_is_an_error(patience):
    patience(0.0)
    with pytest.raises(WorkerError, match=f"^can't start the workers: {SILENT}$"):
        WorkersBackend(tiny_model(), devices=TWO_CPUS)


def test_a_stopped_worker_does_not_keep_a_process_from_ending(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from pyterrier_bertcat import load_checkpoint\n"
        "from pyterrier_bertcat.scoring.backends.workers import WorkersBackend\n"
        "backend = WorkersBackend(load_checkpoint('mini').model, devices=['cpu'])\n"
        "os.kill(*backend.process_ids, signal.SIGSTOP)\n"
        "print(*backend.process_ids)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=HANGS_S)
    assert (ended.returncode, ended.stderr) == (0, "")
    wait_for_the_end_of(int(ended.stdout))


def test_a_worker_that_can_not_start_says_why():
    cause = r"^can't start the workers: the worker on cpu \(process \d+\) failed: .*InputError: dtype is one .*'half'"
    with pytest.raises(WorkerError, match=cause):
        WorkersBackend(tiny_model(), devices=["cpu"], dtype="half")


def test_a_device_that_is_not_here_is_refused_before_anything_is_started():
    with pytest.raises(InputError, match="cuda:77"):
        WorkersBackend(tiny_model(), devices=["cpu", "cuda:77"])


# No `if __name__ == "__main__"`, as scripts often have none.
SCRIPT = """
import multiprocessing, os
import pandas as pd
from pyterrier_bertcat import BertCatReRanker

docnos = [str(number) for number in range(60)]
frame = pd.DataFrame({"qid": "1", "query": "a fox", "docno": docnos, "text": [f"{number} foxes" for number in docnos]})
bertcat = BertCatReRanker("mini", devices=["cpu", "cpu"], batch_tokens=64, verbose=False)
expected = BertCatReRanker("mini", device="cpu", verbose=False)(frame)

def score_forever():
    pd.testing.assert_frame_equal(bertcat(frame), expected, atol=5e-5)
    workers = (child.pid for child in multiprocessing.active_children() if child is not fork)
    print(os.getpid(), *workers, flush=True)
    while True: bertcat(frame)

bertcat.load()
fork = multiprocessing.get_context("fork").Process(target=score_forever)
fork.start()
fork.join()
try:
    score_forever()
except KeyboardInterrupt:
    pass
score_forever()
"""


@pytest.fixture
def running(tmp_path):
    """The script, in a session of its own, as in a terminal of its own."""
    file = tmp_path / "script.py"
    file.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as started:
        yield started
        if started.returncode is None:  # a test failed
            os.killpg(started.pid, signal.SIGKILL)


def test_a_fork_has_its_own_and_ctrl_c_stops_all_and_whatever_ends_a_process_ends_its_workers(running):
    fork, *workers_of_fork = process_ids(running)
    os.kill(fork, signal.SIGKILL)
    wait_for_the_end_of(*workers_of_fork)
    parent, *workers = process_ids(running)
    assert parent == running.pid
    assert len(workers) == len(workers_of_fork) == 2
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to everything that runs in it
    assert process_ids(running) == [parent, *workers]
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate()
    assert running.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1  # none of the workers has anything to say
    wait_for_the_end_of(*workers)


def process_ids(running: subprocess.Popen[str]) -> list[int]:
    line = running.stdout.readline()
    assert line, running.stderr.read()
    return [int(number) for number in line.split()]


def wait_for_the_end_of(*process_ids: int) -> None:
    while any(is_alive(pid) for pid in process_ids):
        time.sleep(0.05)  # the guard ends this


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
