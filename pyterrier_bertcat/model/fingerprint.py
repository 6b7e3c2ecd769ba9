"""The fingerprint of a checkpoint: one digest of all that decides its scores.

Stores, pins and resumed jobs trust it, so what is not known to be harmless counts: a fact of the configuration is left
out only if its name is listed here. One folder has one fingerprint on transformers 4.46 and on 5, which know different
keys, fill in different defaults and load the same tokenizer with other details.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from pyterrier_bertcat.model.bert_cat import CrossEncoder

# Facts of a configuration that can't move a score of an encoder in evaluation mode.
_TRAINING = {
    "finetuning_task", "gradient_checkpointing", "id2label", "initializer_cutoff_factor", "initializer_factor",
    "initializer_range", "label2id", "num_labels", "problem_type", "tie_weights_", "tie_word_embeddings", "trainable",
}  # fmt: skip
_FILES = {
    "architectures", "auto_map", "bert_model", "known_scores", "name_or_path", "prefix",
    "sbert_ce_default_activation_function", "sentence_transformers", "task_specific_params", "tokenizer_class",
    "transformers_version",
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

# A pair whose ids show how a tokenizer treats case, accents, scripts, control characters, spaces and unknown words.
_PROBE = ("naïve CAFÉ's  e-mail ", "Ünïcode 中文字 don't 3.14 🤗 \x07\t\u200b i̇stanbul ﬁne zzqxj")


def checkpoint_digest(model: CrossEncoder, tokenizer: PreTrainedTokenizerFast) -> str:
    """Digest everything that decides the scores of a network with its tokenizer.

    Args:
        model: Its weights count as float32, whatever their present type is.
        tokenizer: Reads the pairs.

    Returns:
        SHA-256 in hex.
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
        tensor = weights[name].detach().to(device="cpu", dtype=torch.float32).contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def configuration_facts(config: PretrainedConfig) -> dict[str, Any]:
    """Collect what an encoder's configuration says about its scores, by the names that its class uses.

    A value that is its class's default is left out, because versions of transformers differ in which defaults they
    know; ``model_type`` stands for all of them. So is a key that says no, of which the class knows nothing.

    Args:
        config: The encoder's configuration, which is also its head's.

    Returns:
        A JSON object.
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
    """Collect what decides the ids that a tokenizer gives.

    Args:
        tokenizer: The truncation and padding that its last use has left in it don't count.

    Returns:
        A JSON object.
    """
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
    """List a normalizer's steps without those that tidy spaces, which transformers 5 drops from XLM-R's tokenizer.

    The probe has such spaces: it shows if they make a difference.
    """
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [step for part in normalizer["normalizers"] for step in _steps(part)]
    tidies = normalizer["type"] == "Strip" or normalizer.get("pattern") == {"Regex": " {2,}"}
    return [] if tidies else [normalizer]


def _plain(value: Any) -> Any:
    """Write a value as JSON would read it back; 1.0 becomes 1."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
