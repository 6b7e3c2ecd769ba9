"""What is taken for a pair, and the values, tokenizers and lengths that are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import transformers
from helpers.pair_tokenizers import pair_tokenizer, roberta_like_tokenizer, tokenizer_of

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation


@pytest.mark.parametrize("sequence", [list, tuple, np.array, pd.Series, pd.array, lambda v: np.array(v, dtype=object)])
def test_any_sequence_of_strings_will_do(sequence):
    pairs = pair_tokenizer("bert", 16).encode(sequence(["a query", "another"]), sequence(["a text", ""]))
    expected = pair_tokenizer("bert", 16).encode(["a query", "another"], ["a text", ""])
    assert pairs.batch([0, 1]).padded().input_ids.tolist() == expected.batch([0, 1]).padded().input_ids.tolist()


@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), (float("nan"), "float"), (pd.NA, "NAType"), (3, "int"), (b"x", "bytes")]
)
def test_a_value_that_is_no_string_is_named_by_position_and_type(value, kind):
    with pytest.raises(InputError, match=rf"texts\[1\] is .* of type {kind}, expected a string"):
        pair_tokenizer("bert", 16).encode(["a", "b"], ["x", value])
    with pytest.raises(InputError, match=rf"queries\[0\] is .* of type {kind}"):
        pair_tokenizer("bert", 16).encode([value, "b"], ["x", "y"])


def test_a_lone_surrogate_is_named_by_position():
    with pytest.raises(InputError, match=r"texts\[1\] has the lone surrogate '\\ud800' at character 2"):
        pair_tokenizer("bert", 16).encode(["a", "b"], ["x", "ab\ud800"])
    pair_tokenizer("bert", 16).encode(["a"], ["x"])


def test_a_single_string_is_not_a_list_of_its_letters():
    with pytest.raises(InputError, match="got one str: put it in a list"):
        pair_tokenizer("bert", 16).encode("ab", ["x", "y"])


def test_unequal_numbers_of_queries_and_texts_are_refused():
    with pytest.raises(InputError, match="got 2 queries and 1 texts"):
        pair_tokenizer("bert", 16).encode(["a", "b"], ["x"])


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


@pytest.mark.parametrize("max_length", ["512", 1.5, True, None, 0, -1])
def test_a_length_that_is_no_whole_number_is_refused(max_length):
    with pytest.raises(InputError, match="max_length is a whole number of tokens, at least 1, got"):
        PairTokenizer(tokenizer_of("bert"), truncation=Truncation(max_length=max_length))
