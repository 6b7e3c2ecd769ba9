"""Options that can't work are refused when the re-ranker is made."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.reranker import BertCatReRanker


@pytest.mark.parametrize(
    "options",
    [
        {"model": None},
        {"model": ""},
        {"model": 3},
        {"batch_size": 0},
        {"batch_size": -1},
        {"batch_size": 2.0},
        {"batch_size": True},
        {"batch_size": None},
        {"batch_tokens": 0},
        {"max_length": "512"},
        {"text_field": ""},
        {"text_field": None},
        {"text_field": "score"},
        {"text_field": "rank"},
        {"device": 0},
        {"dtype": "int8"},
        {"dtype": torch.float16},
        {"backend": "onnx"},
        {"dtype": "float16", "backend": "openvino"},
        {"dtype": "int8", "backend": "torch"},
        {"calibration": "some text", "backend": "openvino", "dtype": "int8"},
        {"calibration": [], "backend": "openvino", "dtype": "int8"},
        {"calibration": [("a query", None)], "backend": "openvino", "dtype": "int8"},
        {"calibration": ["ab"], "backend": "openvino", "dtype": "int8"},
        {"missing_text": "ignore"},
        {"missing_text": None},
        {"revision": 1},
        {"revision": "sha256:"},
        {"revision": "sha256:not-hexadecimal"},
        {"training": {"steps": 3}},
        {"verbose": "yes"},
    ],
    ids=str,
)
def test_an_option_that_can_not_work_is_refused_at_construction(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(InputError, match=name) as caught:
        BertCatReRanker(**options)
    assert isinstance(caught.value, ValueError)
    assert repr(value) in str(caught.value) or type(value).__name__ in str(caught.value) or value == ""


def test_a_foreign_object_with_a_tokenizer_is_refused():
    class Pipeline:
        tokenizer = fingerprint_of = object()

    with pytest.raises(InputError, match="value of type Pipeline"):
        BertCatReRanker(Pipeline())


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        BertCatReRanker("mini", 16)


def test_a_revision_of_a_model_object_is_refused(tiny_checkpoint):
    with pytest.raises(InputError, match="revision"):
        BertCatReRanker(tiny_checkpoint, revision="main")


def test_calibration_without_int8_is_refused():
    with pytest.raises(InputError, match="calibration is for dtype='int8', got dtype='auto'"):
        BertCatReRanker(calibration=[("a query", "a text")])


def test_a_column_that_is_not_written_may_hold_the_texts():
    assert BertCatReRanker("mini", text_field="passage").text_field == "passage"
    with pytest.raises(InputError, match="text_field='passage' is a column that re-ranking writes"):
        BertCatReRanker("mini", text_field="passage", extra_columns=["passage"])


@pytest.mark.parametrize(("name", "value"), [("depth", 0), ("depth", "x"), ("missing_text", "nope")])
def test_options_that_are_set_later_are_checked_before_they_are_used(name, value, tiny_checkpoint):
    frame = pd.DataFrame([["q", "a fox", "d", "text", 1.0]], columns=["qid", "query", "docno", "text", "score"])
    bertcat = BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)
    bertcat(frame)
    bertcat.set_parameter(name, value)
    with pytest.raises(InputError, match=name):
        bertcat(frame)
