"""Averaged weights: how they are computed, and that the model gets its own back."""

from contextlib import suppress

import pytest
import torch

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.training.averaging import AVERAGE_FILE, AveragedWeights


@pytest.fixture
def model():
    return torch.nn.Linear(1, 1, bias=False)


def set_weight(model, value):
    with torch.no_grad():
        model.weight.fill_(value)


def averaged(average, model):
    with average.in_model():
        return model.weight.item()


def test_an_update_moves_the_average_by_the_share(model):
    set_weight(model, 1.0)
    average = AveragedWeights(model, 0.25)
    set_weight(model, 5.0)
    average.update(step=1000)
    assert averaged(average, model) == 1.0 + 0.25 * (5.0 - 1.0)


def test_the_start_has_no_part_in_the_average_and_early_steps_soon_lose_theirs(model):
    set_weight(model, 1e6)
    average = AveragedWeights(model, 0.002)
    for step in range(1, 101):
        set_weight(model, float(step))
        average.update(step)
        if step == 1:
            assert averaged(average, model) == 1.0
    assert 85 < averaged(average, model) < 95  # about the last tenth of a hundred
    assert average.share_at(1) == 1
    assert average.share_at(10_000) == 0.002


def test_the_model_gets_its_own_weights_back_even_after_an_error(model):
    set_weight(model, 1.0)
    average = AveragedWeights(model, 0.5)
    set_weight(model, 3.0)
    seen = []
    with suppress(ZeroDivisionError), average.in_model():
        seen.append(model.weight.item())
        seen[0] / 0
    assert seen == [1.0]
    assert model.weight.item() == 3.0
    average.move_into_model()
    assert model.weight.item() == 1.0


def test_a_saved_average_is_read_back(model, tmp_path):
    average = AveragedWeights(model, 0.1)
    average.save(tmp_path)
    other = AveragedWeights(torch.nn.Linear(1, 1, bias=False), 0.1)
    other.load(tmp_path)
    other.move_into_model()
    assert torch.equal(other._model.weight, model.weight)


@pytest.mark.parametrize("content", [None, b"", b"nonsense" * 20])
def test_an_average_that_can_not_be_read_is_named(model, tmp_path, content):
    if content is not None:
        (tmp_path / AVERAGE_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"averaged.safetensors can't be read: .* Delete the folder"):
        AveragedWeights(model, 0.1).load(tmp_path)
