"""Attention within the pairs of a batch, in three ways.

All of them compute ``softmax(query · key / sqrt(head size)) · value`` within each pair, with PyTorch's own kernels.
They differ in how a batch lies in memory, and so in the kernel that they can use: packed (all pairs one after the
other, in one flat sequence of tokens), or padded.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

scaled_dot_product_attention = torch.nn.functional.scaled_dot_product_attention


class Attention(Protocol):
    """Attends within each pair of one batch, for one layer after the other.

    States are (tokens, hidden) in a packed batch, and (batch, length, hidden) in a padded one.
    """

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """Every token attends to its pair's tokens: three times states -> states."""
        ...

    def first_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """Picks each pair's first token: states -> (batch, hidden)."""
        ...

    def of_first_tokens(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """Only the first tokens attend: (batch, hidden) and twice states -> (batch, hidden)."""
        ...


class EqualLengthAttention:
    """Neighbours of equal length share a call: no padding and no copies. For CPUs, where a call costs little."""

    def __init__(self, lengths: NDArray[np.int64]) -> None:
        """Finds the neighbours by the tokens of each pair, int64 (batch,); sorted pairs make the fewest calls."""
        self._first = torch.from_numpy(np.cumsum(lengths) - lengths)  # int64 (batch,)
        starts = np.flatnonzero(np.diff(lengths, prepend=-1))
        self._rows = np.diff(starts, append=len(lengths)).tolist()  # of each group
        self._tokens = [rows * length for rows, length in zip(self._rows, lengths[starts].tolist(), strict=True)]

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return self._attend(torch.split(query, self._tokens), key, value, heads)

    def first_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        return states.index_select(0, self._first)

    def of_first_tokens(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return self._attend(torch.split(query, self._rows), key, value, heads)

    def _attend(
        self, queries: tuple[torch.Tensor, ...], key: torch.Tensor, value: torch.Tensor, heads: int
    ) -> torch.Tensor:
        keys, values = torch.split(key, self._tokens), torch.split(value, self._tokens)
        contexts = []
        for *group, rows in zip(queries, keys, values, self._rows, strict=True):
            # Three times (rows, positions, hidden), without copying
            of_query, of_key, of_value = (states.view(rows, -1, states.shape[-1]) for states in group)
            contexts.append(_attend(of_query, of_key, of_value, heads).flatten(0, 1))
        return torch.cat(contexts)


class PaddedAttention:
    """Each pair is padded to the longest, and a mask hides the pads. Works on every device."""

    def __init__(self, attention_mask: torch.Tensor) -> None:
        """Keeps the mask, int64 (batch, length), 1 for tokens and 0 for pads."""
        self._visible = attention_mask[:, None, None, :].bool()  # (batch, heads, query positions, key positions)

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return _attend(query, key, value, heads, self._visible)

    def first_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        return states[:, 0]

    def of_first_tokens(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return self(query[:, None], key, value, heads)[:, 0]  # of one query position per pair


class VariableLengthAttention:
    """PyTorch's flash attention over a packed sequence: no padding, one call a layer. For CUDA in half precision."""

    def __init__(self, lengths: NDArray[np.int64], device: torch.device) -> None:
        """Copies the pairs' borders to the device; ``lengths`` is int64 (batch,), tokens of each pair."""
        borders = torch.zeros(len(lengths) + 1, dtype=torch.int32)
        borders[1:] = torch.from_numpy(np.cumsum(lengths))
        self._borders = on_device(borders, device)
        self._first = self._borders[:-1]
        self._first_borders = torch.arange(len(lengths) + 1, dtype=torch.int32, device=device)
        self._longest = int(lengths.max())

    def __call__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return self._attend(query, key, value, heads, self._borders, self._longest)

    def first_tokens(self, states: torch.Tensor) -> torch.Tensor:
        """See `Attention`."""
        return states.index_select(0, self._first)

    def of_first_tokens(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
        """See `Attention`."""
        return self._attend(query, key, value, heads, self._first_borders, 1)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        heads: int,
        query_borders: torch.Tensor,
        most_queries: int,
    ) -> torch.Tensor:
        from torch.nn.attention.varlen import varlen_attn  # torch 2.10 and later

        # Three times (tokens, heads, head size)
        query, key, value = (states.view(len(states), heads, -1) for states in (query, key, value))
        context: Any = varlen_attn(query, key, value, query_borders, self._borders, most_queries, self._longest)
        return torch.flatten(context, 1)  # (query tokens, hidden)


def variable_length_works(device: torch.device, dtype: torch.dtype, *, head_size: int) -> bool:
    """Whether `VariableLengthAttention` runs here and gives the same as padding, tried on a few numbers.

    ``head_size`` is the encoder's: flash attention takes multiples of 8 only, and not every size of those.
    """
    if device.type != "cuda" or dtype == torch.float32:
        return False
    lengths = np.array([5, 3], dtype=np.int64)
    states = torch.linspace(-1, 1, 8 * head_size, dtype=torch.float32).reshape(8, head_size).sin().to(device, dtype)
    expected = torch.cat([_attend(part[None], part[None], part[None], 1)[0] for part in torch.split(states, [5, 3])])
    try:
        attention = VariableLengthAttention(lengths, device)
        got = attention(states, states, states, 1)
        first = attention.of_first_tokens(attention.first_tokens(states), states, states, 1)
        return torch.allclose(got, expected, atol=2e-2) and torch.allclose(first, expected[[0, 5]], atol=2e-2)
    except (ImportError, NotImplementedError, RuntimeError, TypeError):  # torch's, the GPU's or its driver's limits
        return False


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies to a device. For CUDA, page-locked memory lets the caller continue at once."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int, visible: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention of pairs that are equally long: three times (rows, positions, hidden) -> as the query's."""
    # Three times (rows, heads, positions, head size), as views
    query, key, value = (
        states.view(states.shape[0], states.shape[1], heads, -1).transpose(1, 2) for states in (query, key, value)
    )
    context = scaled_dot_product_attention(query, key, value, attn_mask=visible)
    return context.transpose(1, 2).flatten(2)
