"""``rerank``: pairs of Parquet files to scores in Parquet files, by actors of a Ray cluster."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.errors import BertCatError, InputError, MissingExtraError
from pyterrier_bertcat.model.names import PUBLISHED
from pyterrier_bertcat.pipeline.frames import OUTPUT_COLUMNS, query_text_pairs, ranked
from pyterrier_bertcat.ray.cluster import ActorOptions, connected, with_weights
from pyterrier_bertcat.reranker import BertCatReRanker

if TYPE_CHECKING:
    from ray.data import Dataset

    from pyterrier_bertcat.model.bert_cat import BertCatModel
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.ray.shards import Plan, Shard, Store

_KEY = ("qid", "docno")
_DEFAULT_SHARD_ROWS = 20_000
_DATASET_FOLDER = "_input"
# Options of the re-ranker that change nothing but the time, or that the checkpoint's fingerprint covers.
_NOT_SETTINGS = {"model", "revision", "batch_size", "batch_tokens", "device"}


@dataclass(frozen=True)
class ScoringJob:
    """What a call of `rerank` did.

    Attributes:
        output: The folder with the scores.
        rows: Rows of the input, all of which have their score now.
        scored_rows: Rows that this call scored; the others had been scored before.
        truncated_pairs: Pairs among them of which something was cut off.
        seconds: What this call took, everything counted.
    """

    output: str
    rows: int
    scored_rows: int
    truncated_pairs: int
    seconds: float

    @property
    def pairs_per_second(self) -> float:
        """Rows that this call scored, per second."""
        return self.scored_rows / self.seconds


def rerank(
    pairs: str | os.PathLike[str] | Dataset,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | BertCatModel | Checkpoint = PUBLISHED,
    num_gpus: float | None = None,
    num_cpus: float = 1,
    concurrency: int | None = None,
    shard_rows: int = _DEFAULT_SHARD_ROWS,
    keep: Sequence[str] = (),
    verbose: bool = True,
    **options: Any,
) -> ScoringJob:
    """Scores each query with its text on a Ray cluster, and writes the scores as Parquet.

    The input is cut into shards. Each is read, scored and written by one actor, to a file that appears complete or not
    at all, so that every row is written exactly once, whatever fails in between. Called again with the same arguments
    after an interruption, it scores only the shards that are missing. One call at a time works on an output folder.

    The process is connected to a cluster before, with ``ray.init``, or else a local one is started. The checkpoint is
    loaded here and sent to the actors; this package has to be installed on all machines of the cluster, and input and
    output within their reach.

    Args:
        pairs: A Parquet file or a folder of them (local, ``s3://``, …), with the columns ``qid``, ``query``, ``docno``
            and the text. Or a ``ray.data.Dataset`` with these columns; it has no fixed order to resume in, so that it
            is first written to ``_input`` in the output folder. A call that resumes reads what is there, and not the
            data set.
        output: The folder to write to: ``qid``, ``docno``, the columns of ``keep`` and ``score`` (float32: a raw
            relevance logit), a file per shard, with rows in the order of the input.
        model: As `BertCatReRanker` takes it.
        num_gpus: GPUs per actor. None: 1 where the cluster has GPUs, else 0.
        num_cpus: CPU cores per actor; PyTorch uses as many threads.
        concurrency: How many actors. None: as many as the cluster has room for now.
        shard_rows: The most rows of a shard: what an actor holds in memory, and what is scored again when it is lost.
        keep: More columns to copy, such as a key of your own.
        verbose: Shows progress.
        options: The other options of `BertCatReRanker`: ``dtype``, ``max_length``, ``text_field``, ``passages``, ….

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: An option, a column or a row that can't be used; or the output folder belongs to a job with another
            checkpoint, input or settings.
        CheckpointError: The model can't be loaded.
        ScoreError: The model gave a score that is not finite.

    Example:
        >>> from pyterrier_bertcat.ray import read_ranked, rerank
        >>> job = rerank("pairs/", "scores/", model="mini", num_gpus=1, concurrency=8)  # doctest: +SKIP
        >>> run = read_ranked("scores/")  # doctest: +SKIP
    """
    began = time.perf_counter()
    actors = ActorOptions(num_gpus=num_gpus, num_cpus=num_cpus, concurrency=concurrency)
    reranker = BertCatReRanker(model, verbose=False, **options)
    _check(reranker, shard_rows, keep)
    ray = connected()
    from pyterrier_bertcat.ray.shards import Store, begin_or_resume, plan_shards

    folder = Store(output)
    columns = list(dict.fromkeys(("qid", "query", "docno", reranker.text_field, *keep)))
    source = Store(pairs) if isinstance(pairs, (str, os.PathLike)) else _written(pairs, folder, columns)
    plan = plan_shards(source, shard_rows=shard_rows)
    _check_input(plan, reranker, columns)
    carrier = with_weights(reranker)
    missing = begin_or_resume(folder, plan, _settings(carrier, shard_rows, keep))
    truncated = 0
    if missing:
        work = _Work(carrier, plan, folder.location, tuple(dict.fromkeys((*_KEY, *keep))))
        truncated = _score(ray, missing, work, actors, verbose)
    return ScoringJob(
        output=folder.location,
        rows=plan.rows,
        scored_rows=sum(shard.rows for shard in missing),
        truncated_pairs=truncated,
        seconds=time.perf_counter() - began,
    )


def read_ranked(output: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads what `rerank` wrote, as a run: the columns there, then ``score`` and ``rank``, in the order of a re-ranker.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: The job is not finished, or this is no output folder.
    """
    try:
        from pyterrier_bertcat.ray.shards import SCORE, Store, read_scores
    except ImportError as error:
        raise MissingExtraError(error.name or "pyarrow", extra="ray") from error
    frame = read_scores(Store(output)).to_pandas()
    return ranked(frame, frame[SCORE].to_numpy(dtype=np.float32))


@dataclass(frozen=True)
class _Work:
    """What every actor needs to know."""

    reranker: BertCatReRanker
    plan: Plan
    output: str
    columns: tuple[str, ...]


class _ShardScorer:
    """An actor: keeps the model, and scores one shard after the other."""

    def __init__(self, work: Any) -> None:
        import ray

        self._work: _Work = ray.get(work)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """From the number of a shard to how many rows were scored, and of how many something was cut.

        An error of this package is handed back pickled: of one that is raised here, Ray Data keeps the text alone.
        """
        (number,) = batch["shard"].tolist()
        shard = self._work.plan.shards[number]
        try:
            truncated, error = self._score(shard), b""
        except BertCatError as our_error:
            truncated, error = 0, pickle.dumps(our_error)
        return {"rows": [shard.rows], "truncated": [truncated], "error": [error]}

    def _score(self, shard: Shard) -> int:
        from pyterrier_bertcat.ray.shards import Store, read_shard, write_scores

        reranker, source, kept = self._work.reranker, self._work.plan.store, list(self._work.columns)
        rows = read_shard(source, shard, list(dict.fromkeys((*kept, "query", reranker.text_field))))
        scored = reranker.scorer.score_in_detail(*_pairs(rows, shard, reranker))
        write_scores(Store(self._work.output), shard, rows.select(kept), scored.scores)
        return int(scored.cut.any(axis=0).sum())


def _score(ray: Any, missing: list[Shard], work: _Work, actors: ActorOptions, verbose: bool) -> int:
    """Scores shards; gives the number of pairs of which something was cut off."""
    each, concurrency = actors.on(ray)
    numbers = ray.data.from_items([{"shard": shard.number} for shard in missing], override_num_blocks=len(missing))
    numbers.context.enable_progress_bars = False  # they count shards, and this function counts pairs
    done = numbers.map_batches(
        _ShardScorer,
        fn_constructor_args=(ray.put(work),),
        batch_size=1,
        # One shard at a time: a second one would wait in one actor while another is idle.
        compute=ray.data.ActorPoolStrategy(size=min(concurrency, len(missing)), max_tasks_in_flight_per_actor=1),
        **each,
    )
    truncated = 0
    total = sum(shard.rows for shard in missing)
    with pt.tqdm(total=total, desc="BERT_Cat on Ray", unit="pair", disable=not verbose) as bar:
        for row in done.iter_rows():
            if row["error"]:
                raise pickle.loads(row["error"])
            truncated += row["truncated"]
            bar.update(row["rows"])
    return truncated


def _pairs(rows: Any, shard: Shard, reranker: BertCatReRanker) -> tuple[list[str], list[str]]:
    """The queries and texts of a shard's rows, checked; see `query_text_pairs`."""
    try:
        return query_text_pairs(rows.to_pandas(), text_field=reranker.text_field, missing_text=reranker.missing_text)
    except InputError as error:
        raise InputError(f"{shard.file}, row group {shard.row_group}: {error}") from error


def _check(reranker: BertCatReRanker, shard_rows: int, keep: Sequence[str]) -> None:
    if reranker.depth is not None or reranker.extra_columns:
        raise InputError("rerank gives nothing but scores, of all rows: leave depth and extra_columns out")
    if type(shard_rows) is not int or shard_rows < 1:
        raise InputError(f"shard_rows is a whole number of at least 1, got {shard_rows!r}")
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise InputError(f"keep is a list of column names, got {keep!r}")
    if set(keep) & set(OUTPUT_COLUMNS):
        raise InputError(f"keep can't have {' or '.join(OUTPUT_COLUMNS)}, which re-ranking writes: rename that column")


def _check_input(plan: Plan, reranker: BertCatReRanker, columns: list[str]) -> None:
    """Refuses what can't be scored, by the files' footers, before anything is scored."""
    from pyterrier_bertcat.ray.shards import check_columns, read_shard, row_groups_with_missing

    if not plan.rows:
        raise InputError(f"expected a Parquet file or a folder of them, found no row in {plan.store.location}")
    check_columns(plan, needed=columns, strings=["query", reranker.text_field])
    wanted = ["qid", "query", *([reranker.text_field] if reranker.missing_text == "raise" else [])]
    for group in row_groups_with_missing(plan, wanted):
        _pairs(read_shard(plan.store, group, ["qid", "docno", "query", reranker.text_field]), group, reranker)


def _settings(reranker: BertCatReRanker, shard_rows: int, keep: Sequence[str]) -> dict[str, str]:
    """What makes a job the same job."""
    options = {name: repr(value) for name, value in reranker._identity().items() if name not in _NOT_SETTINGS}
    fingerprint = reranker.checkpoint.fingerprint
    return {"checkpoint": fingerprint, **options, "shard_rows": str(shard_rows), "keep": repr(list(keep))}


def _written(dataset: Dataset, output: Store, columns: list[str]) -> Store:
    """Writes a data set into the output folder, unless a job has begun with it there, and says where."""
    from pyterrier_bertcat.ray.shards import Store, has_begun

    folder = Store(f"{output.location}/{_DATASET_FOLDER}")
    if not (has_begun(output) and folder.parquet_files()):
        schema = dataset.schema()
        missing = [name for name in columns if schema is None or name not in schema.names]
        if missing:
            raise InputError(f"the data set has no column {missing}, expected {columns}")
        folder.filesystem.create_dir(folder.path, recursive=True)
        folder.filesystem.delete_dir_contents(folder.path)  # of a call that was killed while it wrote
        dataset.select_columns(columns).write_parquet(folder.path, filesystem=folder.filesystem)
    return folder
