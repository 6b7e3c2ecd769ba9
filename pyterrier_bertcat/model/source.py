"""Turns what users pass as ``model=``, a name or an object, into a `Checkpoint`."""

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
        model: A hub name, a folder, ``"mini"``, a `Checkpoint`, or a `BertCatModel`. The tokenizer of a `BertCatModel`
            is taken from the folder that it was loaded from, or else found by its encoder's name.
        revision: Branch, tag or commit to load from the hub, or a pin, ``"sha256:…"``: the first digits of the
            fingerprint that the checkpoint must have.

    Raises:
        CheckpointError: The model can't be loaded, does not have the pinned fingerprint, or has no tokenizer.
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
            f"{str(name)!r} is pinned to {revision}, but its fingerprint is {PIN}{checkpoint.fingerprint}. Either its "
            "files were changed, or the pin is of a release that computed fingerprints in another way (the changelog "
            "says which). Bring the old files back, pin the new fingerprint, or leave revision out to take it as it is"
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
    except CheckpointError:  # there is a tokenizer, and the error says what is wrong with it
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a model with its tokenizer, got a {type(model).__name__} alone, and found no tokenizer in the "
            f"folder it came from ({origin!r}) or by its encoder's name ({encoder!r}): pass "
            "model=Checkpoint(model, tokenizer)"
        ) from error
    return Checkpoint(model=model, tokenizer=tokenizer)
