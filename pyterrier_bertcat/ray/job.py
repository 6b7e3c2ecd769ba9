"""``rerank``: scores the pairs in Parquet files on a Ray cluster, and writes the scores as Parquet files."""

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

from pyterrier_bertcat.errors import BertCatError, InputError, MissingExtraError, whole_number
from pyterrier_bertcat.model.names import PUBLISHED
from pyterrier_bertcat.pipeline.frames import OUTPUT_COLUMNS, query_text_pairs, ranked
from pyterrier_bertcat.ray.cluster import ActorOptions, connected, facts_there, for_actors, refuse_other_precision
from pyterrier_bertcat.reranker import BertCatReRanker

if TYPE_CHECKING:
    from ray.data import Dataset

    from pyterrier_bertcat.model.bert_cat import BertCatModel
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.ray.shards import ParquetFolder, Plan, Shard

_KEY = ("qid", "docno")
_DEFAULT_SHARD_ROWS = 20_000
_DATASET_FOLDER = "_input"
# Options of the re-ranker that can't do anything in a job.
_USELESS = ("depth", "extra_columns", "store", "training")


@dataclass(frozen=True)
class ScoringJob:
    """What a call of `rerank` did.

    Attributes:
        output: The folder with the scores.
        rows: Rows of the input. All of them have a score now.
        scored_rows: Rows that this call scored; earlier calls had scored the others.
        truncated_pairs: How many of the rows that this call scored had their query or text cut.
        seconds: The whole call, from start to end.
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

    The input is cut into shards. One actor reads, scores and writes each of them, to a file that appears complete or
    not at all, so every row is written exactly once, whatever fails in between. After an interruption, call it again
    with the same arguments: it scores only the missing shards. Only one call at a time may work on an output folder.

    Connect to a cluster first with ``ray.init``; otherwise a local one is started. The checkpoint is loaded here and
    sent to the actors. Every machine of the cluster needs this package, and access to the input and the output.

    Args:
        pairs: A Parquet file or a folder of them (local, ``s3://``, …), with the columns ``qid``, ``query``, ``docno``
            and the text. Or a ``ray.data.Dataset`` with these columns. Its rows have no fixed order to resume in, so
            they are written to ``_input`` in the output folder first; a call that resumes reads them from there.
        output: The folder to write to, with one file per shard: ``qid``, ``docno``, the columns of ``keep`` and
            ``score`` (float32: a raw relevance logit), in the order of the input.
        model: As `BertCatReRanker` takes it.
        num_gpus: GPUs per actor, such as 1, or 0.5 for two actors on one. None: 1 if the cluster has GPUs, else 0.
        num_cpus: CPU cores per actor; PyTorch uses as many threads.
        concurrency: How many actors. None: as many as the cluster has room for now.
        shard_rows: The most rows per shard. An actor holds one shard in memory, and a lost shard is scored again.
        keep: More columns to copy, such as a key of your own.
        verbose: Shows progress.
        options: The other options of `BertCatReRanker`: ``dtype``, ``max_length``, ``text_field``, ``passages``, ….
            ``dtype="auto"`` is decided once, on a machine of the cluster, and the job keeps it. ``device`` and
            ``devices`` are those of each actor; they and the batch sizes may change when a job is resumed.

    Raises:
        MissingExtraError: Ray is not installed.
        InputError: An option, a column or a row can't be used. Or the output folder belongs to a job with another
            checkpoint, input, precision or settings. Or an actor's machine can't compute in the job's precision.
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
    from pyterrier_bertcat.ray.shards import ParquetFolder, begin_or_resume, plan_shards

    each, concurrency = actors.on(ray)
    folder = ParquetFolder(output)
    columns = list(dict.fromkeys(("qid", "query", "docno", reranker.text_field, *keep)))
    source = ParquetFolder(pairs) if isinstance(pairs, (str, os.PathLike)) else _written(pairs, folder, columns)
    plan = plan_shards(source, shard_rows=shard_rows)
    _check_input(plan, reranker, columns)
    facts = facts_there(ray, reranker, each, timeout_s=None)
    carrier = for_actors(reranker, facts["dtype"])
    settings = {
        "checkpoint": carrier.checkpoint.fingerprint,
        **facts,
        "text_field": reranker.text_field,
        "missing_text": reranker.missing_text,
        "shard_rows": shard_rows,
        "keep": list(keep),
    }
    missing = begin_or_resume(folder, plan, settings)
    truncated = 0
    if missing:
        work = _Work(carrier, plan, folder, list(dict.fromkeys((*_KEY, *keep))))
        truncated = _score(ray, missing, work, each, concurrency, verbose)
    return ScoringJob(
        output=folder.location,
        rows=plan.rows,
        scored_rows=sum(shard.rows for shard in missing),
        truncated_pairs=truncated,
        seconds=time.perf_counter() - began,
    )


def read_ranked(output: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads the scores that `rerank` wrote, as a run.

    Returns:
        The columns of the output, then ``rank`` (0 is best), ordered as `BertCatReRanker` orders its rows.

    Raises:
        MissingExtraError: pyarrow is not installed.
        InputError: The job is not finished, or this is not an output folder.
    """
    try:
        from pyterrier_bertcat.ray.shards import SCORE, ParquetFolder, read_scores
    except ImportError as error:
        raise MissingExtraError(error.name or "pyarrow", extra="ray") from error
    frame = read_scores(ParquetFolder(output)).to_pandas()
    return ranked(frame, frame[SCORE].to_numpy(dtype=np.float32))


