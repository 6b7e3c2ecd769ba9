"""OpenVINO graphs of a checkpoint's encoder: made once, and then read from a cache on disk.

A graph is kept under the fingerprint of its checkpoint and all else that decides what it computes, in PyTerrier's home
folder (``PYTERRIER_HOME``, or ``~/.pyterrier``).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyterrier as pt
import torch

from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.pairs.planning import plan_batches
from pyterrier_bertcat.scoring.backends.attention import PaddedAttention
from pyterrier_bertcat.scoring.backends.first_token import FirstTokenPath, Tokens

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint
    from pyterrier_bertcat.scoring.options import ScoringOptions

EXTRA = "openvino"
_LAYOUT = 1  # of the graph; counts up when the same checkpoint gives another one
_CALIBRATION_BATCH_TOKENS = 512
_EXAMPLE_SHAPE = (2, 8)  # of the batch that is traced; graphs take any shape

logger = logging.getLogger(__name__)


def float_graph(checkpoint: Checkpoint) -> Path:
    """The graph with float32 weights: padded batch in, float32 (b, hidden) out, the first tokens' last hidden states.

    Returns:
        Its ``.xml`` file, with the weights beside it.
    """
    return _cached(_key(checkpoint, "float32"), lambda: _converted(checkpoint))


def int8_graph(checkpoint: Checkpoint, options: ScoringOptions) -> Path:
    """The graph with static int8 products, calibrated on pairs; what goes in and out is as for `float_graph`.

    Args:
        checkpoint: Model and tokenizer.
        options: ``calibration`` holds the pairs, which are cut as other pairs are.

    Returns:
        Its ``.xml`` file.

    Raises:
        InputError: There are no pairs to calibrate on.
        MissingExtraError: The graph is not in the cache, and NNCF, which makes it, is not installed.
    """
    if not options.calibration:
        raise InputError(
            "int8 is calibrated on pairs like those it will score, got none: give "
            "calibration=[(query, text), ...], a few hundred of your own, relevant or not"
        )
    facts = json.dumps(replace(options, passages=None).facts(), sort_keys=True)
    return _cached(_key(checkpoint, facts), lambda: _quantised(checkpoint, options))


def _key(checkpoint: Checkpoint, facts: str) -> str:
    import openvino

    key = json.dumps([checkpoint.fingerprint, facts, _LAYOUT, openvino.__version__])
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _cached(key: str, make: Callable[[], Any]) -> Path:
    """The file under a key, made first where there is none; a process that is killed meanwhile leaves none."""
    import openvino

    folder = Path(pt.io.pyterrier_home()) / "bertcat" / "openvino"
    if not (folder / key).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        graph = make()
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unfinished-") as scratch:
            written = Path(scratch) / key
            written.mkdir()
            openvino.save_model(graph, written / "encoder.xml", compress_to_fp16=False)
            try:
                written.rename(folder / key)
            except OSError:  # another process was faster
                if not (folder / key).is_dir():
                    raise
    return folder / key / "encoder.xml"


class _Graph(torch.nn.Module):
    """What is traced: a padded batch to the first tokens' last hidden states."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self._path = FirstTokenPath(encoder)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Three times int64 (batch, length) -> float32 (batch, hidden)."""
        return self._path(Tokens.of_padded(input_ids, token_type_ids), PaddedAttention(attention_mask))


def _converted(checkpoint: Checkpoint) -> Any:
    import openvino

    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * checkpoint.model.uses_token_types
    example = {name: torch.ones(_EXAMPLE_SHAPE, dtype=torch.int64) for name in names}
    encoder: Any = checkpoint.model.bert_model
    with torch.no_grad():
        return openvino.convert_model(
            _Graph(encoder.eval()),
            example_input=example,
            input=[(name, [-1, -1], openvino.Type.i64) for name in names],
        )


def _quantised(checkpoint: Checkpoint, options: ScoringOptions) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError("nncf", extra=EXTRA) from error
    queries, texts = zip(*(options.calibration or ()), strict=True)
    encoded = replace(options, passages=None).pair_tokenizer(checkpoint.tokenizer).encode(queries, texts)
    inputs = []
    for rows in plan_batches(encoded.lengths, batch_tokens=_CALIBRATION_BATCH_TOKENS):
        inputs.append(encoded.batch(rows).padded().inputs(token_types=checkpoint.model.uses_token_types))
    logger.info("calibrating int8 on %d pairs", len(queries))
    with contextlib.redirect_stdout(sys.stderr):  # NNCF draws its progress bars on what may be a command's output
        return nncf.quantize(
            _converted(checkpoint),
            nncf.Dataset(inputs),
            subset_size=len(inputs),
            model_type=nncf.ModelType.TRANSFORMER,
        )
