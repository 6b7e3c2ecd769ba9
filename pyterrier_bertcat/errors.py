"""The errors that this package raises, each of which is also a builtin error; range checks of options; and warnings."""

# BertCatError
# ├── InputError           (ValueError)       a frame, option or text can't be used
# ├── CheckpointError      (OSError)          weights, config or tokenizer are missing, damaged or of another kind
# ├── ScoreError           (ArithmeticError)  the model gave a score that is not finite
# ├── PairTooLargeError    (MemoryError)      a single pair does not fit in the device's memory
# ├── StoreError           (OSError)          a score store is locked, damaged, full or read-only
# ├── WorkerError          (RuntimeError)     all processes that score on several devices have ended
# ├── TrainingDataError    (ValueError)       there is nothing, or not enough, to train on
# └── MissingExtraError    (ImportError)      an optional dependency is not installed
#
# TruncationWarning        (UserWarning)      many pairs were cut

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection
from itertools import islice
from types import FrameType
from typing import Any

# Whose frames may stand between this package and the line that a user wrote.
_CALLED_THROUGH = frozenset({"pyterrier", "pyterrier_alpha", "pyterrier_caching", "pandas"})


class BertCatError(Exception):
    """Base of every error that this package raises on purpose.

    Example:
        >>> from pyterrier_bertcat import BertCatError, load_checkpoint
        >>> try:
        ...     load_checkpoint("no-such-folder/")
        ... except BertCatError as error:
        ...     print(type(error).__name__)
        CheckpointError
    """


class InputError(BertCatError, ValueError):
    """A frame, option or text can't be used; the message says which one, and how many rows are affected.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> BertCatReRanker("mini", batch_size=0)
        Traceback (most recent call last):
        pyterrier_bertcat.errors.InputError: batch_size is a whole number of at least 1, got 0
    """


class CheckpointError(BertCatError, OSError):
    """A checkpoint is missing, damaged or of another kind; the message names the file, key or shape.

    Example:
        >>> from pyterrier_bertcat import load_checkpoint
        >>> load_checkpoint("no-such-folder/")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pyterrier_bertcat.errors.CheckpointError: expected a folder ..., got 'no-such-folder/': no such folder
    """


class ScoreError(BertCatError, ArithmeticError):
    """The model gave a score that is not finite; the message names the pair.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import BertCatReRanker, load_checkpoint
        >>> diverged = load_checkpoint("mini")  # as after a training with too high a learning rate
        >>> _ = torch.nn.init.constant_(diverged.model._classification_layer.bias, float("nan"))
        >>> BertCatReRanker(diverged, device="cpu").scorer.score(["a query"], ["a text"])  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pyterrier_bertcat.errors.ScoreError: the score of pair 0 is nan, not a number to rank by...
    """


class PairTooLargeError(BertCatError, MemoryError):
    """A single pair does not fit in the device's memory, so no smaller batch can help.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, PairTooLargeError
        >>> bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
        >>> try:
        ...     scores = bertcat.scorer.score(["copy a folder"], ["Copy a file."])
        ... except PairTooLargeError:
        ...     bertcat.max_length = 128  # then try again
    """


class StoreError(BertCatError, OSError):
    """A score store can't be read or written; the message names the file, the fault and the remedy.

    Example:
        >>> from pathlib import Path
        >>> from pyterrier_bertcat import ScoreStore
        >>> _ = Path("notes.txt").write_text("no store")
        >>> ScoreStore("other.scores").merge("notes.txt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pyterrier_bertcat.errors.StoreError: ...
    """


class WorkerError(BertCatError, RuntimeError):
    """Worker processes could not start or have all ended, or OpenVINO is used in a fork of the process that loaded it.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, WorkerError
        >>> bertcat = BertCatReRanker("mini", devices=["cpu", "cpu"], verbose=False)
        >>> def rerank(frame):
        ...     try:
        ...         return bertcat(frame)
        ...     except WorkerError:
        ...         return bertcat(frame)  # this starts new processes
    """


class TrainingDataError(BertCatError, ValueError):
    """The topics, qrels or teacher scores leave nothing, or not enough, to train on.

    Example:
        >>> import pandas as pd
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> candidates = pd.DataFrame({"qid": ["1"], "query": "copy a folder", "docno": "d1", "text": "Copy a file."})
        >>> qrels_of_others = pd.DataFrame({"qid": ["2"], "docno": ["d1"], "label": [1]})
        >>> BertCatReRanker("mini", verbose=False).fit(candidates, qrels_of_others)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        pyterrier_bertcat.errors.TrainingDataError: the qrels judge other queries: ...
    """


class TruncationWarning(UserWarning):
    """More than one in a hundred pairs of a run were cut.

    Example:
        >>> import warnings
        >>> from pyterrier_bertcat import TruncationWarning
        >>> warnings.simplefilter("ignore", TruncationWarning)  # if you want them cut
    """


class MissingExtraError(BertCatError, ImportError):
    """An optional dependency is not installed; the message says which extra installs it.

    Example:
        >>> from pyterrier_bertcat import MissingExtraError
        >>> print(MissingExtraError("openvino", extra="openvino"))
        'openvino' is needed for this and is not installed: pip install 'pyterrier-bertcat[openvino]'
    """

    def __init__(self, package: str, *, extra: str) -> None:
        super().__init__(
            f"{package!r} is needed for this and is not installed: pip install 'pyterrier-bertcat[{extra}]'"
        )
        self._arguments = package, extra

    def __reduce__(self) -> tuple[Callable[..., MissingExtraError], tuple[str, str]]:
        return _missing_extra, self._arguments  # so that it comes back whole from joblib and Ray


def _missing_extra(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(package, extra=extra)


def whole_number(name: str, value: object, *, at_least: int = 1, or_none: bool = False) -> None:
    """Refuses an option that is not a whole number in its range.

    Args:
        name: The option's name, for the message.
        value: The option's value. ``True`` and ``2.0`` don't count as whole numbers.
        at_least: The smallest value allowed.
        or_none: Whether None is allowed too.

    Raises:
        InputError: The value is something else.
    """
    if not (or_none and value is None) and (type(value) is not int or value < at_least):
        none = " or None" if or_none else ""
        raise InputError(f"{name} is a whole number of at least {at_least}{none}, got {value!r}")


def one_of(name: str, value: object, choices: Collection[object]) -> None:
    """Refuses an option that is not among its choices, with an `InputError` that lists them."""
    if value not in choices:
        raise InputError(f"{name} is one of {', '.join(map(repr, choices))}, got {value!r}")


def warn(message: str, category: type[Warning], *, stacklevel: int) -> None:
    """Warns as ``warnings.warn`` does, but never at a line of PyTerrier, which calls transformers for the user.

    Args:
        message: What to say.
        category: The class of the warning.
        stacklevel: The frame to warn at, counted from the caller, which is 1. If it is one of PyTerrier's, the first
            frame behind it that is not.
    """
    frame, level = sys._getframe(), 1
    while (behind := frame.f_back) is not None and (level <= stacklevel or _package(frame) in _CALLED_THROUGH):
        frame, level = behind, level + 1
    warnings.warn(message, category, stacklevel=level)


def _package(frame: FrameType) -> str:
    name: str = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def some_of(values: Collection[Any], *, most: int = 3, name: Callable[[Any], str] = repr) -> str:
    """Names the first few of many values for a message: ``'d1', 'd2', 'd3', …``."""
    return ", ".join(map(name, islice(values, most))) + (", …" if len(values) > most else "")
