"""Checkpoints: loads a network with its tokenizer by name, and saves both to a folder or to the hub."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pyterrier_bertcat.errors import CheckpointError, InputError
from pyterrier_bertcat.model.bert_cat import BertCatModel, CrossEncoder
from pyterrier_bertcat.model.classifier import SequenceClassificationModel
from pyterrier_bertcat.model.config import CONFIG_FILE, BertCatConfig, read_config
from pyterrier_bertcat.model.fingerprint import checkpoint_digest
from pyterrier_bertcat.model.hub import hub_folder, is_hub_name
from pyterrier_bertcat.model.names import PACKAGED, PIN, is_pin, packaged_folder
from pyterrier_bertcat.model.tokenizer import check_vocabulary, load_tokenizer, save_tokenizer, with_max_length
from pyterrier_bertcat.model.weights import SAFETENSORS_FILE, build_and_fill, read_weights

AnyCheckpoint = TypeVar("AnyCheckpoint", bound="Checkpoint")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A cross-encoder with its tokenizer.

    Attributes:
        model: The network. From `load_checkpoint`, it is in float32, on the CPU and in evaluation mode.
        tokenizer: A fast tokenizer.
        source: ``"mini"``, a hub name (``owner/model`` or ``owner/model@revision``), a folder, or ``"in memory"``.

    Example:
        >>> from pyterrier_bertcat import load_checkpoint
        >>> checkpoint = load_checkpoint("mini")
        >>> checkpoint.source, checkpoint.model.bert_model.config.num_hidden_layers, len(checkpoint.tokenizer)
        ('mini', 2, 30522)
    """

    model: CrossEncoder
    tokenizer: PreTrainedTokenizerFast
    source: str = "in memory"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of all that decides the scores: weights (as float32), configuration and tokenizer.

        It is computed at first use and then kept, so read it before you cast or train the model in place.
        """
        return checkpoint_digest(self.model, self.tokenizer)

    @property
    def stated_max_length(self) -> int | None:
        """How many tokens of a pair the checkpoint says to read; None if it says nothing.

        This is the tokenizer's ``model_max_length`` (in ``tokenizer_config.json``), which sentence-transformers reads
        too, and which `fit` sets. A number that only repeats the model's positions says nothing, unless
        ``trained_max_length`` in the configuration confirms that the checkpoint was trained with so many.
        """
        stated: object = getattr(self.tokenizer, "model_max_length", None)
        if not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
            return None
        confirmed = stated == getattr(getattr(self.model, "config", None), "trained_max_length", None)
        positions = self.model.max_positions
        return stated if stated < positions or (confirmed and stated == positions) else None

    def trained_at(self: AnyCheckpoint, max_length: int) -> AnyCheckpoint:
        """The same model, changed to state this number as its `stated_max_length`, with a tokenizer of its own."""
        self.model.config.trained_max_length = max_length
        return replace(self, tokenizer=with_max_length(self.tokenizer, max_length))


def load_checkpoint(name: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Loads a checkpoint: a BERT_Cat, or a plain cross-encoder with one logit.

    Args:
        name: ``"mini"`` (packaged), a local folder, or a hub name such as
            ``sebastian-hofstaetter/distilbert-cat-margin_mse-T2-msmarco``. Offline, the hub's cache is used.
        revision: Branch, tag or commit of a hub name.

    Returns:
        The checkpoint in float32, on the CPU, in evaluation mode. Loading never runs code from its files.

    Raises:
        InputError: ``revision`` was given for a checkpoint that is not on the hub.
        CheckpointError: It does not exist, is damaged, or is another kind of model; the message names the file, key or
            shape.

    Example:
        >>> from pyterrier_bertcat import load_checkpoint
        >>> load_checkpoint("mini").model.max_positions
        512
    """
    folder, source = _find(name, revision)
    config = read_config(folder)
    weights = read_weights(folder)
    encoder_config = config.encoder_config if isinstance(config, BertCatConfig) else config
    layers = int(getattr(encoder_config, "num_hidden_layers", 0))
    if layers > len(weights):  # each layer has several: refuse them before they are built one by one
        raise CheckpointError(
            f"{folder}: the weights do not fit the model that {CONFIG_FILE} describes: {layers:,} layers, "
            f"but {len(weights):,} weights"
        )
    model: CrossEncoder
    if isinstance(config, BertCatConfig):
        model = build_and_fill(lambda: BertCatModel(config), weights, source=str(folder))
    else:
        names = SequenceClassificationModel.internal_names(config, weights)
        model = build_and_fill(lambda: SequenceClassificationModel(config), names, source=str(folder))
    return Checkpoint(model=model, tokenizer=load_tokenizer(folder, encoder_config), source=source)


