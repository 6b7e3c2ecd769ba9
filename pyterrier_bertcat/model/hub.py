"""The Hugging Face hub: finds the folder of a name in its cache, or downloads it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public by its documentation

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.weights import PICKLE_FILE, SAFETENSORS_FILE

# All files of a checkpoint except its weights: never code, other frameworks' weights or ONNX files.
_SMALL_FILES = (
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)


def is_hub_name(name: str) -> bool:
    """Whether a name could be a hub repository's, such as ``owner/model``, rather than a path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.startswith((".", "~"))


def hub_folder(name: str, *, revision: str | None = None) -> Path:
    """Finds a repository's files in the hub's cache, and downloads those that are needed and missing.

    Returns:
        The folder of one commit in the cache, with the small files and one file of weights.

    Raises:
        CheckpointError: The repository, revision or a file does not exist, or the hub can't be reached.
    """
    if revision is not None and (".." in revision or "\\" in revision or revision.startswith("/")):
        raise CheckpointError(f"expected a branch, tag or commit as revision, got {revision!r}")
    try:
        folder = _small_files(name, revision)
        if not any((folder / file).is_file() for file in (SAFETENSORS_FILE, PICKLE_FILE)):
            _download_weights(name, folder)
    # The client has changed its network library twice, and the errors of the three have no common base.
    except Exception as error:
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointError(
            f"the checkpoint {name!r}{at} is neither on the Hugging Face hub, as far as it can be reached from here, "
            f"nor complete in the hub's cache on this machine. Check the name; connect to the hub once; or give a "
            f"local folder. model='mini' is packaged and works offline. ({type(error).__name__}: {error})"
        ) from error
    return folder


def _small_files(name: str, revision: str | None) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=list(_SMALL_FILES)))
    except LocalEntryNotFoundError:
        # The cache may lack some small files; the configuration tells which commit is there.
        config = huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision)
        if not isinstance(config, str):
            raise
        return Path(config).parent


def _download_weights(name: str, folder: Path) -> None:
    commit = folder.name  # the same commit as the config, even if somebody pushes meanwhile
    try:
        huggingface_hub.hf_hub_download(name, SAFETENSORS_FILE, revision=commit)
    except LocalEntryNotFoundError:  # offline, so the other file can't come either
        raise
    except EntryNotFoundError:
        huggingface_hub.hf_hub_download(name, PICKLE_FILE, revision=commit)
