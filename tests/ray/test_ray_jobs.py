"""Jobs and frames on a real local Ray cluster of two workers, some of which are killed."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pyterrier as pt
import pytest
from helpers.waiting import wait_until

from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.ray import RayReRanker, read_ranked, rerank
from pyterrier_bertcat.ray import job as job_module
from pyterrier_bertcat.ray import transformer as transformer_module
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.devices import NO_HALF
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

ROWS, SHARD_ROWS = 480, 12
SHARDS = ROWS // SHARD_ROWS


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two CPUs without half precision, in processes of their own; gives its address."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(NO_HALF, "1")
        context = ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False)
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def checkpoint_folder(tiny_checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return BertCatReRanker(tiny_checkpoint).save_pretrained(folder)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    words = np.random.default_rng(0).choice(["quick", "brown", "fox", "over", "lazy", "dog"], size=(ROWS, 120))
    numbers = range(ROWS)
    return pd.DataFrame(
        {
            "qid": [f"q{n // 40}" for n in numbers],
            "query": [f"what is fox {n // 40}" for n in numbers],
            "docno": [f"d{n}" for n in numbers],
            "text": [" ".join(row) for row in words],
            "bm25": np.linspace(9, 1, ROWS),
        }
    )


@pytest.fixture(scope="module")
def pairs(frame, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    frame.iloc[:252].to_parquet(folder / "a.parquet", row_group_size=156)
    frame.iloc[252:].to_parquet(folder / "b.parquet")
    return folder


@pytest.fixture(scope="module")
def expected(frame, tiny_checkpoint) -> np.ndarray:
    return PairScorer(tiny_checkpoint, device="cpu", verbose=False).score(frame["query"], frame["text"])


def parts(output: Path) -> list[Path]:
    return sorted(output.glob("part-*.parquet"))


def when_parts_exist(count: int, output: Path) -> int:
    """Waits until a job has written some parts; how many there are."""
    assert count <= SHARDS, "the job has gone too far"
    return wait_until(lambda: len(parts(output)) >= count and len(parts(output)), f"part {count} in {output}")


def actor_processes(kind: str = "MapWorker") -> list[psutil.Process]:
    """The running processes of a job's, or a transformer's, actors on this test's cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended; then its command line can also be empty
            if any(word.startswith(f"ray::{kind}") for word in process.cmdline()[:1]):
                found.append(process)
    return found


def assert_every_row_once(output: Path, frame: pd.DataFrame, expected: np.ndarray) -> None:
    written = pd.concat(map(pd.read_parquet, parts(output)), ignore_index=True)
    assert written.columns.tolist() == ["qid", "docno", "bm25", "score"]
    pd.testing.assert_frame_equal(written[["qid", "docno", "bm25"]], frame[["qid", "docno", "bm25"]])
    np.testing.assert_allclose(written["score"], expected, atol=5e-5)
    assert written["score"].dtype == np.float32


@pytest.fixture(scope="module")
def finished(cluster, pairs, checkpoint_folder, tmp_path_factory) -> tuple[Path, dict]:
    """The output of a job of which two actors were killed, one after the other, and the job's options."""
    output = tmp_path_factory.mktemp("job") / "scores"
    options = {"model": checkpoint_folder, "shard_rows": SHARD_ROWS, "keep": ["bm25"], "verbose": False}
    parts_before, killed = [], set()

    def kill_one_and_then_another() -> None:
        when_parts_exist(3, output)
        while len(parts_before) < 2:
            victim = wait_until(lambda: set(actor_processes()) - killed, "actor").pop()
            parts_before.append(when_parts_exist(len(parts(output)) + 2, output))
            victim.kill()
            killed.add(victim)

    killer = threading.Thread(target=kill_one_and_then_another, daemon=True)
    killer.start()
    job = rerank(pairs, output, **options)
    killer.join()
    assert len(parts_before) == 2
    assert max(parts_before) < SHARDS
    assert (job.rows, job.scored_rows, job.truncated_pairs) == (ROWS, ROWS, 0)
    return output, options


def test_actors_killed_during_the_job_cost_no_row_and_give_none_twice(finished, frame, expected):
    assert_every_row_once(finished[0], frame, expected)


def test_a_finished_job_scores_nothing_again(finished, pairs):
    output, options = finished
    before = [(part, part.stat().st_mtime_ns) for part in parts(output)]
    job = rerank(pairs, output, **options)
    assert (job.rows, job.scored_rows) == (ROWS, 0)
    assert [(part, part.stat().st_mtime_ns) for part in parts(output)] == before


def test_its_scores_read_as_a_run_are_what_the_re_ranker_gives(finished, frame, tiny_checkpoint):
    output, _ = finished
    expected = BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)(frame).drop(columns=["query", "text"])
    pd.testing.assert_frame_equal(read_ranked(output), expected, atol=5e-5)


def test_other_settings_in_the_same_folder_are_refused(finished, pairs):
    output, options = finished
    with pytest.raises(InputError, match=r"another job or an earlier release \(checkpoint was [0-9a-f]{64}, is"):
        rerank(pairs, output, **{**options, "model": "mini"})
    with pytest.raises(InputError, match=r"\(truncation was {'max_length': 512, .* is {'max_length': 60, .*that job"):
        rerank(pairs, output, **options, max_length=60)


