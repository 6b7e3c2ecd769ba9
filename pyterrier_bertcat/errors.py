"""The errors a user can cause. Each is also the builtin that a caller would expect."""

# BertCatError
# ├── InputError           (ValueError)       a frame, option or text that can't be used
# ├── CheckpointError      (OSError)          weights, config or tokenizer missing, damaged or foreign
# ├── ScoreError           (ArithmeticError)  the model gave a score that is not finite
# ├── PairTooLargeError    (MemoryError)      one pair alone does not fit in the device's memory
# ├── WorkerError          (RuntimeError)     the processes that score on several devices have all ended
# ├── TrainingDataError    (ValueError)       nothing, or not enough, to train on
# └── MissingExtraError    (ImportError)      an optional dependency is not installed

from __future__ import annotations


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


class WorkerError(BertCatError, RuntimeError):
    """No process is left, of those that score on several devices; the message says how each of them ended."""


class TrainingDataError(BertCatError, ValueError):
    """The topics, qrels or teacher scores leave nothing, or not enough, to train on."""


class MissingExtraError(BertCatError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(
            f"{package!r} is needed for this and is not installed: pip install 'pyterrier-bertcat[{extra}]'"
        )
