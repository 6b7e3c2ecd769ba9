"""The average of a model's weights over the steps of a training, which is saved and resumed with the training's states.

An exponential moving average ranks better than the weights of any single step while the learning rate is still high.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pyterrier_bertcat.errors import InputError

AVERAGE_FILE = "averaged.safetensors"


class AveragedWeights:
    """The moving average of a model's parameters, on the model's device."""

    def __init__(self, model: torch.nn.Module, share: float) -> None:
        """Starts from the weights that the model has now.

        Args:
            model: Its parameters are read at each update, so it may be trained in place.
            share: How far an update moves the average to the new weights, above 0 and at most 1.
        """
        self._model = model
        self._share = share
        self._weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}

    def share_at(self, step: int) -> float:
        """The share at a step, counted from 1: all of the first one's weights, then less, but never below ``share``."""
        return max(self._share, 10 / (9 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights that the model has after this step, counted from 1."""
        share = self.share_at(step)
        for name, weight in self._model.named_parameters():
            self._weights[name].lerp_(weight, share)

    @torch.no_grad()
    def move_into_model(self) -> None:
        """Overwrites the model's weights with the average."""
        for name, weight in self._model.named_parameters():
            weight.copy_(self._weights[name])

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """The model has the averaged weights meanwhile, and afterwards its own again."""
        own = {name: weight.detach().clone() for name, weight in self._model.named_parameters()}
        self.move_into_model()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in self._model.named_parameters():
                    weight.copy_(own[name])

    def save(self, state: Path) -> None:
        """Writes the average into the folder of a saved state."""
        save_file({name: weight.contiguous() for name, weight in self._weights.items()}, state / AVERAGE_FILE)

    def load(self, state: Path) -> None:
        """Reads the average of a saved state.

        Raises:
            InputError: The state has none, or it can't be read.
        """
        try:
            saved = load_file(state / AVERAGE_FILE)
            for name, weight in self._weights.items():
                weight.copy_(saved[name])
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{state / AVERAGE_FILE} can't be read: {error}. Delete the folder {state}") from error
