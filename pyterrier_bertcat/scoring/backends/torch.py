"""Scores batches with PyTorch on any of its devices."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

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
from pyterrier_bertcat.scoring.backends.first_token import FirstTokenPath, Tokens, has_first_token_path
from pyterrier_bertcat.scoring.backends.fused_linear import FusedLinear, fastest_linear
from pyterrier_bertcat.scoring.devices import choose_device, choose_dtype, default_batch_tokens, peak_memory_mb

if TYPE_CHECKING:
    from pyterrier_bertcat.model.bert_cat import CrossEncoder

_MOST_RUNNING_ON_CUDA = 8
_STEP_TOKENS = 32


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
            model: Set to evaluation mode; apart from that it stays as it is, because others may use it. Weights that
                have to be moved, cast or laid out anew are copied, again whenever their owner has changed them.
            device: See `choose_device`.
            dtype: See `choose_dtype`.

        Raises:
            InputError: No such device or precision.
        """
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self._owned = model
        self._linear = fastest_linear(self.device, self.dtype)
        self._packs = self.device.type == "cpu" or variable_length_works(self.device, self.dtype)
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
        """Packed batches need no padding."""
        return self._placed.path is None or not self._packs

    def peak_memory_mb(self) -> float | None:
        """Of tensors on CUDA, of the whole process elsewhere."""
        return peak_memory_mb(self.device)

    @property
    def default_batch_tokens(self) -> int:
        """Tokens per batch that suit the device."""
        return default_batch_tokens(self.device, self.dtype)

    @property
    def most_running(self) -> int:
        """Batches on their way: several on CUDA, so that it never waits for Python; elsewhere each is waited for."""
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
        # An autocast that happens to be on around the call must not change the scores.
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
        """float32 (b,), perhaps still being computed."""
        attention: Attention
        scores: torch.Tensor
        if placed.path is not None and self._packs:
            pairs = len(batch)
            if self.device.type == "cpu":
                batch = _filled(batch)
                attention = EqualLengthAttention(batch.lengths)
            else:
                attention = VariableLengthAttention(batch.lengths, self.device)
            positions = batch.position_ids
            positions[batch.lengths[:pairs].sum() :] = 0  # the filling may be longer than the model has positions
            tokens = Tokens(
                input_ids=self._tensor(batch.input_ids),
                position_ids=self._tensor(positions),
                token_type_ids=self._token_types(batch.token_type_ids),
            )
            scores = placed.model.relevance(placed.path(tokens, attention))[:pairs]
            return scores
        padded = batch.padded()
        ids, mask = self._tensor(padded.input_ids), self._tensor(padded.attention_mask)
        types = self._token_types(padded.token_type_ids)
        if placed.path is None:
            scores = placed.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        else:
            tokens, attention = Tokens.of_padded(ids, types), PaddedAttention(mask)
            scores = placed.model.relevance(placed.path(tokens, attention))
        return scores

    def _tensor(self, array: NDArray[np.int64]) -> torch.Tensor:
        return on_device(torch.from_numpy(array), self.device)

    def _token_types(self, array: NDArray[np.int64] | None) -> torch.Tensor | None:
        return self._tensor(array) if array is not None and self._owned.uses_token_types else None


def _filled(batch: PairBatch) -> PairBatch:
    """A batch with a last row of pads, which brings its tokens to a whole number of steps.

    oneDNN makes and keeps code, and room to work in, for each number of rows that a matrix product is asked for: some
    15 ms and up to 30 MB for each. Batches of all lengths would take gigabytes in the course of a job.
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
    """The model as it computes on a device, made from its owner's weights as they were at some time.

    Attributes:
        version: Of the owner's weights.
        model: The owner's, or a copy on another device or in another precision.
        path: Its encoder's first-token path, or None where it has none.
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
    """Differs after any change of the weights: where each is, and how often it was written to."""
    return [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in model.parameters()]
