"""Integrated gradients: how much each word adds to the score between unknown words and the words themselves.

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
from pyterrier_bertcat.explain.words import PARTS, PairReading
from pyterrier_bertcat.scoring.devices import choose_device

if TYPE_CHECKING:
    from pyterrier_bertcat.explain.progress import Progress
    from pyterrier_bertcat.model.bert_cat import CrossEncoder

_STEPS = (32, 64, 128, 256, 512)  # doubled until the sum is right
_TOLERANCE = 0.005  # as a share of the sum of all effects' sizes
_FLOAT32_NOISE = 1e-4
_TOKENS_AT_ONCE = 4096
LEAST_WORK = len(PARTS) * (2 + _STEPS[0])
"""How often the model is run for one pair if the first number of steps is enough: both ends of each line, the steps."""

_log = logging.getLogger(__name__)


def integrated_gradients(
    model: CrossEncoder,
    unknown_token: int,
    reading: PairReading,
    *,
    device: str | torch.device | None = None,
    progress: Progress,
) -> tuple[tuple[float, float], NDArray[np.float64]]:
    """Attributes a pair's score to its words.

    Gradients are integrated along two straight lines between token embeddings. One begins at the pair with every token
    of the text replaced by an unknown one and gives the effects of the text's words; the other does the same for the
    query. One line that replaces both would begin at a high score, because unknown texts match unknown queries. The
    model's weights are neither changed nor given gradients.

    Args:
        model: In evaluation mode; copied if it has to be moved or cast.
        unknown_token: Id of the token that stands for an unknown one.
        reading: The pair's words and tokens.
        device: Where to compute, in float32. None: as `choose_device`.
        progress: Is told how often the model has run, and when more steps than the first are needed.

    Returns:
        The scores where the lines begin: of the pair with an unknown query, and with an unknown text. And float64
        (words,), how much each word adds. The effects on a line add up to the pair's score minus the score where it
        begins, within 0.5 % of the sum of their sizes. If 512 steps do not reach that, a warning is logged.

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
        progress.done(len(vectors))
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
            if steps != _STEPS[0]:
                progress.expect(steps)
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
    """The model itself if it is on the device in float32, or else a copy that is."""
    if all(tensor.device == device and tensor.dtype == torch.float32 for tensor in model.parameters()):
        return model
    return copy.deepcopy(model).to(device=device, dtype=torch.float32)