def test_what_changes_only_the_time_may_change_when_a_job_is_resumed(finished, pairs):
    output, options = finished
    for other in ({"device": "cpu", "batch_size": 2}, {"devices": ["cpu", "cpu"], "num_cpus": 2}, {"dtype": "float32"}):
        assert rerank(pairs, output, **options, **other).scored_rows == 0


@pytest.mark.precision
@pytest.mark.usefixtures("half_precision")
def test_the_precision_of_a_job_is_that_of_the_actors_machines_and_is_kept(
    cluster, frame, expected, checkpoint_folder, tmp_path
):
    frame.iloc[:24].to_parquet(tmp_path / "pairs.parquet")
    options = {"model": checkpoint_folder, "keep": ["bm25"], "verbose": False, "device": "cpu"}
    reranker = BertCatReRanker(checkpoint_folder, device="cpu", dtype="bfloat16")
    assert ScoringOptions.of(reranker).precision == "bfloat16"  # here, where the call is made
    assert rerank(tmp_path / "pairs.parquet", tmp_path / "scores", **options, dtype="bfloat16").scored_rows == 24
    assert_every_row_once(tmp_path / "scores", frame.iloc[:24], expected[:24])
    settings = json.loads((tmp_path / "scores" / "_job.json").read_text())["settings"]
    assert settings["dtype"] == "float32"
    assert not settings.keys() & {"device", "devices", "batch_size", "batch_tokens"}
    assert rerank(tmp_path / "pairs.parquet", tmp_path / "scores", **options, dtype="auto").scored_rows == 0


def test_a_job_begun_in_another_precision_is_refused_and_the_error_says_what_to_do(finished, pairs, tmp_path):
    output = shutil.copytree(finished[0], tmp_path / "scores")
    job = output / "_job.json"
    job.write_text(job.read_text().replace('"dtype": "float32"', '"dtype": "float16"'))
    next(output.glob("part-*")).unlink()
    with pytest.raises(InputError, match=r"\(dtype was float16, is float32\): give dtype='float16'"):
        rerank(pairs, output, **finished[1])


@pytest.mark.precision
@pytest.mark.parametrize("module", [job_module, transformer_module])
def test_an_actor_that_would_stay_in_float32_refuses_to_mix_precisions(
    cluster, frame, checkpoint_folder, tmp_path, monkeypatch, module
):
    """As after another machine of the cluster, with half precision, was asked for the precision."""
    facts = ScoringOptions(truncation=Truncation(max_length=512)).facts()
    there = {**facts, "dtype": "bfloat16"}
    monkeypatch.setattr(module, "facts_there", lambda *_, **__: there)
    source, few = tmp_path / "pairs.parquet", frame.iloc[:24]
    few.to_parquet(source)
    on_ray = RayReRanker(BertCatReRanker(checkpoint_folder, device="cpu"), concurrency=1)
    options = {"model": checkpoint_folder, "device": "cpu", "verbose": False}
    score = {
        job_module: lambda: rerank(source, tmp_path / "scores", **options),
        transformer_module: lambda: on_ray(few),
    }[module]
    with pytest.raises(InputError, match=r"score in bfloat16, .* would score in float32: give dtype='float32'"):
        score()
    assert not parts(tmp_path / "scores")


