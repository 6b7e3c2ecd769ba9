"""One re-ranker used by many at once: threads, forked and spawned processes, people who interrupt."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.waiting import HANGS_S

from pyterrier_bertcat import BertCatReRanker, Passages, ScoreStore

WORDS = ["what", "is", "the", "quick", "brown", "fox", "doing", "over", "a", "lazy", "dog", "in", "library", "two"]
THREADS = 8
HERE = [str(folder) for folder in Path(__file__).parents[:2]]  # for processes that import this file
ATOL = 5e-5


def frame(seed, rows=40):
    numbers = np.random.default_rng(seed)
    texts = [" ".join(numbers.choice(WORDS, numbers.integers(1, 60))) for _ in range(rows)]
    docnos = [f"d{number}" for number in range(rows)]
    return pd.DataFrame({"qid": f"q{seed}", "query": f"fox {seed}", "docno": docnos, "text": texts})


def scores(result):
    return result.sort_values("docno")["score"].to_numpy()


@pytest.fixture(scope="module")
def expected(saved_folder):
    reranker = made(saved_folder)
    return [scores(reranker(frame(seed))) for seed in range(THREADS)]


def made(folder, **options):
    device = None if "devices" in options else "cpu"
    return BertCatReRanker(str(folder), device=device, verbose=False, **options)


@pytest.mark.parametrize("options", [{}, {"passages": Passages(length=400)}, {"store": True}, {"batch_size": 3}])
def test_eight_threads_may_share_one_that_was_not_loaded(options, folder, expected, tmp_path):
    if "store" in options:
        options = {"store": ScoreStore(tmp_path / "store")}
    reranker = made(folder, **options)
    together = threading.Barrier(THREADS)

    def work(thread):
        together.wait()
        return [(seed, scores(reranker(frame(seed)))) for seed in np.random.default_rng(thread).permutation(THREADS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(work, range(THREADS)):
            for seed, some in found:
                np.testing.assert_allclose(some, expected[seed], atol=ATOL)
    if options.get("store"):
        assert len(options["store"]) == sum(len(frame(seed).drop_duplicates("text")) for seed in range(THREADS))


def test_threads_get_the_error_of_their_own_frame(folder, expected):
    reranker = made(folder)

    def work(seed):
        mine = frame(seed)
        if seed % 2:
            mine.loc[3, "text"] = None
        try:
            return scores(reranker(mine))
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(work, range(THREADS)))
    for seed, one in enumerate(found):
        if seed % 2:
            assert f"docno 'd3' of qid 'q{seed}'" in one
        else:
            np.testing.assert_allclose(one, expected[seed], atol=ATOL)


def forked_or_spawned(start, folder, store):
    """Scores in three new processes and in this one, without a store and with one; prints what they gave as JSON."""
    torch.set_num_threads(2)
    rerankers = [made(folder), made(folder, store=store)]
    own = scores_of_each(rerankers, 0)  # loaded, its threads started
    context = multiprocessing.get_context(start)
    pipes = [context.Pipe() for _ in range(3)]
    children = [
        context.Process(target=give, args=(rerankers, seed, connection)) for seed, (_, connection) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    while not all(pipe.poll(0.1) or not child.is_alive() for (pipe, _), child in zip(pipes, children, strict=True)):
        pass
    found = [pipe.recv() if pipe.poll() else "nothing" for pipe, _ in pipes]
    for child in children:
        child.join()
    sys.stdout.write(json.dumps([[*found, own], [child.exitcode for child in children]]))


def give(rerankers, seed, connection):
    connection.send(scores_of_each(rerankers, seed))


def scores_of_each(rerankers, seed):
    return [scores(reranker(frame(seed))).tolist() for reranker in rerankers]


def run(function, *arguments):
    """Calls a function of this file in a process of its own; gives the last line that it printed."""
    code = f"import sys; sys.path[:0] = {HERE!r}; import test_concurrency as test; "
    code += f"test.{function}(*sys.argv[1:])"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_may_be_forked_or_spawned_from_one_that_has_scored(start, folder, expected, tmp_path):
    if start == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    found, exit_codes = run("forked_or_spawned", start, folder, tmp_path / "store")
    assert exit_codes == [0, 0, 0]
    for seed, (plain, stored) in enumerate(found):
        np.testing.assert_allclose(plain, expected[seed % 3], atol=ATOL)
        np.testing.assert_allclose(stored, expected[seed % 3], atol=ATOL)


def interrupt_often(folder, *stores_and_devices):
    """For each pair of a store and devices, counts how often `interrupts` has interrupted."""
    pairs = zip(stores_and_devices[::2], stores_and_devices[1::2], strict=True)
    sys.stdout.write(json.dumps([interrupts(folder, store, devices) for store, devices in pairs]))


def interrupts(folder, store, devices):
    """Interrupts a re-ranker at a dozen random moments; after each, it has to score right."""
    options = {name: value for name, value in {"store": store, "devices": devices.split()}.items() if value}
    large, small = frame(100, rows=400), frame(0)
    right = {size: scores(made(folder)(one)) for size, one in (("large", large), ("small", small))}
    reranker = made(folder, batch_size=4, **options)
    reranker(small)
    start = time.perf_counter()
    made(folder, batch_size=4)(large)
    whole = time.perf_counter() - start
    interrupted = 0
    for delay in np.random.default_rng(0).uniform(0, whole, 12):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        try:
            timer.start()
            found = scores(reranker(large))
            timer.join()  # it was faster: the interrupt comes now
            time.sleep(0.01)
        except KeyboardInterrupt:
            interrupted += 1
        else:  # Python drops what comes while it collects garbage
            np.testing.assert_allclose(found, right["large"], atol=ATOL)
        timer.join()
        np.testing.assert_allclose(scores(reranker(small)), right["small"], atol=ATOL)
    np.testing.assert_allclose(scores(reranker(large)), right["large"], atol=ATOL)
    return interrupted


def test_interrupted_at_any_moment_it_scores_right_the_next_time(folder, tmp_path):
    # In a process of its own: hooks of pytest and hypothesis take an interrupt in them for an error.
    assert min(run("interrupt_often", folder, "", "", tmp_path / "store", "", "", "cpu cpu")) > 0
