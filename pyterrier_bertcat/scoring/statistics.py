"""What a scoring run did and what it cost, and the one wording of the warning about pairs that were cut."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pyterrier_bertcat.errors import TruncationWarning

if TYPE_CHECKING:
    from pyterrier_bertcat.pairs.passages import Passages

_SHARE_WARNED = 0.01


@dataclass
class RunStatistics:
    """Figures of one call, filled in while it runs.

    Attributes:
        pairs: Pairs in the input.
        from_store: Pairs whose scores came from a store.
        distinct_pairs: Different pairs among the others. Each was scored once.
        rows: Rows that the model read: pairs, or queries with passages.
        tokens: Tokens of these rows, special tokens included, padding not.
        padding_share: Padding as a share of all that the model read, 0 to 1.
        truncated_pairs: Pairs of the input whose query or text was cut, those from a store included.
        truncated_queries: Pairs whose query was cut.
        truncated_texts: Pairs whose text was cut.
        tokens_lost: Tokens that were cut off, in all pairs that were scored now.
        seconds: From start to end, everything included.
        tokenising_seconds: Spent on tokens and batches. Large inputs are tokenised while others are scored.
        scoring_seconds: Spent in the model.
        peak_memory_mb: The most memory this process has used so far, in MB: on a GPU its tensors there, elsewhere all
            memory. None if the system does not tell.
        device: Where it ran.
        dtype: Precision of the encoder.
        batch_tokens: The most tokens per batch, at the end.
        back_offs: How often a batch did not fit in memory and was made smaller.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> bertcat = BertCatReRanker("mini", max_length=16, device="cpu", verbose=False)
        >>> texts = ["Copy a file.", "Copy a file. " * 10]
        >>> _ = bertcat.scorer.score(["copy a folder"] * 2, texts)
        >>> statistics = bertcat.scorer.stats  # of frames: bertcat.stats
        >>> statistics.truncated_pairs, statistics.tokens_lost
        (1, 30)
    """

    pairs: int = 0
    from_store: int = 0
    distinct_pairs: int = 0
    rows: int = 0
    tokens: int = 0
    padding_share: float = 0.0
    truncated_pairs: int = 0
    truncated_queries: int = 0
    truncated_texts: int = 0
    tokens_lost: int = 0
    seconds: float = 0.0
    tokenising_seconds: float = 0.0
    scoring_seconds: float = 0.0
    peak_memory_mb: float | None = None
    device: str = ""
    dtype: str = ""
    batch_tokens: int = 0
    back_offs: int = 0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes to a figure of seconds. One thread at a time may use a figure."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    @property
    def pairs_per_second(self) -> float:
        """Pairs of the input per second, 0 where there were none."""
        return self.pairs / self.seconds if self.seconds else 0.0

    @property
    def truncated_share(self) -> float:
        """The share of the pairs whose query or text was cut, 0 to 1."""
        return self.truncated_pairs / self.pairs if self.pairs else 0.0

    def count_cut(self, cut: NDArray[np.bool_]) -> None:
        """Counts pairs by what was cut of them: bool (2, n), whether each query and each text was."""
        self.truncated_queries += int(cut[0].sum())
        self.truncated_texts += int(cut[1].sum())
        self.truncated_pairs += int(cut.any(axis=0).sum())

    def include(self, other: RunStatistics) -> None:
        """Adds another run's pairs, and counts what was cut of them, to these."""
        for name in ("pairs", "truncated_pairs", "truncated_queries", "truncated_texts"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def to_dataframe(self) -> pd.DataFrame:
        """One row, a column per figure: rows of several runs can be concatenated."""
        table: pd.DataFrame = pd.DataFrame([self._figures()])
        return table

    def __str__(self) -> str:
        return "\n".join(f"{name.replace('_', ' ')}: {_shown(value)}" for name, value in self._figures().items())

    def _repr_html_(self) -> str:
        table: pd.DataFrame = self.to_dataframe().map(_shown).T
        table.index = table.index.str.replace("_", " ")
        html: str = table.to_html(header=False)
        return html

    def _figures(self) -> dict[str, Any]:
        return {**asdict(self), "pairs_per_second": self.pairs_per_second, "truncated_share": self.truncated_share}


def truncation_message(
    statistics: RunStatistics,
    *,
    passages: Passages | None,
    texts_advice: str = "passages=Passages() scores documents whole",
) -> str | None:
    """Says how many pairs were cut and what helps; None if at most 1 % were.

    Args:
        statistics: Of the run.
        passages: How documents were cut into passages. ``aggregate="first"`` leaves text out on purpose.
        texts_advice: What helps texts that are too long.
    """
    cut = statistics
    if cut.truncated_share <= _SHARE_WARNED or (passages is not None and passages.aggregate == "first"):
        return None
    if not cut.truncated_texts or passages is not None:
        advice = "shorten the queries, or give them more room with max_query_length and max_length"
    else:
        advice = texts_advice
    return (
        f"{cut.truncated_pairs:,} of {cut.pairs:,} pairs were too long for the model and were cut "
        f"({cut.truncated_queries:,} queries, {cut.truncated_texts:,} texts): {advice}"
    )


def warn_of_truncation(statistics: RunStatistics, *, passages: Passages | None, stacklevel: int) -> None:
    """Warns with `truncation_message`, if it has something to say; ``stacklevel`` counts from the caller."""
    message = truncation_message(statistics, passages=passages)
    if message is not None:
        warnings.warn(message, TruncationWarning, stacklevel=stacklevel + 1)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
