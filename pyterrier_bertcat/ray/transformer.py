"""``RayReRanker``: a re-ranker's frames scored on a Ray cluster, inside a pipeline."""

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
from pyterrier_bertcat.ray.cluster import ActorOptions, connected, with_weights
from pyterrier_bertcat.reranker import BertCatReRanker

_START_TIMEOUT_S = 300.0
_PARTS_PER_ACTOR = 4  # so that an actor with short texts takes more of them


@dataclass(frozen=True)
class _Running:
    """Actors that have started.

    Attributes:
        reranker: What they score as: a copy, which stays the same when the user's is trained or set otherwise.
        sent: Ray's reference to what they were made from. An actor that is started again needs it to be there still.
        actors: Handles; actors end when theirs are deleted.
    """

    reranker: BertCatReRanker
    sent: Any
    actors: list[Any]


class RayReRanker(IdentifiedByOptions, pt.Transformer):  # type: ignore[misc]
    """Gives what a `BertCatReRanker` gives, computed by the actors of a Ray cluster.

    The actors start at the first frame and stay, each with the model loaded, until this transformer is deleted or
    `close` is called; the frame's queries are divided among them, so a frame with a single query is scored by one. An
    actor that dies is started again, and what it was doing is done again.

    The process is connected to a cluster before, with ``ray.init``, or else a local one is started. Copies and pickles
    start actors of their own.

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
            reranker: What scores, with all its options.
            num_gpus: GPUs per actor. None: 1 where the cluster has GPUs, else 0.
            num_cpus: CPU cores per actor; PyTorch uses as many threads.
            concurrency: How many actors. None: as many as the whole cluster has room for. Two of these transformers in
                one experiment have to share: give each its part.

        Raises:
            InputError: An option that can't be used.
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
        """Re-ranks a result frame; what goes in, what comes out and which errors there are: as for the re-ranker.

        Raises:
            MissingExtraError: Ray is not installed.
            InputError: Also: not all actors could be started in 5 minutes.
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
        try:
            result: pd.DataFrame = pd.concat(list(done), ignore_index=True)
        except BertCatError as error:  # an actor's, which Ray has made one of its own too, with a long message
            raise getattr(error, "cause", error) from error
        return result

    def close(self) -> None:
        """Stops the actors, so that others can use their GPUs and cores; the next frame starts new ones."""
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
        sent = ray.put(with_weights(self.reranker))
        actor_class = ray.remote(max_restarts=-1, max_task_retries=-1, **each)(_FrameReRanker)
        actors = [actor_class.remote(sent) for _ in range(concurrency)]
        loading = [actor.load.remote() for actor in actors]
        ready, _ = ray.wait(loading, num_returns=len(loading), timeout=_START_TIMEOUT_S)
        if len(ready) < len(actors):
            for actor in actors:
                ray.kill(actor)
            raise InputError(
                f"{len(ready)} of {len(actors)} actors started within {_START_TIMEOUT_S:g} s, the others found no free "
                f"GPUs or CPUs (each takes {each}): lower concurrency, or close() what else uses them"
            )
        ray.get(loading)
        return _Running(copy.copy(self.reranker), sent, actors)


class _FrameReRanker:
    """An actor: keeps the model, and re-ranks frames."""

    def __init__(self, reranker: BertCatReRanker) -> None:
        self._reranker = reranker

    def load(self) -> None:
        """Makes the model ready."""
        self._reranker.load()

    def rerank(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Re-ranks some queries' rows."""
        return self._reranker.transform(frame)


def _whole_queries(qids: pd.Series[Any], *, parts: int) -> Iterator[NDArray[np.int64]]:
    """Divides rows into about so many parts of whole queries: rows' positions, queries in order of first appearance."""
    codes, _ = pd.factorize(qids)
    order = np.argsort(codes, kind="stable")
    query_starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    wanted = np.linspace(0, len(order), num=parts, endpoint=False)
    starts = np.unique(query_starts[np.searchsorted(query_starts, wanted, side="right") - 1])
    yield from np.split(order, starts[1:])
