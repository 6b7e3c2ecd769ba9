from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyterrier_bertcat.scoring.backends import attention
from pyterrier_bertcat.scoring.backends.attention import (
    EqualLengthAttention,
    PaddedAttention,
    VariableLengthAttention,
    variable_length_works,
)

pytestmark = pytest.mark.precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HEADS, SIZE = 4, 8
some_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=10)


def by_definition(query, key, value, query_lengths, lengths) -> torch.Tensor:
    """softmax(q · k / sqrt(d)) · v, pair by pair and head by head."""
    contexts = []
    parts = zip(query.split(query_lengths), key.split(lengths), value.split(lengths), strict=True)
    for q, k, v in parts:
        heads = zip(*(states.split(SIZE, dim=1) for states in (q, k, v)), strict=True)
        contexts.append(torch.cat([(a @ b.T / SIZE**0.5).softmax(-1) @ c for a, b, c in heads], dim=1))
    return torch.cat(contexts)


def states(lengths, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), HEADS * SIZE, generator=generator) for _ in range(3)]


def varlen_attn_by_definition(query, key, value, query_borders, borders, longest_query, longest):
    """What torch's operator is documented to compute, for machines without a GPU."""
    query_lengths, lengths = query_borders.diff().tolist(), borders.diff().tolist()
    assert (max(query_lengths), max(lengths)) == (longest_query, longest)
    context = by_definition(query.flatten(1), key.flatten(1), value.flatten(1), query_lengths, lengths)
    return context.unflatten(1, (HEADS, SIZE))


@pytest.fixture
def varlen_attn(monkeypatch):
    """Puts the definition in the place of torch's operator, which needs a GPU."""
    module = types.ModuleType("torch.nn.attention.varlen")
    module.varlen_attn = varlen_attn_by_definition
    monkeypatch.setitem(sys.modules, module.__name__, module)


def check(make, lengths):
    query, key, value = states(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    attend = make(np.array(lengths))
    expected = by_definition(query, key, value, lengths, lengths)
    torch.testing.assert_close(attend(query, key, value, HEADS), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(attend.first_tokens(query), query[starts], rtol=0, atol=0)
    first = attend.of_first_tokens(query[starts], key, value, HEADS)
    torch.testing.assert_close(first, expected[starts], rtol=0, atol=1e-5)


@given(some_lengths)
def test_neighbours_of_equal_length_attend_within_their_pairs(lengths):
    check(EqualLengthAttention, lengths)
    check(EqualLengthAttention, sorted(lengths))


@given(some_lengths)
def test_padded_pairs_attend_within_their_tokens(lengths):
    query, key, value = states(lengths)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]  # (batch, length)

    def spread(packed):
        rectangle = torch.full((*mask.shape, HEADS * SIZE), 7.0)  # whatever stands in the pads
        rectangle[mask] = packed
        return rectangle

    attend = PaddedAttention(mask.long())
    context = attend(*map(spread, (query, key, value)), HEADS)
    expected = by_definition(query, key, value, lengths, lengths)
    torch.testing.assert_close(context[mask], expected, rtol=0, atol=1e-5)
    first = attend.of_first_tokens(attend.first_tokens(spread(query)), spread(key), spread(value), HEADS)
    torch.testing.assert_close(first, context[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [[5], [3, 9, 1], [4, 4, 2]])
def test_the_packed_operator_gets_the_borders_of_the_pairs(varlen_attn, lengths):
    check(lambda numbers: VariableLengthAttention(numbers, CPU), lengths)


def test_the_packed_operator_is_for_half_precision_on_cuda_only(monkeypatch):
    assert not variable_length_works(CPU, torch.float16, head_size=64)
    assert not variable_length_works(CUDA, torch.float32, head_size=64)


@pytest.mark.parametrize("error", [ImportError, NotImplementedError, RuntimeError, TypeError])
def test_a_gpu_or_pytorch_without_the_operator_goes_without(monkeypatch, error):
    def refuse(*arguments):
        raise error

    monkeypatch.setattr(torch.Tensor, "to", lambda self, *arguments, **options: self)  # there is no GPU to go to
    monkeypatch.setattr(attention.VariableLengthAttention, "__init__", refuse)
    assert not variable_length_works(CUDA, torch.float16, head_size=64)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("head_size", [8, 26, 64])
def test_the_operator_is_used_for_the_head_sizes_that_it_takes(head_size):
    """On an H200, flash attention refused heads of 26, which TinyBERT has."""
    assert variable_length_works(CUDA, torch.float16, head_size=head_size) == (head_size % 8 == 0)
