"""Scores batches with PyTorch on any of its devices."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.devices import choose_device, choose_dtype, default_batch_tokens

if TYPE_CHECKING:
    from pyterrier_bertcat.modeling import CrossEncoder
    from pyterrier_bertcat.pairs import PairBatch


class TorchBackend:
    """A model on a device, with its encoder in a precision; the final layer is float32.

    Attributes:
        device: Where it computes.
        dtype: The encoder's precision.
    """

    def __init__(
        self, model: CrossEncoder, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "auto"
    ) -> None:
        """Places a model.

        Args:
            model: Set to evaluation mode; apart from that it stays as it is, because others may use it: a copy is
                moved and cast where device or precision differ.
            device: See `choose_device`.
            dtype: See `choose_dtype`.

        Raises:
            InputError: No such device or precision.
        """
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._model: Any = _placed(model, self.device, self.dtype)

    @property
    def default_batch_tokens(self) -> int:
        """Tokens per batch that suit the device."""
        return default_batch_tokens(self.device)

    def score_batch(self, batch: PairBatch) -> NDArray[np.float32]:
        """Scores the pairs of a batch: float32 (b,). See `Backend`."""
        if self._model.training:  # its owner may have trained it further in between
            self._model.eval()
        token_types = batch.token_type_ids if self._model.uses_token_types else None
        # An autocast that happens to be on around the call must not change the scores.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            scores = self._model(
                input_ids=torch.from_numpy(batch.input_ids).to(self.device),
                attention_mask=torch.from_numpy(batch.attention_mask).to(self.device),
                token_type_ids=None if token_types is None else torch.from_numpy(token_types).to(self.device),
            )
        array: NDArray[np.float32] = scores.float().cpu().numpy()
        return array


def _placed(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """The model itself where nothing has to change, otherwise a changed copy."""
    if all(weight.device == device and weight.dtype == dtype == torch.float32 for weight in model.parameters()):
        return model.eval()
    return copy.deepcopy(model).eval().cast_encoder(dtype).to(device)
