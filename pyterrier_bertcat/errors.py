"""The errors that a user can cause, each also the builtin that a caller expects; and the range checks of options."""

# BertCatError
# ├── InputError           (ValueError)       a frame, option or text that can't be used
# ├── CheckpointError      (OSError)          weights, config or tokenizer missing, damaged or foreign
# ├── ScoreError           (ArithmeticError)  the model gave a score that is not finite
# ├── PairTooLargeError    (MemoryError)      one pair alone does not fit in the device's memory
# ├── StoreError           (OSError)          a score store that is locked, damaged, full or not to be written
# ├── WorkerError          (RuntimeError)     the processes that score on several devices have all ended
# ├── TrainingDataError    (ValueError)       nothing, or not enough, to train on
# └── MissingExtraError    (ImportError)      an optional dependency is not installed

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice
from typing import Any


class BertCatError(Exception):
    """Base of every error that this package raises on purpose.

    Example:
        >>> from pyterrier_bertcat import BertCatError, BertCatReRanker
        >>> try:
        ...     BertCatReRanker("no/such/model").load()
        ... except BertCatError as error:
        ...     print(type(error).__name__)
        CheckpointError
    """


class InputError(BertCatError, ValueError):
    """A frame, option or text that can't be used; the message names what, how many and which.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, InputError
        >>> try:
        ...     BertCatReRanker("mini", batch_size=0)
        ... except InputError as error:
        ...     print(error)
        batch_size is a whole number of at least 1, got 0
    """


class CheckpointError(BertCatError, OSError):
    """A checkpoint that is missing, damaged or of another kind; the message names the file, key or shape.

    Example:
        >>> from pyterrier_bertcat import CheckpointError, load_checkpoint
        >>> try:
        ...     load_checkpoint("no-such-folder/")
        ... except CheckpointError as error:
        ...     print(error)
        expected a folder or a hub name like 'owner/model', got 'no-such-folder/': no such folder
    """


class ScoreError(BertCatError, ArithmeticError):
    """The model gave a score that is not finite; the message names the pair.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import BertCatReRanker, ScoreError, load_checkpoint
        >>> diverged = load_checkpoint("mini")  # as after a training with too high a learning rate
        >>> _ = torch.nn.init.constant_(diverged.model._classification_layer.bias, float("nan"))
        >>> try:
        ...     BertCatReRanker(diverged, device="cpu").scorer.score(["copy a folder"], ["Copy a file."])
        ... except ScoreError as error:
        ...     print(str(error).partition(";")[0])
        the score of pair 0 is nan, not a number to rank by
    """


class PairTooLargeError(BertCatError, MemoryError):
    """A single pair does not fit in the device's memory, so no smaller batch can help.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, PairTooLargeError
        >>> bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
        >>> def score(queries, texts):
        ...     try:
        ...         return bertcat.scorer.score(queries, texts)
        ...     except PairTooLargeError:
        ...         bertcat.max_length //= 2  # and so a new scorer
        ...         return score(queries, texts)
        >>> score(["copy a folder"], ["Copy a file."]).shape
        (1,)
    """


class StoreError(BertCatError, OSError):
    """A score store can't be read or written; the message names the file, what is wrong and how to go on.

    Example:
        >>> from pathlib import Path
        >>> from pyterrier_bertcat import ScoreStore, StoreError
        >>> _ = Path("notes.txt").write_text("no store")
        >>> try:
        ...     ScoreStore("other.scores").merge("notes.txt")
        ... except StoreError as error:
        ...     print("not merged")
        not merged
    """


class WorkerError(BertCatError, RuntimeError):
    """No process is left, of those that score on several devices, or a fork has no threads for OpenVINO.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker, WorkerError
        >>> bertcat = BertCatReRanker("mini", devices=["cpu", "cpu"], verbose=False)
        >>> def rerank(frame):
        ...     try:
        ...         return bertcat(frame)
        ...     except WorkerError:
        ...         return bertcat(frame)  # new processes are started
    """


class TrainingDataError(BertCatError, ValueError):
    """The topics, qrels or teacher scores leave nothing, or not enough, to train on.

    Example:
        >>> import pandas as pd
        >>> from pyterrier_bertcat import BertCatReRanker, TrainingDataError
        >>> candidates = pd.DataFrame([["1", "copy a folder", "d1", "Copy a file."]])
        >>> candidates.columns = ["qid", "query", "docno", "text"]
        >>> qrels_of_others = pd.DataFrame({"qid": ["2"], "docno": ["d1"], "label": [1]})
        >>> try:
        ...     BertCatReRanker("mini", verbose=False).fit(candidates, qrels_of_others)
        ... except TrainingDataError as error:
        ...     print(str(error).partition(":")[0])
        the qrels judge other queries
    """


class TruncationWarning(UserWarning):
    """More than a hundredth of a run's pairs were cut.

    Example:
        >>> import warnings
        >>> from pyterrier_bertcat import TruncationWarning
        >>> warnings.simplefilter("ignore", TruncationWarning)  # where it is meant
    """


class MissingExtraError(BertCatError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it.

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
        return _missing_extra, self._arguments  # pickled as it was made: it comes back from joblib and Ray


def _missing_extra(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(package, extra=extra)


def whole_number(name: str, value: object, *, at_least: int = 1, or_none: bool = False) -> None:
    """Refuses an option that is not a whole number in its range.

    Args:
        name: Of the option, for the message.
        value: What came. ``True`` is no number here, and neither is ``2.0``.
        at_least: The smallest value allowed.
        or_none: Whether None is allowed too.

    Raises:
        InputError: The value is something else.
    """
    if not (or_none and value is None) and (type(value) is not int or value < at_least):
        none = " or None" if or_none else ""
        raise InputError(f"{name} is a whole number of at least {at_least}{none}, got {value!r}")


def one_of(name: str, value: object, choices: Collection[object]) -> None:
    """Refuses an option that is not among its choices.

    Raises:
        InputError: The value is something else; the message lists the choices.
    """
    if value not in choices:
        raise InputError(f"{name} is one of {', '.join(map(repr, choices))}, got {value!r}")


def some_of(values: Collection[Any], *, most: int = 3, name: Callable[[Any], str] = repr) -> str:
    """Names the first few of many values for a message: ``'d1', 'd2', 'd3', …``."""
    return ", ".join(map(name, islice(values, most))) + (", …" if len(values) > most else "")
