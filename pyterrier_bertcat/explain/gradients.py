"""Integrated gradients: what each word adds on the way from a pair of unknown words to the pair itself.

Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365; by captum.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.devices import choose_device
from pyterrier_bertcat.errors import MissingExtraError
from pyterrier_bertcat.explain.reading import PairReading

if TYPE_CHECKING:
    from pyterrier_bertcat.modeling import CrossEncoder

_STEPS = (64, 128, 256, 512)  # twice as many, until the sum is right
_TOLERANCE = 0.005  # of the sum of all effects, each without its sign
_FLOAT32_NOISE = 1e-4
_TOKENS_AT_ONCE = 4096

_log = logging.getLogger(__name__)


def integrated_gradients(
    model: CrossEncoder, baseline_token: int, reading: PairReading, *, device: str | torch.device | None = None
) -> tuple[float, NDArray[np.float64]]:
    """Attributes a pair's score to its words.

    The way is a straight line between token embeddings: from the pair with all tokens but the special ones replaced, to
    the pair. The model's weights are neither changed nor given gradients.

    Args:
        model: In evaluation mode; copied if it has to be moved or cast.
        baseline_token: Id of the token that stands for an unknown one.
        reading: Of the pair.
        device: Where to compute, in float32. None: as `choose_device`.

    Returns:
        The score of the pair of unknown tokens, and float64 (words,): how much each word adds to it on the way to the
        pair's score. Together they add up to the difference, within 0.5 % of the sum of their sizes; where 512 steps
        do not reach that, a warning is logged.

    Raises:
        MissingExtraError: captum is not installed.
    """
    try:
        from captum.attr import IntegratedGradients
    except ModuleNotFoundError as error:
        raise MissingExtraError("captum", extra="explain") from error
    placed = _placed(model, choose_device(device))
    encoder: Any = placed.bert_model
    embeddings = encoder.get_input_embeddings()
    there = embeddings.weight.device
    token_ids = torch.from_numpy(reading.input_ids).to(there)[None]  # (1, tokens)
    is_special = torch.from_numpy(reading.is_special).to(there)[None]
    unknown_ids = torch.where(is_special, token_ids, baseline_token)
    types: dict[str, torch.Tensor] = {}
    if reading.token_type_ids is not None and placed.uses_token_types:
        types["token_type_ids"] = torch.from_numpy(reading.token_type_ids).to(there)[None]

    def score(vectors: torch.Tensor) -> torch.Tensor:  # (steps, tokens, embedding) -> (steps,)
        inputs = {name: values.expand(len(vectors), -1) for name, values in types.items()}
        mask = torch.ones(vectors.shape[:2], dtype=torch.int64, device=there)
        hidden_states = encoder(inputs_embeds=vectors, attention_mask=mask, **inputs)[0]  # (steps, tokens, hidden)
        return placed.relevance(hidden_states[:, 0])

    with torch.no_grad():
        vectors, unknown = embeddings(token_ids), embeddings(unknown_ids)  # (1, tokens, embedding)
        baseline, end = score(torch.cat([unknown, vectors])).tolist()
    vectors.requires_grad_()
    for steps in _STEPS:
        attributions = IntegratedGradients(score).attribute(
            vectors,
            baselines=unknown,
            n_steps=steps,
            internal_batch_size=max(1, _TOKENS_AT_ONCE // token_ids.shape[1]),
        )
        of_tokens = attributions[0].detach().sum(dim=-1).double().cpu().numpy()  # (tokens,)
        missed = abs(of_tokens.sum() - (end - baseline))
        if missed <= _TOLERANCE * np.abs(of_tokens).sum() + _FLOAT32_NOISE:
            break
    else:
        _log.warning("integrated gradients miss the difference in score by %.3f after %d steps", missed, _STEPS[-1])
    return baseline, reading.by_word(of_tokens)


def _placed(model: CrossEncoder, device: torch.device) -> CrossEncoder:
    """The model in float32 on a device: itself where it is there already, or a copy."""
    module: Any = model
    if all(tensor.device == device and tensor.dtype == torch.float32 for tensor in module.parameters()):
        return model
    placed: CrossEncoder = copy.deepcopy(module).to(device=device, dtype=torch.float32)
    return placed
