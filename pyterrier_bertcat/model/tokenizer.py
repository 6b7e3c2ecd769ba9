"""A checkpoint's tokenizer: read without its model type being known to ``AutoTokenizer``, and checked."""

from __future__ import annotations

import copy
import json
from operator import itemgetter
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerFast

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.families import FAMILIES, family_of

_WORDPIECE_FILES = ("tokenizer.json", "vocab.txt")
_OTHER_FILES = ("tokenizer.json", "vocab.json", "sentencepiece.bpe.model", "vocab.txt")

# Embeddings are sometimes padded with unused rows, to a multiple of a power of two.
_PADDED_TO = 8
_MOST_PADDING = 128


def load_tokenizer(folder: Path, encoder_config: PretrainedConfig) -> PreTrainedTokenizerFast:
    """Loads a checkpoint's fast tokenizer.

    Args:
        folder: Where its files are; nothing is downloaded and no code in it is run.
        encoder_config: The configuration of the encoder that reads its ids.

    Raises:
        CheckpointError: Its files are missing or damaged, or do not match the encoder's embeddings.
    """
    # AutoTokenizer can't read the published folder on transformers 5.
    default_class = family_of(encoder_config).wordpiece_tokenizer
    expected = _WORDPIECE_FILES if default_class else _OTHER_FILES
    # Without a vocabulary, transformers 5 silently makes a tokenizer of five tokens.
    if not any((folder / name).is_file() for name in expected):
        raise CheckpointError(f"{folder}: expected the vocabulary in {' or '.join(expected)}, found none of them")
    try:
        tokenizer: Any
        if default_class:
            tokenizer_class = getattr(transformers, _stated_class(folder) or default_class)
            tokenizer = tokenizer_class.from_pretrained(str(folder), local_files_only=True)
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), config=encoder_config, use_fast=True, trust_remote_code=False, local_files_only=True
            )
    except Exception as error:  # the tokenizers library raises plain Exception for a damaged tokenizer.json
        raise CheckpointError(
            f"{folder}: can't read the tokenizer; check {' and '.join(expected)} there. "
            f"({type(error).__name__}: {error})"
        ) from error
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"{folder}: expected a fast tokenizer, got {type(tokenizer).__name__}; save it with a tokenizer.json"
        )
    check_vocabulary(tokenizer, int(encoder_config.vocab_size), source=str(folder))
    fast_tokenizer: PreTrainedTokenizerFast = tokenizer
    return fast_tokenizer


def _stated_class(folder: Path) -> str | None:
    """The WordPiece class that wrote the folder. All give the same ids, but each warns about the others' files."""
    path = folder / "tokenizer_config.json"
    stated = json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class") if path.is_file() else None
    fast = f"{str(stated).removesuffix('Fast')}Fast"
    return fast if fast in {family.wordpiece_tokenizer for family in FAMILIES.values()} else None


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, embedding_rows: int, *, source: str) -> None:
    """Refuses a vocabulary that is not the encoder's: its ids would mean other words, or none.

    Raises:
        CheckpointError: The sizes differ by more than the usual padding of embeddings; the message names the source.
    """
    tokens = len(tokenizer)
    is_padded = embedding_rows % _PADDED_TO == 0 and tokens < embedding_rows < tokens + _MOST_PADDING
    if tokens != embedding_rows and not is_padded:
        raise CheckpointError(
            f"{source}: expected a vocabulary of {embedding_rows:,} tokens, as many as the encoder has embeddings, "
            f"got {tokens:,}; it is truncated or belongs to another checkpoint"
        )
    token, highest = max(tokenizer.get_vocab().items(), key=itemgetter(1))
    if highest >= embedding_rows:
        raise CheckpointError(
            f"{source}: expected ids below {embedding_rows:,}, one for each of the encoder's embeddings, got "
            f"{highest:,} for {token!r}"
        )


def with_max_length(tokenizer: PreTrainedTokenizerFast, max_length: int) -> PreTrainedTokenizerFast:
    """A copy of a tokenizer that states how many tokens to read. It cuts nothing by itself."""
    stating = copy.deepcopy(tokenizer)
    stating.model_max_length = max_length
    return stating


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes a tokenizer, without the limits on length that its last use may have left in it."""
    clean = copy.deepcopy(tokenizer)
    clean.backend_tokenizer.no_truncation()
    clean.backend_tokenizer.no_padding()
    clean.save_pretrained(str(folder))
