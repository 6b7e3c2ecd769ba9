"""The Ray cluster: connecting to it, what an actor takes of it, and what is sent to it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pyterrier_bertcat.reranker import BertCatReRanker


@dataclass(frozen=True, kw_only=True)
class ActorOptions:
    """How many actors, and what each of them takes.

    Attributes:
        num_gpus: GPUs per actor, such as 1, or 0.5 for two actors on one. None: 1 where the cluster has GPUs, else 0.
        num_cpus: CPU cores per actor. PyTorch uses as many threads.
        concurrency: How many actors. None: as many as the cluster has room for when it is asked.
    """

    num_gpus: float | None
    num_cpus: float
    concurrency: int | None

    def __post_init__(self) -> None:
        for name, none_allowed in (("num_gpus", True), ("num_cpus", False)):
            value = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
            if not (none_allowed and value is None) and not is_number:
                raise InputError(f"{name} is a number of at least 0{' or None' * none_allowed}, got {value!r}")
        if self.concurrency is not None and (type(self.concurrency) is not int or self.concurrency < 1):
            raise InputError(f"concurrency is a whole number of at least 1 or None, got {self.concurrency!r}")

    def on(self, ray: Any) -> tuple[dict[str, float], int]:
        """What one actor takes, as Ray's options, and how many actors there are.

        Args:
            ray: Ray, connected to a cluster.

        Raises:
            InputError: Not one actor fits.
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
                f"one actor takes num_gpus={num_gpus:g} and num_cpus={self.num_cpus:g}, and this cluster has "
                f"{cluster.get('GPU', 0):g} GPUs and {cluster.get('CPU', 0):g} CPUs: lower them, or give concurrency= "
                "where the cluster grows on demand"
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


def with_weights(reranker: BertCatReRanker) -> BertCatReRanker:
    """A copy that carries its weights, so that no other machine looks for files or asks a hub, or finds others there.

    Raises:
        CheckpointError: The model can't be loaded.
    """
    carrier = copy.copy(reranker)
    carrier.model, carrier.revision, carrier.verbose = reranker.checkpoint, None, False
    _ = carrier.checkpoint.fingerprint  # computed here, once for all
    return carrier
