from __future__ import annotations

import pytest
import torch

from pyterrier_bertcat.scoring.backends import fused_linear
from pyterrier_bertcat.scoring.backends.fused_linear import FusedLinear, OneDnnLinear, fastest_linear

pytestmark = pytest.mark.precision

CPU, GELU = torch.device("cpu"), torch.nn.functional.gelu


@pytest.mark.parametrize("rows", [1, 7, 2000])
@pytest.mark.parametrize("bias", [True, False])
def test_both_ways_give_what_separate_operators_give(rows, bias):
    torch.manual_seed(0)
    layer = torch.nn.Linear(48, 32, bias=bias)
    states, residual = torch.randn(rows, 48), torch.randn(rows, 32)
    kept = residual.clone()
    with torch.inference_mode():
        for activation in (None, GELU, torch.tanh):
            expected = layer(states) if activation is None else activation(layer(states))
            for kind in (FusedLinear, fastest_linear(CPU, torch.float32)):
                linear = kind(layer, activation)
                torch.testing.assert_close(linear(states), expected, rtol=0, atol=1e-5)
                torch.testing.assert_close(linear.plus(states, residual), layer(states) + residual, rtol=0, atol=1e-5)
    assert torch.equal(residual, kept)


def test_finding_the_fastest_takes_no_random_numbers():
    state = torch.get_rng_state()
    fastest_linear(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_pytorch_without_the_operators_is_used_as_it_is(monkeypatch):
    class Without(OneDnnLinear):
        def __init__(self, layer, activation=None):
            torch.ops.mkldnn._no_such_operator(layer.weight)

    monkeypatch.setattr(fused_linear, "OneDnnLinear", Without)
    assert fastest_linear(CPU, torch.float32) is FusedLinear


def test_operators_that_give_something_else_are_not_used(monkeypatch):
    class Wrong(OneDnnLinear):
        def plus(self, states, residual):
            return super().plus(states, residual) + 1

    monkeypatch.setattr(fused_linear, "OneDnnLinear", Wrong)
    assert fastest_linear(CPU, torch.float32) is FusedLinear


@pytest.mark.parametrize(("device", "dtype"), [("cuda", torch.float32), ("mps", torch.float32), ("cpu", torch.float16)])
def test_other_devices_and_precisions_use_ordinary_operators(device, dtype):
    assert fastest_linear(torch.device(device), dtype) is FusedLinear
