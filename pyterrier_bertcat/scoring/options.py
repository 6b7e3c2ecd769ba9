"""``ScoringOptions``: how pairs are scored, in one frozen object that is checked here and handed down whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pyterrier_bertcat.errors import InputError, one_of, whole_number
from pyterrier_bertcat.identity import Digest
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.planning import DEFAULT_BATCH_SIZE
from pyterrier_bertcat.pairs.truncation import STRATEGIES, Truncation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from pyterrier_bertcat.scoring.backends import Backend

DTYPES = {
    "torch": ("auto", "float32", "float16", "bfloat16"),
    "openvino": ("auto", "float32", "bfloat16", "int8"),
}
"""The precisions of each backend."""
# Options that change the time and at most the last bits of a score. Whatever is not named here changes scores.
_ONLY_TIME = frozenset({"batch_size", "batch_tokens", "device", "devices"})


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """How pairs are scored.

    Attributes:
        batch_size: A batch holds up to ``batch_size`` pairs of the greatest length, or more shorter pairs with as many
            tokens together.
        batch_tokens: The most tokens per batch. None: what is fastest on the device, within ``batch_size``.
        truncation: How pairs are cut.
        passages: How texts become passages, and passage scores the text's score. None: texts are cut.
        device: Where to compute, such as ``"cpu"`` or ``"cuda:1"``. None: cuda, then mps or xpu if usable, then cpu.
        devices: Several devices, each with a process of its own, or ``"all"``. None: one, as ``device`` says.
        dtype: Precision of the encoder: ``"float32"``, ``"float16"``, ``"bfloat16"``, or ``"auto"`` (float16 on cuda if
            that is fast, float32 elsewhere). OpenVINO also takes ``"int8"``, and no ``"float16"``.
        backend: What computes: ``"torch"``, ``"openvino"``, or an object with the methods of `Backend`.
        calibration: For int8: queries, each with a text, like those to score. None: the pairs packaged with ``"mini"``.

    Raises:
        InputError: An option of another type or outside its range.
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
            raise InputError(f"device is a string that is not empty or None, got {self.device!r}")
        if isinstance(self.backend, str):
            one_of("backend", self.backend, DTYPES)
            if self.dtype not in DTYPES[self.backend]:
                choices = ", ".join(map(repr, DTYPES[self.backend]))
                raise InputError(f"with backend={self.backend!r}, dtype is one of {choices}, got {self.dtype!r}")
        self._check_devices()
        self._check_calibration()

    @classmethod
    def of(cls, reranker: Any) -> ScoringOptions:
        """The options that a re-ranker's attributes state now: ``pt.GridSearch``, for one, sets them at any time."""
        one_of("truncation", reranker.truncation, STRATEGIES)
        truncation = Truncation(
            max_length=reranker.max_length,
            max_query_length=reranker.max_query_length,
            strategy=reranker.truncation,
        )
        others = (option.name for option in fields(cls) if option.name != "truncation")
        return cls(truncation=truncation, **{name: getattr(reranker, name) for name in others})

    @property
    def precision(self) -> str:
        """What ``dtype`` comes to on this machine, such as ``"float32"``. Imports torch only if it has to look."""
        # Of several devices the first stands for all: they have the same precision.
        device = self.device if self.devices is None else None if self.devices == "all" else self.devices[0]
        if self.dtype == "auto" and (self.backend == "openvino" or device == "cpu"):
            return "float32"
        if self.dtype in ("float32", "int8"):
            return self.dtype
        from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype

        return str(choose_dtype(self.dtype, choose_device(device))).removeprefix("torch.")

    def pair_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> PairTokenizer:
        """Makes what turns pairs into token ids as these options say, with a checkpoint's tokenizer."""
        return PairTokenizer(tokenizer, truncation=self.truncation, passages=self.passages)

    def facts(self) -> dict[str, Any]:
        """Everything here that can change a score, as JSON values, with the precision of this machine.

        Stores and jobs compare these facts before they reuse a score.
        """
        facts = {name: _as_json(value) for name, value in vars(self).items() if name not in _ONLY_TIME}
        return {**facts, "dtype": self.precision}

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_devices(self) -> None:
        devices = self.devices
        if devices is None:
            return
        is_list = isinstance(devices, (list, tuple)) and all(isinstance(name, str) and name for name in devices)
        if devices != "all" and not (is_list and devices):
            raise InputError(f"devices is 'all', a list of devices' names, at least one, or None, got {devices!r}")
        if self.device is not None:
            raise InputError(
                f"device={self.device!r} and devices={devices!r} exclude each other: leave one of them out"
            )
        if self.backend != "torch":
            raise InputError(f"devices={devices!r} is for backend='torch', got it with backend={self.backend!r}")
        if is_list:
            self._set("devices", tuple(devices))

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
                "calibration is a list of (query, text) pairs of strings, at least one, "
                f"got {str(pairs)[:60]!r} of type {type(pairs).__name__}"
            )
        if self.dtype != "int8":
            raise InputError(f"calibration is for dtype='int8', got dtype={self.dtype!r}: leave calibration out")
        self._set("calibration", tuple((query, text) for query, text in pairs))


def _as_json(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return Digest.of_pairs(value).digest if isinstance(value, tuple) else value