def test_a_killed_driver_leaves_only_whole_parts_and_the_next_call_does_the_rest(
    cluster, finished, pairs, tmp_path, frame, expected
):
    output, (uninterrupted, options) = tmp_path / "scores", finished
    options = {**options, "concurrency": 1}
    code = f"""
import ray
from pathlib import PosixPath
from pyterrier_bertcat.ray import rerank
ray.init(address={cluster!r}, log_to_driver=False)
rerank({str(pairs)!r}, {str(output)!r}, **{options!r})
"""
    root = str(Path(__file__).resolve().parents[2])  # Ray's workers import from the driver's folder first
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.PIPE, text=True)
    try:
        when_parts_exist(3, output)
    finally:
        driver.kill()
        driver.communicate()
    wait_until(lambda: not actor_processes(), "end of the driver's actors")
    left = {part: part.stat().st_mtime_ns for part in parts(output)}
    assert 3 <= len(left) < SHARDS
    with pytest.raises(InputError, match="not finished"):
        read_ranked(output)

    job = rerank(pairs, output, **options)
    assert job.rows == ROWS
    assert job.scored_rows == ROWS - sum(len(pd.read_parquet(part)) for part in left)
    assert {part: part.stat().st_mtime_ns for part in left} == left
    assert_every_row_once(output, frame, expected)
    for one, other in zip(parts(output), parts(uninterrupted), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_a_data_set_is_scored_too_and_rows_that_cannot_be_are_named(
    cluster, frame, expected, checkpoint_folder, tmp_path
):
    some = frame.iloc[:60]
    texts = some["text"].astype(object)
    for missing, message in ((None, "docno 'd3' of qid 'q0'"), (3, "expected strings in column 'text', .*as None")):
        data = ray.data.from_pandas(some.assign(text=texts.where(some["docno"] != "d3", missing)))
        with pytest.raises(InputError, match=message):
            rerank(data, tmp_path / "scores", model=checkpoint_folder, verbose=False)
    data = ray.data.from_pandas(some)
    job = rerank(data, tmp_path / "scores", model=checkpoint_folder, keep=["bm25"], verbose=False)
    assert job.rows == 60
    assert_every_row_once(tmp_path / "scores", some.reset_index(drop=True), expected[:60])


def test_rows_that_only_an_actor_sees_are_named_too(cluster, frame, checkpoint_folder, tmp_path):
    bad = frame.iloc[:60].assign(query=frame["query"].iloc[:60].where(frame["docno"].iloc[:60] != "d7"))
    bad.to_parquet(tmp_path / "pairs.parquet", write_statistics=False)
    with pytest.raises(InputError, match=r"pairs.parquet, row group 0: .*docno 'd7' of qid 'q0'"):
        rerank(tmp_path / "pairs.parquet", tmp_path / "scores", model=checkpoint_folder, verbose=False)
    assert not parts(tmp_path / "scores")


def test_a_frame_comes_back_as_the_re_ranker_gives_it(cluster, frame, tiny_checkpoint):
    options = {"depth": 30, "extra_columns": ["truncated"], "device": "cpu", "verbose": False}
    reranker = BertCatReRanker(tiny_checkpoint, **options)
    mixed = frame.sample(frac=0.4, random_state=1).assign(score=lambda it: it["bm25"]).set_index("docno", drop=False)
    on_ray = RayReRanker(reranker, concurrency=2)
    pd.testing.assert_frame_equal(on_ray(mixed), reranker(mixed), atol=5e-5)

    before = on_ray._running.actors
    victim, _ = actor_processes("_FrameReRanker")
    victim.kill()
    pd.testing.assert_frame_equal(on_ray(mixed), reranker(mixed), atol=5e-5)
    assert on_ray._running.actors == before  # the same actors, one of them started again
    with pytest.raises(InputError, match=r"depth= needs a score in every row"):
        on_ray(mixed.assign(score=np.nan))
    on_ray.close()


def test_actors_that_find_no_room_are_an_error_and_not_a_wait_for_ever(cluster, frame, tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(transformer_module, "_START_TIMEOUT_S", 0.1)
    reranker = BertCatReRanker(tiny_checkpoint, device="cpu")
    with pytest.raises(InputError, match="0 of 1 actors found free GPUs and CPUs within"):
        RayReRanker(reranker, concurrency=3, num_cpus=4)(frame)
    monkeypatch.setattr(transformer_module, "facts_there", lambda *_, **__: {"dtype": "float32"})
    with pytest.raises(InputError, match="0 of 3 actors found free GPUs and CPUs within"):
        RayReRanker(reranker, concurrency=3, num_cpus=4)(frame)
    with pytest.raises(InputError, match="lower them"):
        RayReRanker(reranker, num_cpus=3)(frame)


def test_options_that_cannot_work_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(InputError, match="concurrency is a whole number"):
        RayReRanker(BertCatReRanker("mini"), concurrency=0)
    with pytest.raises(InputError, match="num_gpus is a number"):
        rerank(tmp_path, tmp_path / "out", model="mini", num_gpus=-1)
    with pytest.raises(InputError, match="leave depth and store out"):
        rerank(tmp_path, tmp_path / "out", model="mini", depth=3, store="scores")
    with pytest.raises(InputError, match="shard_rows is a whole number"):
        rerank(tmp_path, tmp_path / "out", model="mini", shard_rows=0)
    with pytest.raises(InputError, match="keep can't have"):
        rerank(tmp_path, tmp_path / "out", model="mini", keep=["score"])


def test_it_is_inspected_drawn_compared_and_copied_without_a_cluster():
    on_ray = RayReRanker(BertCatReRanker("no/such-model"), concurrency=2)
    assert pt.inspect.transformer_inputs(on_ray) == [["qid", "docno", "query", "text"]]
    assert pt.inspect.subtransformers(on_ray) == {}
    pt.schematic.draw(on_ray)
    same = pickle.loads(pickle.dumps(on_ray))
    assert same == on_ray
    assert hash(same) == hash(on_ray)
    assert repr(same) == "RayReRanker(BertCatReRanker('no/such-model'), concurrency=2)"
    assert on_ray != RayReRanker(BertCatReRanker("no/such-model"))
    empty = pd.DataFrame(columns=["qid", "query", "docno", "text"])
    assert on_ray(empty).columns.tolist() == ["qid", "query", "docno", "text", "score", "rank"]
    with pytest.raises(InputError, match="1 missing"):
        on_ray(pd.DataFrame({"qid": ["1"], "query": ["a"], "docno": ["d"], "text": [None]}))


def test_without_ray_the_extra_is_named(frame, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pyterrier-bertcat\[ray\]"):
        RayReRanker(BertCatReRanker("mini"))(frame)
    with pytest.raises(MissingExtraError):
        rerank(tmp_path, tmp_path / "out", model="mini")