@dataclass(frozen=True)
class _Work:
    """What every actor needs to know."""

    reranker: BertCatReRanker
    plan: Plan
    output: ParquetFolder
    columns: list[str]


class _ShardScorer:
    """An actor: keeps the model, and scores one shard after the other."""

    def __init__(self, work: Any) -> None:
        import ray

        self._work: _Work = ray.get(work)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, list[Any]]:
        """Scores the shard with this number; returns its rows, and how many of them were cut.

        An error of this package is returned, pickled: if it were raised, Ray Data would keep only its text.
        """
        (number,) = batch["shard"].tolist()
        shard = self._work.plan.shards[number]
        try:
            truncated, error = self._score(shard), b""
        except BertCatError as our_error:
            truncated, error = 0, pickle.dumps(our_error)
        return {"rows": [shard.rows], "truncated": [truncated], "error": [error]}

    def _score(self, shard: Shard) -> int:
        from pyterrier_bertcat.ray.shards import read_shard, write_scores

        reranker, kept = self._work.reranker, self._work.columns
        refuse_other_precision(reranker)
        rows = read_shard(self._work.plan.source, shard, list(dict.fromkeys((*kept, "query", reranker.text_field))))
        scored = reranker.scorer.score_in_detail(*_pairs(rows, shard, reranker))
        write_scores(self._work.output, shard, rows.select(kept), scored.scores)
        return int(scored.cut.any(axis=0).sum())


def _score(ray: Any, missing: list[Shard], work: _Work, each: dict[str, float], concurrency: int, verbose: bool) -> int:
    """Scores the missing shards; returns how many pairs were cut."""
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
    if useless := [name for name in _USELESS if getattr(reranker, name)]:
        raise InputError(f"leave {' and '.join(useless)} out: a job scores every row, anew, and writes only scores")
    whole_number("shard_rows", shard_rows)
    if isinstance(keep, str) or not all(isinstance(name, str) for name in keep):
        raise InputError(f"keep is a list of column names, got {keep!r}")
    if set(keep) & set(OUTPUT_COLUMNS):
        raise InputError(f"keep can't have {' or '.join(OUTPUT_COLUMNS)}, which re-ranking writes: rename that column")


def _check_input(plan: Plan, reranker: BertCatReRanker, columns: list[str]) -> None:
    """Refuses input that can't be scored, as far as the files' footers show it, before anything is scored."""
    from pyterrier_bertcat.ray.shards import check_columns, read_shard, row_groups_with_missing

    if not plan.rows:
        raise InputError(f"expected a Parquet file or a folder of them, found no row in {plan.source.location}")
    check_columns(plan, needed=columns, strings=["query", reranker.text_field])
    wanted = ["qid", "query", *([reranker.text_field] if reranker.missing_text == "raise" else [])]
    for group in row_groups_with_missing(plan, wanted):
        _pairs(read_shard(plan.source, group, ["qid", "docno", "query", reranker.text_field]), group, reranker)


def _written(dataset: Dataset, output: ParquetFolder, columns: list[str]) -> ParquetFolder:
    """Writes a data set into the output folder, unless a job there has begun with it; returns where it is."""
    from pyterrier_bertcat.ray.shards import ParquetFolder, has_begun

    folder = ParquetFolder(f"{output.location}/{_DATASET_FOLDER}")
    if not (has_begun(output) and folder.parquet_files()):
        schema = dataset.schema()
        missing = [name for name in columns if schema is None or name not in schema.names]
        if missing:
            raise InputError(f"the data set has no column {missing}, expected {columns}")
        folder.filesystem.create_dir(folder.path, recursive=True)
        folder.filesystem.delete_dir_contents(folder.path)  # of a call that was killed while it wrote
        dataset.select_columns(columns).write_parquet(folder.path, filesystem=folder.filesystem)
    return folder
