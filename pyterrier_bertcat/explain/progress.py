"""The progress bar of explanations: it counts how often the model computes a pair, whichever the method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyterrier as pt

_BAR_DELAY_S = 1.0  # most explanations are short, and must not flash a bar


class Progress:
    """Counts what the model computes, for a progress bar that appears after a second."""

    def __init__(self, bar: Any = None) -> None:
        """Takes a tqdm bar, or None to count for nobody."""
        self._bar = bar

    @classmethod
    @contextmanager
    def shown(cls, verbose: bool, *, total: int) -> Iterator[Progress]:
        """A progress bar around a block, if ``verbose``."""
        if not verbose:
            yield cls()
            return
        with pt.tqdm(total=total, desc="explaining", unit="pair", delay=_BAR_DELAY_S) as bar:
            yield cls(bar)

    def expect(self, pairs: int) -> None:
        """Adds pairs that are to be computed besides those that were expected."""
        if self._bar is None:
            return
        self._bar.total += pairs
        if hasattr(self._bar, "container"):  # a notebook's bar, which looks at the total only when it is made
            self._bar.container.children[1].max = self._bar.total

    def done(self, pairs: int) -> None:
        """Counts pairs that the model has computed."""
        if self._bar is not None:
            self._bar.update(pairs)
