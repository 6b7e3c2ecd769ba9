"""What a scoring run did and what it cost."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from pyterrier_bertcat.errors import TruncationWarning

if TYPE_CHECKING:
    from pyterrier_bertcat.pairs.passages import Passages

_SHARE_WARNED = 0.01


@dataclass
class RunStatistics:
    """Figures of one call, filled in while it runs.

    Attributes:
        pairs: Pairs in the input.
        from_store: Pairs whose scores came from a store; what follows is of the others.
        truncated_in_store: How many pairs, of all that were ever scored into that store with these settings, were cut.
        distinct_pairs: Different ones among them; each was scored once.
        rows: What the model read: pairs, or queries with passages where documents are cut into those.
        tokens: Tokens of these rows, special ones counted, pads not.
        padding_share: Pads per token or pad that the model read, 0 to 1.
        truncated_pairs: Pairs of the input of which something was cut off.
        tokens_lost: Tokens that were cut off, in all pairs of the input.
        seconds: From the first to the last, everything counted.
        tokenising_seconds: In tokenising and making batches; beside the scoring where windows follow one another.
        scoring_seconds: In the model.
        peak_memory_mb: The most memory that this process has had so far, in MB: on a GPU its tensors there, else all
            memory; None where the system does not tell.
        device: Where it ran.
        dtype: Precision of the encoder.
        batch_tokens: The most tokens per batch, at the end.
        back_offs: How often a batch did not fit in memory and was made smaller.

    Example:
        >>> from pyterrier_bertcat import BertCatReRanker
        >>> bertcat = BertCatReRanker("mini", max_length=16, device="cpu", verbose=False)
        >>> texts = ["Copy a file.", "Copy a file. " * 10]
        >>> _ = bertcat.scorer.score(["copy a folder"] * 2, texts)
        >>> statistics = bertcat.scorer.statistics  # of frames: bertcat.stats
        >>> statistics.truncated_pairs, statistics.tokens_lost
        (1, 30)
    """

    pairs: int = 0
    from_store: int = 0
    truncated_in_store: int = 0
    distinct_pairs: int = 0
    rows: int = 0
    tokens: int = 0
    padding_share: float = 0.0
    truncated_pairs: int = 0
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
        """Adds the time in the block to a figure of seconds; each figure belongs to one thread at a time."""
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
        """The share of the pairs, those from a store aside, of which something was cut off, 0 to 1."""
        scored = self.pairs - self.from_store
        return self.truncated_pairs / scored if scored else 0.0

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


def warn_of_truncation(statistics: RunStatistics, *, passages: Passages | None, stacklevel: int) -> None:
    """Warns where more than 1 % of the pairs were cut, or may have been when a store got their scores.

    Args:
        statistics: Of the run.
        passages: As the pairs were scored; those that read the first passage only are meant to leave text out.
        stacklevel: As of `warnings.warn`, from the caller.
    """
    if passages is not None and passages.aggregate == "first":
        return
    if passages is None:
        way_out = "passages=Passages() scores documents whole"
    else:
        way_out = "these are queries that leave a passage too little room, see max_query_length"
    if statistics.truncated_share > _SHARE_WARNED:
        warnings.warn(
            f"{statistics.truncated_pairs} of {statistics.pairs - statistics.from_store} pairs were too long and lost "
            f"{statistics.tokens_lost} tokens: {way_out}",
            TruncationWarning,
            stacklevel=stacklevel + 1,
        )
    if statistics.from_store and statistics.truncated_in_store > _SHARE_WARNED * statistics.from_store:
        warnings.warn(
            f"{statistics.from_store} scores came from the store, where {statistics.truncated_in_store} are of pairs "
            f"that were too long, perhaps some of these: {way_out}",
            TruncationWarning,
            stacklevel=stacklevel + 1,
        )


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
