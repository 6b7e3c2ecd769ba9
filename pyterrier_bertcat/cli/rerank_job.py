"""Re-ranking a run file: read, score query by query, write. What the command ``rerank`` does."""

from __future__ import annotations

import math
import os
import shutil
import sys
import warnings
from pathlib import Path

import pyterrier as pt

from pyterrier_bertcat.data.candidates import RunCandidates, RunSources
from pyterrier_bertcat.data.runs import RunWriter
from pyterrier_bertcat.errors import InputError, TruncationWarning
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.statistics import RunStatistics

# A frame is what is scored at once and, with a store, what is kept at once. On a CPU it is small, so that the progress
# moves and a killed job loses little; other devices want many pairs to sort by length and to tokenise ahead.
_CPU_ROWS, _DEVICE_ROWS = 256, 16384
_CHARACTERS_PER_TOKEN = 4.5  # of English, about
_LOG_INTERVAL_S = 30.0


def check_output(sources: RunSources, output: str | os.PathLike[str]) -> None:
    """Makes sure that the run to write is none of the files to read.

    Raises:
        InputError: It is.
    """
    for source in (sources.run, sources.topics, sources.texts):
        if os.path.exists(output) and os.path.exists(source) and os.path.samefile(output, source):
            raise InputError(f"{output} is read and can't be the output as well: choose another name")


def temporary_store(output: str | os.PathLike[str]) -> Path:
    """The folder beside a run that holds its scores until the run is complete.

    Raises:
        InputError: There is a folder or file of that name which is something else.
    """
    folder = Path(f"{os.fspath(output)}.scores")
    ours = not folder.exists() or (
        folder.is_dir() and ((folder / "pt_meta.json").exists() or not any(folder.iterdir()))
    )
    if not ours:
        raise InputError(f"{folder} is no score store: choose another output, or say where scores go with --store")
    return folder


def rerank_run(
    candidates: RunCandidates, reranker: BertCatReRanker, run: RunWriter, *, verbose: bool = True
) -> RunStatistics:
    """Re-ranks candidates frame by frame and writes them as they come, queries in the order of the run.

    Args:
        candidates: What to re-rank.
        reranker: By what.
        run: Where to; it is opened here, so that nothing takes its name before all is done.
        verbose: Shows progress, with the time left.

    Returns:
        How many pairs there were and how many were cut, counted over all frames. The re-ranker's own warning, which
        would come with each frame, is held back.

    Raises:
        InputError: The run can't be written.
        CheckpointError: The model can't be loaded.
        OSError: The disk is full.
    """
    total = RunStatistics()
    with run:  # before the model is loaded: a folder that can't be written to should cost no time
        rows_at_least = _CPU_ROWS if _on_cpu(reranker.load()) else _DEVICE_ROWS
        interval_s = 0.1 if sys.stderr.isatty() else _LOG_INTERVAL_S  # a log file should not fill with bars
        with pt.tqdm(
            total=len(candidates.rows), desc="BERT_Cat", unit="pair", mininterval=interval_s, disable=not verbose
        ) as bar:
            for frame in candidates.frames(rows_at_least=rows_at_least):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", TruncationWarning)
                    run.write(reranker.transform(frame))
                total.include(reranker.stats or RunStatistics())
                bar.update(len(frame))
    return total


def remove_store(folder: Path) -> None:
    """Deletes what `temporary_store` named, if any pair was scored."""
    if folder.exists():
        shutil.rmtree(folder)


def describe(candidates: RunCandidates, *, depth: int | None, max_length: int, passages: Passages | None = None) -> str:
    """What re-ranking would have to do, in lines for people; nothing is scored.

    Args:
        candidates: What would be re-ranked.
        depth: How many of each query. None: all.
        max_length: Tokens that a pair is cut to.
        passages: How documents are cut into passages.
    """
    rows = candidates.rows
    scored = rows if depth is None else rows[rows["rank"] < depth]
    pairs = {(candidates.queries[q], candidates.texts[d]) for q, d in zip(scored["qid"], scored["docno"], strict=True)}
    tokens = 0.0
    for query, text in pairs:
        query_tokens, text_tokens = (3 + len(query) / _CHARACTERS_PER_TOKEN, len(text) / _CHARACTERS_PER_TOKEN)
        windows = 1
        if passages is not None:
            more = max(0, math.ceil((text_tokens - passages.length) / passages.stride))
            windows, text_tokens = 1 + more * (passages.aggregate != "first"), min(text_tokens, passages.length)
        tokens += windows * min(max_length, query_tokens + text_tokens)
    return "\n".join(
        [
            f"run       {len(rows):,} rows, {rows['qid'].nunique():,} queries, {rows['docno'].nunique():,} documents",
            f"to score  {len(scored):,} pairs, {len(pairs):,} distinct, about {float(f'{tokens:.2g}'):,.0f} tokens",
            f"skipped   {candidates.skipped or 'nothing'}",
        ]
    )


def _on_cpu(reranker: BertCatReRanker) -> bool:
    from pyterrier_bertcat.scoring.devices import choose_device

    return choose_device(reranker.device).type == "cpu"
