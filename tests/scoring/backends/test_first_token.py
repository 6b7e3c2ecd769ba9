from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.pairs.batches import PairBatch
from pyterrier_bertcat.scoring.backends.attention import Attention, EqualLengthAttention, PaddedAttention
from pyterrier_bertcat.scoring.backends.first_token import FirstTokenPath, Tokens, has_first_token_path
from pyterrier_bertcat.scoring.backends.fused_linear import FusedLinear, fastest_linear

pytestmark = pytest.mark.precision

CPU = torch.device("cpu")
FASTEST = fastest_linear(CPU, torch.float32)
KINDS = ["distilbert", "bert", "electra"]


def random_batch(lengths: list[int], seed: int = 0) -> PairBatch:
    """Token ids and types at random, for pairs of these lengths."""
    numbers = np.random.default_rng(seed)
    ids = numbers.integers(1000, 30_000, sum(lengths))
    return PairBatch(np.array(lengths), ids, numbers.integers(0, 2, sum(lengths)), (0, 0))


def packed(batch: PairBatch) -> tuple[Tokens, Attention]:
    arrays = batch.input_ids, batch.position_ids, batch.token_type_ids
    return Tokens(*map(torch.from_numpy, arrays)), EqualLengthAttention(batch.lengths)


def padded(batch: PairBatch) -> tuple[Tokens, Attention]:
    rectangle = batch.padded()
    ids, types = torch.from_numpy(rectangle.input_ids), torch.from_numpy(rectangle.token_type_ids)
    return Tokens.of_padded(ids, types), PaddedAttention(torch.from_numpy(rectangle.attention_mask))


def reference(encoder: transformers.PreTrainedModel, batch: PairBatch) -> torch.Tensor:
    """The encoder's own forward pass, one pair at a time."""
    vectors = []
    for row in range(len(batch)):
        one = batch[row : row + 1]
        inputs = {"input_ids": torch.from_numpy(one.input_ids)[None]}
        if not isinstance(encoder, transformers.DistilBertModel):
            inputs["token_type_ids"] = torch.from_numpy(one.token_type_ids)[None]
        vectors.append(encoder(**inputs)[0][0, 0])
    return torch.stack(vectors)


@pytest.fixture(scope="module", params=KINDS)
def encoder(request) -> transformers.PreTrainedModel:
    return tiny_model(request.param).bert_model


@pytest.mark.parametrize("linear", [FusedLinear, FASTEST])
@pytest.mark.parametrize("layout", [packed, padded])
@settings(max_examples=12)
@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_the_first_token_is_that_of_the_whole_encoder(encoder, layout, linear, lengths, seed):
    batch = random_batch(lengths, seed)
    with torch.inference_mode():
        got = FirstTokenPath(encoder, linear=linear)(*layout(batch))
        torch.testing.assert_close(got, reference(encoder, batch), rtol=0, atol=5e-5)


@pytest.mark.parametrize("layout", [packed, padded])
def test_a_real_encoder_at_its_full_length(minilm_folder, layout):
    real = transformers.AutoModel.from_pretrained(str(minilm_folder), dtype=torch.float32)
    batch = random_batch([512, 300, 300, 7])
    with torch.inference_mode():
        got = FirstTokenPath(real, linear=FASTEST)(*layout(batch))
        torch.testing.assert_close(got, reference(real, batch), rtol=0, atol=5e-5)


def test_narrow_embeddings_are_projected():
    config = tiny_encoder_config("electra")
    config.embedding_size = 16
    torch.manual_seed(0)
    electra = transformers.ElectraModel(config).eval()
    batch = random_batch([9, 5])
    with torch.inference_mode():
        got = FirstTokenPath(electra)(*packed(batch))
        torch.testing.assert_close(got, reference(electra, batch), rtol=0, atol=5e-5)


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "gelu_python"])
@pytest.mark.parametrize("linear", [FusedLinear, FASTEST])
def test_every_activation_is_the_encoders(activation, linear):
    config = tiny_encoder_config("bert")
    config.hidden_act = activation
    torch.manual_seed(0)
    bert = transformers.BertModel(config).eval()
    for parameter in bert.parameters():
        parameter.data.mul_(3)
    batch = random_batch([9, 9, 5])
    with torch.inference_mode():
        got = FirstTokenPath(bert, linear=linear)(*packed(batch))
        torch.testing.assert_close(got, reference(bert, batch), rtol=0, atol=5e-5)


def test_the_last_layer_is_computed_for_first_tokens_only(monkeypatch):
    encoder = tiny_model().bert_model
    rows: list[int] = []
    for layer in encoder.transformer.layer:
        for module in (layer.attention.q_lin, layer.attention.k_lin, layer.ffn.lin1, layer.ffn.lin2):
            module.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    with torch.inference_mode():
        FirstTokenPath(encoder)(*packed(random_batch([9, 5, 5])))
    assert rows == [19, 19, 19, 19, 3, 19, 3, 3]  # query, key, and twice feed-forward, of both layers


class Subclass(transformers.BertModel):
    """Who knows what its forward pass does."""


def test_only_encoders_that_are_known_take_the_path(encoder):
    assert has_first_token_path(encoder)
    roberta = transformers.RobertaConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    assert not has_first_token_path(transformers.RobertaModel(roberta))
    assert not has_first_token_path(Subclass(tiny_encoder_config("bert")))
    decoder = copy.deepcopy(tiny_model("bert").bert_model)
    decoder.config.is_decoder = True
    assert not has_first_token_path(decoder)
    relative = copy.deepcopy(tiny_model("bert").bert_model)
    relative.config.position_embedding_type = "relative_key"
    assert not has_first_token_path(relative)
