from __future__ import annotations

import copy
import platform
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model

from pyterrier_bertcat.backends.torch import TorchBackend
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pair_batches import PairBatch
from pyterrier_bertcat.pairs import PairTokenizer

QUERIES = ["what is it", "a question about foxes and dogs", "", "short", "what is it"]
TEXTS = ["a text", "the quick brown fox jumps over the lazy dog", "no question here", "", "another text"]


@pytest.fixture(scope="module")
def batch(tokenizer) -> PairBatch:
    return PairTokenizer(tokenizer).encode(QUERIES, TEXTS).batch(range(5))


def plain_scores(model, tokenizer) -> np.ndarray:
    """Encoder, first token, linear layer: one pair at a time, with nothing of this package's engine."""
    scores = []
    for query, text in zip(QUERIES, TEXTS, strict=True):
        encoding = tokenizer(query, text, return_tensors="pt")
        if not model.uses_token_types:
            del encoding["token_type_ids"]
        with torch.no_grad():
            scores.append(model._classification_layer(model.bert_model(**encoding)[0][:, 0]).item())
    return np.array(scores, dtype=np.float32)


@pytest.mark.parametrize("kind", ["distilbert", "bert", "electra"])
def test_scores_are_those_of_encoder_and_linear_layer(kind, tokenizer, batch):
    model = tiny_model(kind)
    scores = TorchBackend(model, device="cpu").start(batch)()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, plain_scores(model, tokenizer), atol=5e-5)
    assert len(set(scores.tolist())) == 5


def test_token_types_reach_the_encoders_that_have_them(batch):
    without = replace(batch, token_type_ids=None)
    bert, distilbert = TorchBackend(tiny_model("bert"), device="cpu"), TorchBackend(tiny_model(), device="cpu")
    assert not np.allclose(bert.start(batch)(), bert.start(without)(), atol=1e-3)
    np.testing.assert_array_equal(distilbert.start(batch)(), distilbert.start(without)())


def test_half_precision_leaves_the_callers_model_as_it_was(tokenizer, batch, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "a machine of unknown speed")  # so that there is no warning
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    single = TorchBackend(model, device="cpu").start(batch)()
    half = TorchBackend(model, device="cpu", dtype="bfloat16").start(batch)()
    assert half.dtype == np.float32
    assert 0 < np.abs(half - single).max() < 0.2
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name])
    np.testing.assert_array_equal(TorchBackend(model, device="cpu").start(batch)(), single)


def test_the_last_layer_is_not_rounded_to_half_precision(batch, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "a machine of unknown speed")
    scores = torch.from_numpy(TorchBackend(tiny_model(), device="cpu", dtype="bfloat16").start(batch)())
    assert (scores.bfloat16().float() != scores).any()


def test_single_precision_on_the_same_device_makes_no_copy(batch):
    model = tiny_model()
    backend = TorchBackend(model, device="cpu")
    before = backend.start(batch)()
    with torch.no_grad():
        model._classification_layer.bias += 1
    np.testing.assert_allclose(backend.start(batch)(), before + 1, atol=1e-5)


def test_a_model_in_training_mode_scores_without_dropout(batch):
    model = tiny_model()
    backend = TorchBackend(model, device="cpu")
    expected = backend.start(batch)()
    model.train()
    np.testing.assert_array_equal(backend.start(batch)(), expected)
    np.testing.assert_array_equal(TorchBackend(model.train(), device="cpu").start(batch)(), expected)


def test_autocast_around_the_call_changes_nothing(batch):
    backend = TorchBackend(tiny_model(), device="cpu")
    expected = backend.start(batch)()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(backend.start(batch)(), expected)


def test_no_gradients_are_kept(batch):
    model = tiny_model()
    TorchBackend(model, device="cpu").start(batch)()
    assert all(weight.grad is None and not weight.is_inference() for weight in model.parameters())


@pytest.mark.parametrize("options", [{"device": "gpu"}, {"device": "cpu", "dtype": "half"}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError):
        TorchBackend(tiny_model(), **options)
