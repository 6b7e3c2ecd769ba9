from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import tiny_model

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.backends.torch import TorchBackend

pytestmark = pytest.mark.precision

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


@pytest.mark.usefixtures("half_precision")
def test_half_precision_leaves_the_callers_model_as_it_was(batch):
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


@pytest.mark.usefixtures("half_precision")
def test_the_last_layer_is_not_rounded_to_half_precision(batch):
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


@pytest.mark.parametrize("pairs", [1, 5])
def test_batches_of_all_sizes_come_to_few_shapes(tokenizer, monkeypatch, pairs):
    """Because what oneDNN keeps for each shape adds up to gigabytes."""
    words = PairTokenizer(tokenizer).encode([QUERIES[0]] * 40, ["fox " * count for count in range(1, 41)])
    backend, shapes = TorchBackend(tiny_model(), device="cpu"), set()
    path = backend._placed.path
    monkeypatch.setattr(
        backend._placed, "path", lambda tokens, attention: shapes.add(len(tokens.input_ids)) or path(tokens, attention)
    )
    batches = [words.batch(range(row, row + pairs)) for row in range(40 - pairs + 1)]
    scores = [backend.start(batch)() for batch in batches]
    assert {len(found) for found in scores} == {pairs}
    assert len(shapes) <= max(len(batch.input_ids) for batch in batches) // 32 + 1
    assert len({len(batch.input_ids) for batch in batches}) > 3 * len(shapes)


def test_a_model_with_few_positions_scores_its_longest_pair(tokenizer):
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=20)
    model = BertCatModel(BertCatConfig.from_encoder_config(config)).eval()
    batch = PairTokenizer(tokenizer, truncation=Truncation(max_length=20)).encode(QUERIES, TEXTS).batch(range(5))
    alone = [TorchBackend(model, device="cpu").start(batch[row : row + 1])().item() for row in range(5)]
    np.testing.assert_allclose(TorchBackend(model, device="cpu").start(batch)(), alone, atol=5e-5)
    padded = batch.padded()
    with torch.no_grad():
        expected = model(torch.tensor(padded.input_ids), torch.tensor(padded.attention_mask))
    np.testing.assert_allclose(alone, expected.numpy(), atol=5e-5)
