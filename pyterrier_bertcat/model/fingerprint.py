"""The fingerprint of a checkpoint: one digest of all that decides its scores. Importing this needs no torch.

Stores, pins and resumed jobs trust it, so whatever is not known to be harmless counts: a fact of the configuration is
left out only if its name is listed here. One folder has one fingerprint on transformers 4.46 and on 5, which know
different keys, fill in different defaults and load the same tokenizer with other details.

The signature of a folder's files tells whether they have changed since their fingerprint was computed, without reading
any weights.
"""

from __future__ import annotations

import hashlib
import json
import stat
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

    from pyterrier_bertcat.model.bert_cat import CrossEncoder

_RULES = 2  # raise it when `checkpoint_digest` computes something else, so that no store remembers an old fingerprint

# Facts of a configuration that can't move a score of an encoder in evaluation mode.
_TRAINING = {
    "finetuning_task", "gradient_checkpointing", "id2label", "initializer_cutoff_factor", "initializer_factor",
    "initializer_range", "label2id", "num_labels", "problem_type", "tie_weights_", "tie_word_embeddings", "trainable",
}  # fmt: skip
_FILES = {
    "architectures", "auto_map", "bert_model", "known_scores", "name_or_path", "prefix",
    "sbert_ce_default_activation_function", "sentence_transformers", "task_specific_params", "tokenizer_class",
    "trained_max_length", "transformers_version",
}  # fmt: skip
_EXECUTION = {
    "attn_implementation", "chunk_size_feed_forward", "dtype", "output_attentions", "output_hidden_states",
    "return_dict", "tf_legacy_loss", "torch_dtype", "torchscript", "use_bfloat16", "use_cache", "use_return_dict",
}  # fmt: skip
_GENERATION = {
    "bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty", "do_sample",
    "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
    "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_return_sequences", "output_scores", "remove_invalid_values", "repetition_penalty",
    "return_dict_in_generate", "suppress_tokens", "temperature", "tie_encoder_decoder", "top_k", "top_p", "typical_p",
}  # fmt: skip
_HARMLESS = _TRAINING | _FILES | _EXECUTION | _GENERATION
# Defaults that stand in files, although a newer configuration class does not have the key any more.
_FORMER_DEFAULTS = {"position_embedding_type": "absolute"}

_SMALL_BYTES = 4 * 1024 * 1024  # configuration and tokenizer: read in a few milliseconds
_SETTLED_S = 3.0  # file systems count time in steps of up to two seconds
_READERS = ("pyterrier-bertcat", "transformers", "tokenizers")  # a new release may read the same files differently

# A pair whose ids show how a tokenizer treats case, accents, scripts, control characters, spaces and unknown words.
_PROBE = ("naïve CAFÉ's  e-mail ", "Ünïcode 中文字 don't 3.14 🤗 \x07\t\u200b i̇stanbul ﬁne zzqxj")


def checkpoint_digest(model: CrossEncoder, tokenizer: PreTrainedTokenizerFast) -> str:
    """Digests everything that decides the scores of a network with its tokenizer: SHA-256 in hex.

    Weights count as float32, whatever their present type is.
    """
    facts = {
        "network": type(model).__name__,
        "configuration": configuration_facts(model.bert_model.config),
        "token types": model.uses_token_types,
        "tokenizer": tokenizer_facts(tokenizer),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    weights = model.published_weights()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def files_signature(folder: Path) -> str | None:
    """Digests the present state of a checkpoint's folder. While it stays the same, so does the fingerprint.

    It covers each file's name, size, inode and times of change, the content of all small files, the folder's path and
    the releases of the packages that read them. Take it *before* you load the checkpoint and again afterwards: only if
    both are equal does it belong to that checkpoint's fingerprint.

    Args:
        folder: Holds the files or links to them, as the hub's cache does.

    Returns:
        SHA-256 in hex. None if a file can't be read, or was changed within the last three seconds, because another
        change right after it might leave no trace.
    """
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), _RULES, *map(version, _READERS)]).encode())
    latest = time.time_ns() - int(_SETTLED_S * 1e9)
    try:
        for path in sorted(folder.iterdir()):
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if max(status.st_mtime_ns, status.st_ctime_ns) > latest:
                return None
            facts = (path.name, status.st_size, status.st_ino, status.st_dev, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(json.dumps(facts).encode())
            if status.st_size <= _SMALL_BYTES:
                digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()


def configuration_facts(config: PretrainedConfig) -> dict[str, Any]:
    """Collects what an encoder's configuration says about its scores, by the names that its class uses.

    Values that are their class's defaults are left out, because versions of transformers know different ones;
    ``model_type`` stands for all of them. So are keys that the class does not know, if they switch something off.
    """
    defaults = {**_FORMER_DEFAULTS, **_plain(type(config)().to_dict())}
    facts = {
        key: value
        for key, value in _plain(config.to_dict()).items()
        if key not in _HARMLESS and not key.startswith("_") and "dropout" not in key
        if value != defaults.get(key)
        if key in defaults or not (value is False or value in ([], {}))
    }
    return {**facts, "model_type": config.model_type}


def tokenizer_facts(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Collects what decides a tokenizer's ids, except the limits on length that its last use has left in it."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    probe = tokenizer(*_PROBE, return_token_type_ids=True)
    return {
        # transformers 5 writes "" for a prefix that is None, and later releases may add switches that are off.
        "model": {key: value for key, value in backend["model"].items() if not (value in (None, "") or value is False)},
        "pre_tokenizer": backend["pre_tokenizer"],
        "post_processor": backend["post_processor"],
        "normalizer": _steps(backend["normalizer"]),
        # transformers 4 and 5 disagree on how special tokens take the spaces around them.
        "added": [[token["id"], token["content"]] if token["special"] else token for token in backend["added_tokens"]],
        "probe": [probe["input_ids"], probe["token_type_ids"]],
        "truncation_side": tokenizer.truncation_side,
    }


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Lists a normalizer's steps without those that tidy spaces, which transformers 5 drops from XLM-R's tokenizer.

    The probe has such spaces: it shows if they make a difference.
    """
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [step for part in normalizer["normalizers"] for step in _steps(part)]
    tidies = normalizer["type"] == "Strip" or normalizer.get("pattern") == {"Regex": " {2,}"}
    return [] if tidies else [normalizer]


def _plain(value: Any) -> Any:
    """Writes a value as JSON would read it back; 1.0 becomes 1."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
