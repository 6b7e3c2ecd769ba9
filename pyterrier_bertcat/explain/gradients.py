"""Integrated gradients: what each word adds on the way from unknown words to the words themselves.

Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365; by captum.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyterrier_bertcat.errors import MissingExtraError
from pyterrier_bertcat.explain.reading import PairReading
from pyterrier_bertcat.explain.words import PARTS
from pyterrier_bertcat.scoring.devices import choose_device

if TYPE_CHECKING:
    from pyterrier_bertcat.model.bert_cat import CrossEncoder

_STEPS = (32, 64, 128, 256, 512)  # twice as many, until the sum is right
_TOLERANCE = 0.005  # of the sum of all effects, each without its sign
_FLOAT32_NOISE = 1e-4
_TOKENS_AT_ONCE = 4096

_log = logging.getLogger(__name__)


def integrated_gradients(
    model: CrossEncoder, unknown_token: int, reading: PairReading, *, device: str | torch.device | None = None
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Attributes a pair's score to its words.

    There are two ways, straight lines between token embeddings: from the pair with all of the text's tokens replaced to
    the pair, for the words of the text; and likewise for those of the query. Replacing both at once is no place to
    start from: a text of unknown tokens matches a query of unknown tokens, and scores high. The model's weights are
    neither changed nor given gradients.

    Args:
        model: In evaluation mode; copied if it has to be moved or cast.
        unknown_token: Id of the token that stands for an unknown one.
        reading: Of the pair.
        device: Where to compute, in float32. None: as `choose_device`.

    Returns:
        The scores where the ways begin: of the pair with an unknown query, and with an unknown text. And float64
        (words,): how much each word adds. Each way's effects add up to the pair's score minus the score where it
        begins, within 0.5 % of the sum of their sizes; where 512 steps do not reach that, a warning is logged.

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
    types: dict[str, torch.Tensor] = {}
    if reading.token_type_ids is not None and placed.uses_token_types:
        types["token_type_ids"] = torch.from_numpy(reading.token_type_ids).to(there)[None]

    def score(vectors: torch.Tensor) -> torch.Tensor:  # (steps, tokens, embedding) -> (steps,)
        inputs = {name: values.expand(len(vectors), -1) for name, values in types.items()}
        mask = torch.ones(vectors.shape[:2], dtype=torch.int64, device=there)
        hidden_states = encoder(inputs_embeds=vectors, attention_mask=mask, **inputs)[0]  # (steps, tokens, hidden)
        return placed.relevance(hidden_states[:, 0])

    effects = np.zeros(len(reading.words))
    baselines = []
    for part in PARTS:
        is_of_part = torch.tensor([[owner == part for owner in reading.parts]], device=there)  # (1, tokens)
        with torch.no_grad():
            vectors = embeddings(token_ids)  # (1, tokens, embedding)
            unknown = embeddings(torch.where(is_of_part, unknown_token, token_ids))
            start, end = score(torch.cat([unknown, vectors])).tolist()
        baselines.append(start)
        vectors.requires_grad_()
        for steps in _STEPS:
            attributions = IntegratedGradients(score).attribute(
                vectors,
                baselines=unknown,
                n_steps=steps,
                internal_batch_size=max(1, _TOKENS_AT_ONCE // token_ids.shape[1]),
            )
            of_tokens = attributions[0].detach().sum(dim=-1).double().cpu().numpy()  # (tokens,), 0 for other parts
            missed = abs(of_tokens.sum() - (end - start))
            if missed <= _TOLERANCE * np.abs(of_tokens).sum() + _FLOAT32_NOISE:
                break
        else:
            _log.warning("integrated gradients miss the difference in score by %.3f after %d steps", missed, _STEPS[-1])
        effects += reading.by_word(of_tokens)
    return (baselines[0], baselines[1]), effects


def _placed(model: CrossEncoder, device: torch.device) -> CrossEncoder:
    """The model in float32 on a device: itself where it is there already, or a copy."""
    if all(tensor.device == device and tensor.dtype == torch.float32 for tensor in model.parameters()):
        return model
    return copy.deepcopy(model).to(device=device, dtype=torch.float32)
