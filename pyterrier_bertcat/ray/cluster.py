"""The Ray cluster: connecting to it, what an actor takes, in which precision it scores, and what is sent to it."""

from __future__ import annotations

import copy
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.errors import BertCatError, InputError, MissingExtraError, whole_number
from pyterrier_bertcat.scoring.options import ScoringOptions

if TYPE_CHECKING:
    from pyterrier_bertcat.reranker import BertCatReRanker


@dataclass(frozen=True, kw_only=True)
class ActorOptions:
    """How many actors there are, and what each of them takes: the arguments of `rerank` and `RayReRanker`."""

    num_gpus: float | None
    num_cpus: float
    concurrency: int | None

    def __post_init__(self) -> None:
        for name, none_allowed in (("num_gpus", True), ("num_cpus", False)):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
            if not (none_allowed and value is None) and not is_number:
                raise InputError(f"{name} is a number of at least 0{' or None' * none_allowed}, got {value!r}")
        whole_number("concurrency", self.concurrency, or_none=True)

    def on(self, ray: Any) -> tuple[dict[str, float], int]:
        """What one actor takes on this cluster, as Ray's options, and how many actors to start.

        Raises:
            InputError: Not even one actor fits.
        """
        cluster = ray.cluster_resources()
        num_gpus = float(bool(cluster.get("GPU"))) if self.num_gpus is None else self.num_gpus
        each = {"num_gpus": num_gpus, "num_cpus": self.num_cpus}
        if self.concurrency is not None:
            return each, self.concurrency
        wanted = {"GPU": num_gpus, "CPU": self.num_cpus}
        room = min((int(cluster.get(name, 0) / number) for name, number in wanted.items() if number), default=1)
        if room < 1:
            raise InputError(
                f"one actor takes num_gpus={num_gpus:g} and num_cpus={self.num_cpus:g}, but this cluster has "
                f"{cluster.get('GPU', 0):g} GPUs and {cluster.get('CPU', 0):g} CPUs: lower them, or give concurrency= "
                "if the cluster grows on demand"
            )
        return each, room


def connected() -> Any:
    """Ray, on the cluster that this process is connected to, or that ``RAY_ADDRESS`` names, or a new local one.

    Raises:
        MissingExtraError: Ray or pyarrow is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError(error.name or "ray", extra="ray") from error
    if not ray.is_initialized():
        ray.init()
    return ray


def facts_there(ray: Any, reranker: BertCatReRanker, each: dict[str, float], *, timeout_s: float | None) -> Any:
    """`ScoringOptions.facts`, with the precision of a machine that has room for an actor.

    This process may run on a machine without a GPU, or with another CPU.
    """
    options = ScoringOptions.of(reranker).for_checkpoint(reranker.checkpoint)
    asked = ray.remote(**each)(ScoringOptions.facts).remote(options)
    return answers(ray, [asked], each, timeout_s=timeout_s)[0]


def answers(ray: Any, asked: list[Any], each: dict[str, float], *, timeout_s: float | None) -> list[Any]:
    """Waits for the first answers of actors, and gives them.

    Raises:
        InputError: Some did not start in time.
        BertCatError: Whatever an actor raises.
    """
    ready, _ = ray.wait(asked, num_returns=len(asked), timeout=timeout_s)
    if len(ready) < len(asked):
        raise InputError(
            f"{len(ready)} of {len(asked)} actors found free GPUs and CPUs within {timeout_s:g} s (each takes "
            f"num_gpus={each['num_gpus']:g} and num_cpus={each['num_cpus']:g}): lower concurrency, or close() other "
            "transformers that use them"
        )
    with own_errors():
        given: list[Any] = ray.get(asked)
    return given


@contextmanager
def own_errors() -> Iterator[None]:
    """Raises an actor's error as it was there; Ray wraps it in a class of its own with a long message."""
    try:
        yield
    except BertCatError as error:
        raise getattr(error, "cause", error) from error


def for_actors(reranker: BertCatReRanker, dtype: str) -> BertCatReRanker:
    """A copy to send to actors, which all score with these weights, in this precision.

    It carries its weights, so that no other machine looks for files or asks a hub, or finds other files there.

    Raises:
        CheckpointError: The model can't be loaded.
    """
    carrier = copy.copy(reranker)
    carrier.model, carrier.revision, carrier.verbose = reranker.checkpoint, None, False
    carrier.dtype = dtype
    _ = carrier.checkpoint.fingerprint  # computed here, once for all
    return carrier


def refuse_other_precision(reranker: BertCatReRanker) -> None:
    """Refuses to score on a machine that would not compute in the precision that `for_actors` set.

    Raises:
        InputError: It would stay in float32, which would mix precisions.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the error says it
        precision = ScoringOptions.of(reranker).precision
    if precision != reranker.dtype:
        raise InputError(
            f"the actors score in {reranker.dtype}, but the machine {platform.node()} would score in {precision}: give "
            f"dtype={precision!r} for all, or keep actors off such machines"
        )
