"""The errors a user can cause. Each is also the builtin that a caller would expect."""

# BertCatError
# ├── InputError           (ValueError)       a frame, option or text that can't be used
# ├── CheckpointError      (OSError)          weights, config or tokenizer missing, damaged or foreign
# ├── ScoreError           (ArithmeticError)  the model gave a score that is not finite
# ├── PairTooLargeError    (MemoryError)      one pair alone does not fit in the device's memory
# ├── TrainingDataError    (ValueError)       nothing, or not enough, to train on
# └── MissingExtraError    (ImportError)      an optional dependency is not installed

from __future__ import annotations

from collections.abc import Callable


class BertCatError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(BertCatError, ValueError):
    """A frame, option or text that can't be used; the message names what, how many and which."""


class CheckpointError(BertCatError, OSError):
    """A checkpoint that is missing, damaged or of another kind; the message names the file, key or shape."""


class ScoreError(BertCatError, ArithmeticError):
    """The model gave a score that is not finite; the message names the pair."""


class PairTooLargeError(BertCatError, MemoryError):
    """A single pair does not fit in the device's memory, so no smaller batch can help."""


class TrainingDataError(BertCatError, ValueError):
    """The topics, qrels or teacher scores leave nothing, or not enough, to train on."""


class MissingExtraError(BertCatError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(
            f"{package!r} is needed for this and is not installed: pip install 'pyterrier-bertcat[{extra}]'"
        )
        self._arguments = package, extra

    def __reduce__(self) -> tuple[Callable[..., MissingExtraError], tuple[str, str]]:
        return _missing_extra, self._arguments  # pickled as it was made: it comes back from joblib and Ray


def _missing_extra(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(package, extra=extra)