def checkpoint_from(
    model: str | os.PathLike[str] | BertCatModel | Checkpoint, revision: str | None = None
) -> Checkpoint:
    """Turns what users pass as ``model=`` into a checkpoint: loads a name, or finds an object's tokenizer.

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
        return Checkpoint(model=model, tokenizer=_find_tokenizer(model))
    name = model if isinstance(model, str) else Path(model)
    if revision is None or not is_pin(revision):
        return load_checkpoint(name, revision=revision)
    checkpoint = load_checkpoint(name)
    if not checkpoint.fingerprint.startswith(revision.removeprefix(PIN)):
        raise CheckpointError(
            f"{str(name)!r} is pinned to {revision}, but its fingerprint is {PIN}{checkpoint.fingerprint}. Either its "
            "files were changed, or the pin is from a release that computed fingerprints in another way (the changelog "
            "says which). Restore the old files, pin the new fingerprint, or leave revision out to take it as it is"
        )
    return checkpoint


def save_checkpoint(checkpoint: Checkpoint, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
    """Writes a checkpoint that needs no other file: config, weights as safetensors, tokenizer.

    Everything is written beside the folder first. A new folder then appears complete or not at all. In an existing
    folder, ``config.json`` is removed first and written last, so after an interrupted save loading finds none and says
    so.

    Args:
        checkpoint: The checkpoint to write.
        folder: The folder to write to. Other files in it stay.
        dtype: The type of the saved weights, such as ``torch.float16`` for half the size. None means float32.

    Returns:
        The folder.

    Raises:
        CheckpointError: The folder can't be written.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import load_checkpoint, save_checkpoint
        >>> checkpoint = load_checkpoint("mini")
        >>> folder = save_checkpoint(checkpoint, "copy-of-mini", dtype=torch.float16)
        >>> load_checkpoint(folder).fingerprint == checkpoint.fingerprint
        True
    """
    target = Path(folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
            written = Path(scratch) / "checkpoint"
            written.mkdir()
            _write(checkpoint, written, dtype or torch.float32)
            _move(written, target)
    except OSError as error:
        raise CheckpointError(f"can't save the checkpoint to {target}: {error}") from error
    return target


def push_checkpoint(
    checkpoint: Checkpoint,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Uploads what `save_checkpoint` writes to the Hugging Face hub.

    `BertCatReRanker.push_to_hub` describes the arguments.

    Returns:
        The commit's address.

    Raises:
        CheckpointError: The name is not a hub name, the hub can't be reached, or it refuses.
    """
    if not is_hub_name(repo_id):
        raise CheckpointError(f"expected a hub repository as in 'owner/model', got {repo_id!r}")
    api = huggingface_hub.HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_checkpoint(checkpoint, Path(scratch) / "checkpoint")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message or "Upload a BERT_Cat with pyterrier-bertcat",
            )
        except Exception as error:  # its errors have no common base: see hub_folder
            raise CheckpointError(
                f"can't upload to {repo_id!r} on the Hugging Face hub: check the connection (HF_HUB_OFFLINE must not "
                "be set), that you are logged in ('hf auth login') and may write there. "
                f"({type(error).__name__}: {error})"
            ) from error
    return str(commit.commit_url)


def _find(name: str | Path, revision: str | None) -> tuple[Path, str]:
    """Finds the folder that a name stands for, and the source to report."""
    if revision is not None and (isinstance(name, Path) or name == PACKAGED or Path(name).is_dir()):
        raise InputError(
            f"revision={revision!r} needs a name on the hub, got {str(name)!r}; leave revision out for this one"
        )
    if name == PACKAGED:
        folder = packaged_folder()
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointError(
                f"the packaged checkpoint {PACKAGED!r} is not in this installation; install a release"
            )
        return folder, PACKAGED
    path = Path(name)
    if path.is_dir():
        return path, str(name)
    if isinstance(name, Path) or not is_hub_name(name):
        raise CheckpointError(f"expected a folder or a hub name like 'owner/model', got {str(name)!r}: no such folder")
    return hub_folder(name, revision=revision), f"{name}@{revision}" if revision else name


def _write(checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> None:
    weights = {
        name: tensor.detach().to(device="cpu", dtype=dtype if tensor.is_floating_point() else tensor.dtype).contiguous()
        for name, tensor in checkpoint.model.published_weights().items()
    }
    save_file(weights, folder / SAFETENSORS_FILE, metadata={"format": "pt"})
    save_tokenizer(checkpoint.tokenizer, folder)
    facts = checkpoint.model.file_config()
    (folder / CONFIG_FILE).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.copymode(folder / CONFIG_FILE, folder / SAFETENSORS_FILE)  # safetensors lets only the owner read


def _move(written: Path, target: Path) -> None:
    if not target.exists():
        written.rename(target)
        return
    (target / CONFIG_FILE).unlink(missing_ok=True)
    for path in sorted(written.iterdir(), key=lambda path: path.name == CONFIG_FILE):
        os.replace(path, target / path.name)
    shutil.rmtree(written)


def _find_tokenizer(model: CrossEncoder) -> PreTrainedTokenizerFast:
    origin, encoder = str(getattr(model, "name_or_path", "")), str(getattr(model.config, "bert_model", ""))
    try:
        if origin and Path(origin).is_dir():
            return load_tokenizer(Path(origin), model.bert_model.config)
        found: Any = AutoTokenizer.from_pretrained(encoder, use_fast=True, trust_remote_code=False)
        tokenizer: PreTrainedTokenizerFast = found
        check_vocabulary(tokenizer, int(model.bert_model.config.vocab_size), source=encoder)
        return tokenizer
    except CheckpointError:  # there is a tokenizer, and the error says what is wrong with it
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"expected a model with its tokenizer, got a {type(model).__name__} alone, and found no tokenizer in the "
            f"folder it came from ({origin!r}) or by its encoder's name ({encoder!r}): pass "
            "model=Checkpoint(model, tokenizer)"
        ) from error
