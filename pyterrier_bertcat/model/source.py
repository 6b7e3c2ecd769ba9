"""From what the re-ranker's ``model=`` may be, a name or an object, to a `Checkpoint`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import BertCatModel, CrossEncoder
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint
from pyterrier_bertcat.model.names import PIN, is_pin
from pyterrier_bertcat.model.tokenizer import check_vocabulary, load_tokenizer


def checkpoint_from(
    model: str | os.PathLike[str] | BertCatModel | Checkpoint, revision: str | None = None
) -> Checkpoint:
    """Loads a named model, or completes a model object.

    Args:
        model: a hub id, a folder, ``"mini"``, a `Checkpoint`, or a `BertCatModel`, whose tokenizer is looked for in the
            folder that the model came from or, where it came from none, under its encoder's name.
        revision: what to load from the hub, or the pin ``"sha256:…"`` that the loaded fingerprint has to begin with.

    Raises:
        CheckpointError: the model can't be loaded, is not what it is pinned to, or is an object without a tokenizer.
    """
    if isinstance(model, Checkpoint):
        return model
    if not isinstance(model, (str, os.PathLike)):
        return _with_tokenizer(model)
    name = model if isinstance(model, str) else Path(model)
    if revision is None or not is_pin(revision):
        return load_checkpoint(name, revision=revision)
    checkpoint = load_checkpoint(name)
    if not checkpoint.fingerprint.startswith(revision[len(PIN) :]):
        raise CheckpointError(
            f"{str(name)!r} is pinned to {revision} but now holds {PIN}{checkpoint.fingerprint}: its files were "
            "changed; bring the old ones back, or leave revision out to take it as it is"
        )
    return checkpoint


def _with_tokenizer(model: CrossEncoder) -> Checkpoint:
    tokenizer: Any
    origin, encoder = (
        str(getattr(it, name, "")) for it, name in ((model, "name_or_path"), (model.config, "bert_model"))
    )
    try:
        if origin and Path(origin).is_dir():
            tokenizer = load_tokenizer(Path(origin), model.bert_model.config)
        else:
            tokenizer = AutoTokenizer.from_pretrained(encoder, use_fast=True, trust_remote_code=False)
            check_vocabulary(tokenizer, int(model.bert_model.config.vocab_size), source=encoder)
    except CheckpointError:  # there is one, and it says what is wrong with it
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a model with its tokenizer, got a {type(model).__name__} alone, and found no tokenizer where it "
            f"came from ({origin!r}) or under its encoder's name ({encoder!r}): give model=Checkpoint(model, tokenizer)"
        ) from error
    return Checkpoint(model=model, tokenizer=tokenizer)
