"""Tokenizers and lengths that are refused."""

from __future__ import annotations

import pytest
import transformers
from helpers.pair_tokenizers import roberta_like_tokenizer, tokenizer_of

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation


def test_a_slow_tokenizer_is_refused():
    class SlowTokenizer:
        is_fast = False

    with pytest.raises(InputError, match=r"expected a fast tokenizer \(is_fast\), got SlowTokenizer"):
        PairTokenizer(SlowTokenizer())


def test_a_tokenizer_without_padding_token_is_refused():
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=roberta_like_tokenizer().backend_tokenizer)
    with pytest.raises(InputError, match="no padding token"):
        PairTokenizer(tokenizer)


def test_a_tokenizer_whose_pairs_are_not_its_texts_side_by_side_is_refused():
    class Unusual(transformers.PreTrainedTokenizerFast):
        def __call__(self, text, text_pair=None, **options):
            return super().__call__(text, text_pair and f"passage: {text_pair}", **options)

    tokenizer = Unusual(tokenizer_object=tokenizer_of("bert").backend_tokenizer, pad_token="[PAD]")
    with pytest.raises(InputError, match="does not encode a pair as special tokens around separately tokenised texts"):
        PairTokenizer(tokenizer)


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_without_room_for_the_special_tokens_is_refused(max_length):
    with pytest.raises(InputError, match=f"max_length={max_length} leaves no room for the 3 special tokens"):
        PairTokenizer(tokenizer_of("bert"), truncation=Truncation(max_length=max_length))


@pytest.mark.parametrize("max_length", ["512", 1.5, True, 0, -1])
def test_a_length_that_is_no_whole_number_is_refused(max_length):
    with pytest.raises(InputError, match="max_length is a whole number of at least 1 or None, got"):
        PairTokenizer(tokenizer_of("bert"), truncation=Truncation(max_length=max_length))
