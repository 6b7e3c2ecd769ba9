"""``ScoringOptions``: how pairs are scored. This one frozen object checks the options and is handed down whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.errors import InputError, one_of, whole_number
from pyterrier_bertcat.identity import Digest
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.planning import DEFAULT_BATCH_SIZE
from pyterrier_bertcat.pairs.truncation import DEFAULT_MAX_LENGTH, STRATEGIES, Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.backends import Backend

DTYPES = {
    "torch": ("auto", "float32", "float16", "bfloat16"),
    "openvino": ("auto", "float32", "bfloat16", "int8"),
}
"""The precisions of each backend."""
# These options change how long scoring takes, and at most the last bits of a score. All others change scores.
_ONLY_TIME = frozenset({"batch_size", "batch_tokens", "device", "devices"})


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How pairs are scored.

    Attributes:
        batch_size: A batch holds up to ``batch_size`` times ``max_length`` tokens, so more pairs fit if they are
            shorter.
        batch_tokens: The most tokens per batch. None: what is fastest on the device, but never more than ``batch_size``
            allows.
        truncation: How pairs are cut.
        passages: How to divide texts into passages and combine their scores. None: texts are cut.
        device: Where to compute, such as ``"cpu"`` or ``"cuda:1"``. None: cuda, then mps or xpu if usable, then cpu.
        devices: Several devices, each with a process of its own, or ``"all"``. None: only ``device``.
        dtype: Precision of the encoder: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"`` (float16 on cuda if
            that is fast, float32 elsewhere). OpenVINO also takes ``"int8"``, but not ``"float16"``.
        backend: ``"torch"``, ``"openvino"``, or an object with the methods of `Backend`.
        calibration: For int8: queries, each with a text, like those to score. None: the pairs packaged with ``"mini"``.

    Raises:
        InputError: An option has another type or is outside its range.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    batch_tokens: int | None = None
    truncation: Truncation = field(default_factory=Truncation)
    passages: Passages | None = None
    device: str | None = None
    devices: str | tuple[str, ...] | None = None
    dtype: str = "auto"
    backend: str | Backend = "torch"
    calibration: tuple[tuple[str, str], ...] | None = None

    def __post_init__(self) -> None:
        whole_number("batch_size", self.batch_size)
        whole_number("batch_tokens", self.batch_tokens, or_none=True)
        if not isinstance(self.truncation, Truncation):
            raise InputError(f"truncation is a Truncation, got {self.truncation!r}")
        if not isinstance(self.passages, (Passages, type(None))):
            raise InputError(f"passages is a Passages or None, got {self.passages!r}")
        if self.device is not None and not (isinstance(self.device, str) and self.device):
            raise InputError(f"device is a device's name or None, got {self.device!r}")
        if isinstance(self.backend, str):
            one_of("backend", self.backend, DTYPES)
            if self.dtype not in DTYPES[self.backend]:
                choices = ", ".join(map(repr, DTYPES[self.backend]))
                raise InputError(f"with backend={self.backend!r}, dtype is one of {choices}, got {self.dtype!r}")
        elif not hasattr(self.backend, "start"):
            raise InputError(f"backend is 'torch', 'openvino' or an object like `Backend`, got {self.backend!r}")
        self._check_devices()
        self._check_calibration()

    @classmethod
    def of(cls, reranker: Any) -> ScoringOptions:
        """Reads the options off a re-ranker's attributes as they are now: ``pt.GridSearch`` may have changed them."""
        one_of("truncation", reranker.truncation, STRATEGIES)
        truncation = Truncation(
            max_length=reranker.max_length,
            max_query_length=reranker.max_query_length,
            strategy=reranker.truncation,
        )
        others = (option.name for option in fields(cls) if option.name != "truncation")
        return cls(truncation=truncation, **{name: getattr(reranker, name) for name in others})

    def for_checkpoint(self, checkpoint: Checkpoint) -> ScoringOptions:
        """The same with a number as ``max_length``: the `own_max_length` of the checkpoint, if you asked for none.

        Raises:
            InputError: Pairs would have more tokens than the model has positions.
        """
        options = self.with_max_length(own_max_length(checkpoint))
        most_tokens, positions = options.truncation.pair_length, checkpoint.model.max_positions
        if most_tokens > positions:
            raise InputError(
                f"max_length={most_tokens} is more than the {positions} positions of the model "
                f"({checkpoint.source}): use max_length={positions} or less"
            )
        return options

    def with_max_length(self, own: int) -> ScoringOptions:
        """`for_checkpoint`, for a checkpoint that isn't loaded but whose `own_max_length` is known."""
        return replace(self, truncation=self.truncation.filled_in(own))

    @property
    def precision(self) -> str:
        """The precision that ``dtype`` means on this machine, such as ``"float32"``. Imports torch only if needed."""
        device = self.device
        if self.devices is not None:  # the first stands for all, because their precision is the same
            device = None if self.devices == "all" else self.devices[0]
        if self.backend == "openvino":
            device = "cpu"
        if self.dtype in ("float32", "int8"):
            return self.dtype
        if self.dtype == "auto" and device == "cpu":
            return "float32"
        from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype

        return str(choose_dtype(self.dtype, choose_device(device))).removeprefix("torch.")

    def pair_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PairTokenizer:
        """Makes a `PairTokenizer` that cuts and divides pairs as these options say."""
        return PairTokenizer(tokenizer, truncation=self.truncation, passages=self.passages)

    def facts(self) -> dict[str, Any]:
        """Every option that can change a score, as JSON values, with the precision of this machine.

        Stores and jobs reuse a score only if these facts are equal.

        Raises:
            InputError: The backend is an object, which has no such facts; or ``max_length`` is None, which means
                another number for another checkpoint: ask `for_checkpoint` for the options with that number.
        """
        if not isinstance(self.backend, str):
            raise InputError(
                f"stores and jobs need backend='torch' or 'openvino', got {self.backend!r}: they could not tell later "
                "which scores it computed"
            )
        if self.truncation.max_length is None:
            raise InputError("max_length=None is no fact without a checkpoint: use for_checkpoint(checkpoint).facts()")
        facts = {name: _as_json(value) for name, value in vars(self).items() if name not in _ONLY_TIME}
        facts["dtype"] = self.precision
        if self.dtype == "int8":  # what stays unquantised is in bfloat16 on the CPUs that are fast at it
            import torch

            from pyterrier_bertcat.scoring.devices import is_fast

            facts["int8_rest"] = "bfloat16" if is_fast(torch.bfloat16, torch.device("cpu")) else "float32"
        return facts

    def _check_devices(self) -> None:
        devices = self.devices
        if devices is None:
            return
        if devices != "all":
            are_names = isinstance(devices, (list, tuple)) and all(isinstance(name, str) and name for name in devices)
            if not (are_names and devices):
                raise InputError(f"devices is 'all', a list of at least one device's name, or None, got {devices!r}")
            object.__setattr__(self, "devices", tuple(devices))
        if self.device is not None:
            raise InputError(f"use either device or devices, got device={self.device!r} and devices={devices!r}")
        if self.backend != "torch":
            raise InputError(f"devices={devices!r} needs backend='torch', got backend={self.backend!r}")

    def _check_calibration(self) -> None:
        pairs = self.calibration
        if pairs is None:
            return
        is_pairs = isinstance(pairs, (list, tuple)) and all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(text, str) for text in pair)
            for pair in pairs
        )
        if not is_pairs or not pairs:
            raise InputError(
                "calibration is a list of at least one (query, text) pair of strings, "
                f"got {str(pairs)[:60]!r} of type {type(pairs).__name__}"
            )
        if self.dtype != "int8":
            raise InputError(f"calibration is for dtype='int8', got dtype={self.dtype!r}: leave calibration out")
        object.__setattr__(self, "calibration", tuple((query, text) for query, text in pairs))


def own_max_length(checkpoint: Checkpoint) -> int:
    """What ``max_length=None`` means for a checkpoint, in tokens.

    It is what the checkpoint states (see `Checkpoint.stated_max_length`), or else 512, or all positions of the model if
    those are fewer.
    """
    return checkpoint.stated_max_length or min(DEFAULT_MAX_LENGTH, checkpoint.model.max_positions)


def _as_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return Digest.of_pairs(value).digest if isinstance(value, tuple) else value
