"""Groups of row positions -> tensors for one step: padded batches of pairs, a grid of labels and teacher scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pyterrier_bertcat.data.order import Rows
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.planning import plan_batches


@dataclass(frozen=True)
class GroupCollator:
    """Turns some groups into one step's input.

    Args:
        pair_tokenizer: Tokenises pairs as the scoring engine does.
        queries: The query of each row of the training frame.
        passages: The passage of each row.
        labels: int64 (rows,).
        teacher: float32 (rows,), or None.
        batch_tokens: The most tokens, with padding, per forward pass. Several passes per step save padding, but no
            memory: the backward pass needs the activations of them all.
    """

    pair_tokenizer: PairTokenizer
    queries: Sequence[str]
    passages: Sequence[str]
    labels: npt.NDArray[np.int64]
    teacher: npt.NDArray[np.float32] | None
    batch_tokens: int

    def __call__(self, groups: Sequence[Rows]) -> dict[str, Any]:
        """One step's input.

        Returns:
            ``batches``: a list of model inputs, int64 (pairs, length). ``cells``: int64 (pairs of all batches,), the
            position of each pair in the flattened grid. ``labels``: int64 (queries, candidates), -1 is padding.
            ``teacher``: float32 (queries, candidates), if there is a teacher.
        """
        rows = np.concatenate(groups)
        width = max(len(group) for group in groups)
        # (pairs,): where each pair stands in the flattened (queries, candidates) grid
        cells = np.concatenate([query * width + np.arange(len(group)) for query, group in enumerate(groups)])
        pairs = self.pair_tokenizer.encode([self.queries[row] for row in rows], [self.passages[row] for row in rows])
        plan = plan_batches(pairs.lengths, batch_tokens=self.batch_tokens)
        grid = {"labels": torch.from_numpy(_spread(self.labels[rows], cells, (len(groups), width), empty=-1))}
        if self.teacher is not None:
            grid["teacher"] = torch.from_numpy(_spread(self.teacher[rows], cells, (len(groups), width), empty=0))
        return {
            "batches": [_tensors(pairs.batch(batch).padded()) for batch in plan],
            "cells": torch.from_numpy(cells[np.concatenate(plan)]),
            **grid,
        }


def _spread(values: npt.NDArray[Any], cells: npt.NDArray[np.int64], shape: tuple[int, int], *, empty: int) -> Any:
    grid = np.full(shape, empty, dtype=values.dtype)
    grid.flat[cells] = values
    return grid


def _tensors(batch: Any) -> dict[str, torch.Tensor]:
    arrays = {name: getattr(batch, name) for name in ("input_ids", "attention_mask", "token_type_ids")}
    return {name: torch.from_numpy(array) for name, array in arrays.items() if array is not None}
