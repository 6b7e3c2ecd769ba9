"""Whole words of any script, and which of them the model reads."""

from __future__ import annotations

import copy
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.explain.words import read_pair, word_spans
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation

SNIPPETS = [
    "don't",
    "<b>",
    "👩‍👩‍👧",
    "👍🏽",
    "a\u0301",
    "中文字",
    "これは",
    "สวัสดี",
    "مرحبا",
    "\u200b",
    "\r\n",
    " ",
    "3.14",
]
INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf", "Cn"}  # Cn: assigned since this Python's Unicode
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(SNIPPETS)).map("".join))


@pytest.fixture(scope="module")
def own(tokenizer):
    """A copy, because reading a pair sets its truncation."""
    return copy.deepcopy(tokenizer)


def words(text):
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic: it's 3.14, or 1,000.", ["Don't", "panic", ":", "it's", "3.14", ",", "or", "1,000", "."]),
        ("os.path.join(__init__, foo_bar)", ["os.path.join", "(", "__init__", ",", "foo_bar", ")"]),
        ("<script>x</script>", ["<", "script", ">", "x", "<", "/", "script", ">"]),
        ("a ===== b... -->", ["a", "=====", "b", "...", "--", ">"]),
        ("中文字 これは日本語です カタカナ", ["中", "文", "字", "これは", "日", "本", "語", "です", "カタカナ"]),
        ("สวัสดีครับ मौसम می‌خواهم", ["สวัสดีครับ", "मौसम", "می‌خواهم"]),
        ("👩‍👩‍👧👍🏽🇩🇪 ok", ["👩‍👩‍👧", "👍🏽", "🇩🇪", "ok"]),
        ("nai\u0308ve cafe\u0301", ["nai\u0308ve", "cafe\u0301"]),
        (" \t\u200b\x07 ", []),
        ("", []),
    ],
)
def test_a_word_is_what_a_reader_would_call_one(text, expected):
    assert words(text) == expected


@settings(deadline=None)
@given(TEXTS)
def test_spans_rebuild_the_text_and_leave_out_only_what_is_invisible(text):
    place, rebuilt = 0, ""
    for start, end in word_spans(text):
        assert place <= start < end
        gap = text[place:start]
        assert {unicodedata.category(character) for character in gap} <= INVISIBLE
        rebuilt, place = rebuilt + gap + text[start:end], end
    assert rebuilt + text[place:] == text
    assert {unicodedata.category(character) for character in text[place:]} <= INVISIBLE


@settings(deadline=None)
@given(TEXTS, TEXTS, st.integers(3, 20))
def test_every_token_is_shared_out_among_words_in_full(own, query, text, max_length):
    reading = read_pair(own, query, text, cut=Truncation(max_length=max_length))
    shared = np.zeros(len(reading.input_ids))
    for share in reading.shares:
        assert share.weight > 0
        shared[share.token] += share.weight
    has_words = {part: any(word.part == part for word in reading.words) for part in ("query", "text")}
    if all(has_words.values()):
        np.testing.assert_allclose(shared, [0.0 if part is None else 1.0 for part in reading.parts])
    np.testing.assert_allclose(reading.by_word(np.ones(len(shared))).sum(), shared.sum())


def test_tokens_belong_to_the_words_they_are_pieces_of(own):
    reading = read_pair(own, "unbelievability", "a transformerless e-mail", cut=Truncation(max_length=512))
    pieces = own.convert_ids_to_tokens(reading.input_ids.tolist())
    strings = {"query": "unbelievability", "text": "a transformerless e-mail"}
    for word, (part, start, end) in enumerate(reading.words):
        own = "".join(pieces[share.token].removeprefix("##") for share in reading.shares if share.word == word)
        assert own == strings[part][start:end]


def test_words_that_are_cut_off_are_not_read(own):
    text = "one two three four five six"
    reading = read_pair(own, "query", text, cut=Truncation(max_length=7))
    assert reading.read.tolist() == [True, True, True, True, False, False, False]
    assert text[slice(*reading.window["text"])] == "one two three"
    assert reading.window["query"] == (0, 5)


def test_what_the_tokenizer_drops_is_not_read(own):
    reading = read_pair(own, "a", "", cut=Truncation(max_length=8))
    assert reading.window["text"] == (0, 0)
    assert reading.input_ids.tolist() == own("a")["input_ids"]


def test_a_text_cut_from_the_left_keeps_its_end(tokenizer):
    left = copy.deepcopy(tokenizer)
    left.truncation_side = "left"
    reading = read_pair(left, "query", "one two three four", cut=Truncation(max_length=6))
    assert reading.read.tolist() == [True, False, False, True, True]
    assert "one two three four"[slice(*reading.window["text"])] == "three four"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "cut",
    [
        Truncation(max_length=9),
        Truncation(max_query_length=2),
        Truncation(max_length=12, strategy="only_text"),
        Truncation(max_length=14, strategy="paper"),
    ],
    ids=str,
)
def test_what_is_read_is_what_is_scored_whichever_end_is_cut(tokenizer, side, cut):
    own = copy.deepcopy(tokenizer)
    own.truncation_side = side
    queries = ["what is unbelievability", "one", "a"]
    texts = ["the transformerless quick brown e-mail jumps over it", "", "fox"]
    scored = PairTokenizer(own, truncation=cut).encode(queries, texts)
    for row, (query, text) in enumerate(zip(queries, texts, strict=True)):
        reading = read_pair(own, query, text, cut=cut)
        assert reading.input_ids.tolist() == scored.batch([row]).input_ids.tolist()
    reading = read_pair(own, queries[0], texts[0], cut=cut)
    of_the_query = [read for span, read in zip(reading.words, reading.read, strict=True) if span.part == "query"]
    if cut.max_query_length == 2:
        assert of_the_query == ([False, False, True] if side == "left" else [True, True, False])
