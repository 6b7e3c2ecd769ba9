"""Checkpoints: loads a network with its tokenizer by name, and saves both to a folder or the hub."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from pyterrier_bertcat.errors import CheckpointError, InputError
from pyterrier_bertcat.model.bert_cat import BertCatModel, CrossEncoder
from pyterrier_bertcat.model.classifier import SequenceClassificationModel
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.model.config_file import CONFIG_FILE, check_depth, read_config
from pyterrier_bertcat.model.fingerprint import checkpoint_digest
from pyterrier_bertcat.model.hub import hub_folder, is_hub_name, upload_folder
from pyterrier_bertcat.model.names import PACKAGED, packaged_folder
from pyterrier_bertcat.model.tokenizer import load_tokenizer, save_tokenizer
from pyterrier_bertcat.model.weights import SAFETENSORS_FILE, build_and_fill, read_weights


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
        ('mini', 6, 12000)
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


def load_checkpoint(name: str | Path, *, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint: a BERT_Cat, or a plain cross-encoder with one logit.

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
    check_depth(config, weights, folder)
    model: CrossEncoder
    if isinstance(config, BertCatConfig):
        encoder_config = config.encoder_config
        model = build_and_fill(lambda: BertCatModel(config), weights, source=str(folder))
    else:
        encoder_config = config
        names = SequenceClassificationModel.internal_names(config, weights)
        model = build_and_fill(lambda: SequenceClassificationModel(config), names, source=str(folder))
    return Checkpoint(model=model, tokenizer=load_tokenizer(folder, encoder_config), source=source)


def save_checkpoint(checkpoint: Checkpoint, folder: str | Path, *, dtype: torch.dtype | None = None) -> Path:
    """Write a checkpoint that needs no other file: config, weights as safetensors, tokenizer.

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
    """Upload a checkpoint to the Hugging Face hub.

    Args:
        checkpoint: The checkpoint to upload; the files are those that `save_checkpoint` writes.
        repo_id: The repository, ``owner/model``. It is created if it does not exist.
        private: Whether a new repository is private. None leaves it to the owner's settings.
        token: Access token. None uses the login of this machine.
        revision: The branch to write to, created if it does not exist. None means the main branch.
        commit_message: None means a message that names this package.

    Returns:
        The commit's address.

    Raises:
        CheckpointError: The hub can't be reached, or it refuses.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_checkpoint(checkpoint, Path(scratch) / "checkpoint")
        return upload_folder(
            folder, repo_id, private=private, token=token, revision=revision, commit_message=commit_message
        )


def _find(name: str | Path, revision: str | None) -> tuple[Path, str]:
    """Find the folder that a name stands for, and the source to report."""
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
