"""Scores batches with PyTorch on any of its devices."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends.attention import (
    Attention,
    EqualLengthAttention,
    PaddedAttention,
    VariableLengthAttention,
    on_device,
    variable_length_works,
)
from pyterrier_bertcat.scoring.backends.first_token import FirstTokenPath, Tokens, has_first_token_path, head_size
from pyterrier_bertcat.scoring.backends.fused_linear import FusedLinear, fastest_linear
from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype, default_batch_tokens, peak_memory_mb

if TYPE_CHECKING:
    from pyterrier_bertcat.model.bert_cat import CrossEncoder

_MOST_RUNNING_ON_CUDA = 8
_STEP_TOKENS = 32


class TorchBackend:
    """A model on a device, with its encoder in some precision and the last layer in float32.

    Attributes:
        device: Where it computes.
        dtype: The encoder's precision.
    """

    def __init__(
        self, model: CrossEncoder, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "auto"
    ) -> None:
        """Places a model.

        Args:
            model: It is set to evaluation mode and otherwise left alone, because others may use it. Weights that have
                to be moved, cast or laid out in another way are copied, and again whenever their owner changes them.
            device: See `choose_device`.
            dtype: See `choose_dtype`.

        Raises:
            InputError: There is no such device or precision.
        """
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._owned = model
        self._linear = fastest_linear(self.device, self.dtype)
        self._packs = self.device.type == "cpu" or variable_length_works(
            self.device, self.dtype, head_size=head_size(model.bert_model)
        )
        self._placed = _Placed(self._owned, self.device, self.dtype, self._linear)
        self._process = os.getpid()

    @property
    def device_name(self) -> str:
        """Such as ``"cpu"`` or ``"cuda:0"``."""
        return str(self.device)

    @property
    def dtype_name(self) -> str:
        """Such as ``"float32"``."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def pads(self) -> bool:
        """Whether batches are padded, because the encoder or the device can't compute packed ones."""
        return self._placed.path is None or not self._packs

    def peak_memory_mb(self) -> float | None:
        """Counts tensors on CUDA, and the whole process elsewhere."""
        return peak_memory_mb(self.device)

    @property
    def default_batch_tokens(self) -> int:
        """Tokens per batch that suit the device."""
        return default_batch_tokens(self.device, self.dtype)

    @property
    def most_running(self) -> int:
        """Several batches on CUDA, so that the GPU never waits for Python. Other devices finish each batch first."""
        return _MOST_RUNNING_ON_CUDA if self.device.type == "cuda" else 0

    def start(self, batch: PairBatch) -> Callable[[], NDArray[np.float32]]:
        """Starts scoring the pairs of a batch: float32 (b,). See `Backend`."""
        if self._process != os.getpid():  # a fork, which has none of the threads that OpenMP waits for
            self._process = os.getpid()
            torch.set_num_threads(1)
        if self._placed.version != weights_version(self._owned):
            self._placed = _Placed(self._owned, self.device, self.dtype, self._linear)
        placed = self._placed
        placed.model.eval()  # its owner may have trained it in between
        # The caller may be inside an autocast, which must not change the scores.
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            scores = self._scores(batch, placed)  # float32 (b,)
            if self.device.type != "cuda":
                ready: NDArray[np.float32] = scores.cpu().numpy()
                return lambda: ready
            fetched = torch.empty(scores.shape, pin_memory=True).copy_(scores, non_blocking=True)
        event = torch.cuda.current_stream(self.device).record_event()

        def finish() -> NDArray[np.float32]:
            event.synchronize()
            array: NDArray[np.float32] = fetched.numpy()
            return array

        return finish

    def _scores(self, batch: PairBatch, placed: _Placed) -> torch.Tensor:
        """float32 (b,), which a GPU may still be computing."""
        attention: Attention
        pairs, token_types = len(batch), self._owned.uses_token_types
        if placed.path is not None and self._packs:
            if self.device.type == "cpu":
                batch = _filled(batch)
                attention = EqualLengthAttention(batch.lengths)
            else:
                attention = VariableLengthAttention(batch.lengths, self.device)
            positions = batch.position_ids
            positions[batch.lengths[:pairs].sum() :] = 0  # the filling may be longer than the model has positions
            types = batch.token_type_ids if token_types else None
            tokens = Tokens(*map(self._tensor, (batch.input_ids, positions, types)))
        else:
            padded = batch.padded()
            types = padded.token_type_ids if token_types else None
            ids, mask, on_types = map(self._tensor, (padded.input_ids, padded.attention_mask, types))
            if placed.path is None:
                scores: torch.Tensor = placed.model(input_ids=ids, attention_mask=mask, token_type_ids=on_types)
                return scores
            tokens, attention = Tokens.of_padded(ids, on_types), PaddedAttention(mask)
        return placed.model.relevance(placed.path(tokens, attention))[:pairs]

    def _tensor(self, array: NDArray[np.int64] | None) -> Any:
        return None if array is None else on_device(torch.from_numpy(array), self.device)


def _filled(batch: PairBatch) -> PairBatch:
    """Adds a last row of pads, so that the number of tokens is a multiple of `_STEP_TOKENS`.

    For each number of rows that a matrix product has, oneDNN makes and keeps code and room to work in, about 15 ms and
    up to 30 MB each. In the course of a job, batches of all lengths would take gigabytes.
    """
    fill = -len(batch.input_ids) % _STEP_TOKENS
    if not fill:
        return batch

    def filled(values: NDArray[np.int64], pad: int) -> NDArray[np.int64]:
        return np.concatenate([values, np.full(fill, pad, dtype=np.int64)])

    types = None if batch.token_type_ids is None else filled(batch.token_type_ids, batch.pad[1])
    ids = filled(batch.input_ids, batch.pad[0])
    return PairBatch(lengths=np.append(batch.lengths, fill), input_ids=ids, token_type_ids=types, pad=batch.pad)


class _Placed:
    """A model on its device, with the weights that its owner had when this was made.

    Attributes:
        version: Of the owner's weights, see `weights_version`.
        model: The owner's model, or a copy on another device or in another precision.
        path: The first-token path of its encoder, or None if it has none.
    """

    def __init__(
        self, owned: CrossEncoder, device: torch.device, dtype: torch.dtype, linear: type[FusedLinear]
    ) -> None:
        self.version = weights_version(owned)
        in_place = all(
            weight.device == device and weight.dtype == dtype == torch.float32 for weight in owned.parameters()
        )
        self.model = owned if in_place else copy.deepcopy(owned).cast_encoder(dtype).to(device)
        encoder = self.model.bert_model
        self.path = FirstTokenPath(encoder, linear=linear) if has_first_token_path(encoder) else None


def weights_version(model: torch.nn.Module) -> list[tuple[int, int]]:
    """Where each weight is, and how often it was written to: this differs after any change of the weights."""
    return [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in model.parameters()]
