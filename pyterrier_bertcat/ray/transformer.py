"""``RayReRanker``: scores the frames of a pipeline on a Ray cluster."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pyterrier as pt
from numpy.typing import NDArray

from pyterrier_bertcat.errors import BertCatError, InputError
from pyterrier_bertcat.identity import IdentifiedByOptions
from pyterrier_bertcat.pipeline.frames import query_text_pairs
from pyterrier_bertcat.ray.cluster import (
    ActorOptions,
    answers,
    connected,
    facts_there,
    for_actors,
    own_errors,
    refuse_other_precision,
)
from pyterrier_bertcat.reranker import BertCatReRanker

_START_TIMEOUT_S = 300.0
_PARTS_PER_ACTOR = 4  # so that an actor with short texts takes more of them


@dataclass(frozen=True)
class _Running:
    """Actors that have started.

    Attributes:
        reranker: A copy of the user's re-ranker as it was then, to notice when options change.
        sent: Ray's reference to what the actors were made from. A restarted actor needs it.
        actors: Handles. An actor ends when its handle is deleted.
    """

    reranker: BertCatReRanker
    sent: Any
    actors: list[Any]


class RayReRanker(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]
    """Does the same as a `BertCatReRanker`, on the actors of a Ray cluster.

    The actors start at the first frame and stay, each with the model loaded, until you delete this transformer or call
    `close`. A frame's queries are divided among them, so a frame with a single query is scored by one actor. An actor
    that dies is started again, and repeats its part. All actors score in one precision: ``dtype="auto"`` is decided
    once, on a machine of the cluster, and a machine that can't do it is refused.

    Connect to a cluster first with ``ray.init``; otherwise a local one is started. Copies and pickles start actors of
    their own.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> from pyterrier_bertcat.ray import RayReRanker
        >>> RayReRanker(BertCatReRanker("mini"), num_gpus=1, concurrency=8)
        RayReRanker(BertCatReRanker('mini'), num_gpus=1, concurrency=8)
    """

    schematic: ClassVar[dict[str, str]] = {"label": "BERT_Cat on Ray", "help_url": "https://arxiv.org/abs/2010.02666"}

    _running: _Running | None

    def __init__(
        self,
        reranker: BertCatReRanker,
        *,
        num_gpus: float | None = None,
        num_cpus: float = 1,
        concurrency: int | None = None,
    ) -> None:
        """Keeps the options; starts, loads and connects to nothing.

        Args:
            reranker: Scores the frames, with all its options. ``device`` and ``devices`` are those of each actor.
            num_gpus: As for `rerank`.
            num_cpus: As for `rerank`.
            concurrency: How many actors. None: as many as the whole cluster has room for. If you use several of these
                transformers at once, give each of them its share.

        Raises:
            InputError: An option of another type or outside its range.
        """
        if not isinstance(reranker, BertCatReRanker):
            raise InputError(f"reranker is a BertCatReRanker, got a value of type {type(reranker).__name__}")
        self.reranker = reranker
        self.num_gpus = num_gpus
        self.num_cpus = num_cpus
        self.concurrency = concurrency
        self._running = None
        self._actor_options()

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks a result frame, with the columns and errors of `BertCatReRanker.transform`.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: Also if not all actors start within 5 minutes, or an actor's machine can't compute in the
                precision of the others.
        """
        reranker = self.reranker
        nothing: pd.DataFrame = reranker.transform(inp.iloc[:0])  # refuses missing columns
        if inp.empty:
            return nothing
        query_text_pairs(inp, text_field=reranker.text_field, missing_text=reranker.missing_text)
        actors = self._actors()
        from ray.util import ActorPool

        parts = [inp.iloc[rows] for rows in _whole_queries(inp["qid"], parts=_PARTS_PER_ACTOR * len(actors))]
        done = ActorPool(actors).map(lambda actor, part: actor.rerank.remote(part), parts)
        with own_errors():
            result: pd.DataFrame = pd.concat(list(done), ignore_index=True)
        return result

    def close(self) -> None:
        """Stops the actors, which frees their GPUs and cores. The next frame starts new ones."""
        running, self._running = self._running, None
        if running is not None:
            import ray

            for actor in running.actors:
                ray.kill(actor)

    def subtransformers(self) -> dict[str, pt.Transformer]:
        """None, for ``pt.inspect``: the re-ranker is not a step of its own."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self._options(), "_running": None}

    def _actor_options(self) -> ActorOptions:
        return ActorOptions(num_gpus=self.num_gpus, num_cpus=self.num_cpus, concurrency=self.concurrency)

    def _actors(self) -> list[Any]:
        """The actors, started if there are none for the re-ranker as it is now."""
        if self._running is not None and self._running.reranker != self.reranker:
            self.close()
        if self._running is None:
            self._running = self._start()
        return self._running.actors

    def _start(self) -> _Running:
        ray = connected()
        each, concurrency = self._actor_options().on(ray)
        dtype = facts_there(ray, self.reranker, each, timeout_s=_START_TIMEOUT_S)["dtype"]
        sent = ray.put(for_actors(self.reranker, dtype))
        actor_class = ray.remote(max_restarts=-1, max_task_retries=-1, **each)(_FrameReRanker)
        actors = [actor_class.remote(sent) for _ in range(concurrency)]
        try:
            answers(ray, [actor.load.remote() for actor in actors], each, timeout_s=_START_TIMEOUT_S)
        except BertCatError:
            for actor in actors:
                ray.kill(actor)
            raise
        return _Running(copy.copy(self.reranker), sent, actors)


class _FrameReRanker:
    """An actor: keeps the model, and re-ranks frames."""

    def __init__(self, reranker: BertCatReRanker) -> None:
        self._reranker = reranker

    def load(self) -> None:
        """Loads the model."""
        refuse_other_precision(self._reranker)
        self._reranker.load()

    def rerank(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks the rows of a few queries."""
        refuse_other_precision(self._reranker)  # again: this actor may have been restarted, on another machine
        return self._reranker.transform(frame)


def _whole_queries(qids: pd.Series[Any], *, parts: int) -> Iterator[NDArray[np.int64]]:
    """Divides rows into about ``parts`` parts that hold whole queries, in order of first appearance.

    Yields the rows' positions, int64.
    """
    codes, _ = pd.factorize(qids)
    order = np.argsort(codes, kind="stable")
    query_starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    wanted = np.linspace(0, len(order), num=parts, endpoint=False)
    starts = np.unique(query_starts[np.searchsorted(query_starts, wanted, side="right") - 1])
    yield from np.split(order, starts[1:])
