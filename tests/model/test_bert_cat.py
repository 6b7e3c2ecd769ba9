"""BertCatModel: one linear layer on the first token, to the last digit; the authors' class reads its weights."""

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config, tiny_model

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.config import BertCatConfig

KINDS = ["distilbert", "bert", "electra"]
QUERIES = ["what is the transformers library", "cat", "", "naïve café 中文"]
TEXTS = ["a library of models", "the cat sat on the mat " * 20, "empty query", ""]


class AuthorsConfig(transformers.PretrainedConfig):
    """The published class, as in the authors' notebook."""

    model_type = "BERT_Cat"
    bert_model: str
    trainable: bool = True


class AuthorsModel(transformers.PreTrainedModel):
    """The published class, but for the encoder, which its ``from_pretrained`` would download."""

    config_class = AuthorsConfig
    base_model_prefix = "bert_model"

    def __init__(self, cfg, encoder):
        super().__init__(cfg)
        self.bert_model = encoder
        self._classification_layer = torch.nn.Linear(self.bert_model.config.hidden_size, 1)

    def forward(self, query_n_doc_sequence):
        vecs = self.bert_model(**query_n_doc_sequence)[0][:, 0, :]
        return self._classification_layer(vecs)


def authors_model(kind):
    encoder = transformers.AutoModel.from_config(tiny_encoder_config(kind))
    return AuthorsModel(AuthorsConfig(bert_model="the encoder"), encoder).eval()


def batch_for(model, tokenizer):
    batch = tokenizer(QUERIES, TEXTS, padding=True, return_tensors="pt")
    if not model.uses_token_types:
        batch.pop("token_type_ids", None)
    return batch


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_to_the_authors_class_and_back_and_scores_are_equal(kind, tokenizer):
    ours, theirs = tiny_model(kind), authors_model(kind)
    batch = batch_for(ours, tokenizer)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        np.testing.assert_array_equal(ours(**batch).numpy(), theirs(batch).squeeze(-1).numpy())
    back = tiny_model(kind, seed=1)
    back.load_state_dict(authors_model(kind).state_dict(), strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_a_linear_layer_on_the_first_token(kind, tokenizer):
    model = tiny_model(kind)
    batch = batch_for(model, tokenizer)
    with torch.no_grad():
        scores = model(**batch)
        vectors = model.bert_model(**batch).last_hidden_state[:, 0]
        torch.testing.assert_close(model.encode(**batch), vectors, rtol=0, atol=0)
    expected = vectors @ model._classification_layer.weight[0] + model._classification_layer.bias
    torch.testing.assert_close(scores, expected.detach(), rtol=0, atol=1e-6)
    assert (scores.shape, scores.dtype) == ((len(QUERIES),), torch.float32)


def test_token_types_reach_only_encoders_that_have_them(tokenizer):
    batch = tokenizer(QUERIES, TEXTS, padding=True, return_tensors="pt")
    distilbert, bert = tiny_model("distilbert"), tiny_model("bert")
    assert (distilbert.uses_token_types, bert.uses_token_types) == (False, True)
    untyped = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        types = torch.ones_like(batch["input_ids"])
        torch.testing.assert_close(distilbert(**untyped, token_type_ids=types), distilbert(**untyped), rtol=0, atol=0)
        assert (bert(**untyped, token_type_ids=types) - bert(**untyped)).abs().max() > 1e-4


@pytest.mark.precision
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_last_layer_stays_in_float32_when_the_encoder_is_cast(dtype, tokenizer):
    model = tiny_model()
    batch = batch_for(model, tokenizer)
    with torch.no_grad():
        full = model(**batch)
        assert model.cast_encoder(dtype) is model
        assert {p.dtype for p in model.bert_model.parameters()} == {dtype}
        assert {p.dtype for p in model._classification_layer.parameters()} == {torch.float32}
        half = model(**batch)
    assert half.dtype == torch.float32
    assert not torch.equal(half, half.to(dtype).float()), "the scores were rounded to half precision"
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


@pytest.mark.precision
def test_the_last_layer_stays_in_float32_under_autocast(tokenizer):
    model = tiny_model()
    batch = batch_for(model, tokenizer)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model(**batch)
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_labels_are_ignored(tokenizer):
    model = tiny_model()
    batch = batch_for(model, tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch, labels=torch.ones(4)), model(**batch), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_does_not_change_a_score(kind, tokenizer):
    model = tiny_model(kind)
    together = batch_for(model, tokenizer)
    with torch.no_grad():
        scores = model(**together)
        for row, (query, text) in enumerate(zip(QUERIES, TEXTS, strict=True)):
            alone = tokenizer([query], [text], return_tensors="pt")
            torch.testing.assert_close(model(**alone)[0], scores[row], rtol=0, atol=5e-5)


def test_a_roberta_like_encoder_scores_right_up_to_its_last_position():
    torch.manual_seed(0)
    encoder = transformers.RobertaModel(
        transformers.RobertaConfig(
            vocab_size=100,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=66,
            type_vocab_size=1,
        )
    ).eval()
    model = BertCatModel.from_encoder(encoder)
    assert (model.max_positions, model.uses_token_types) == (64, False)
    ids = torch.randint(5, 100, (2, model.max_positions))
    mask = torch.ones_like(ids)
    ids[1, 40:], mask[1, 40:] = 1, 0  # RoBERTa's padding id
    with torch.no_grad():
        expected = model._classification_layer(encoder(input_ids=ids, attention_mask=mask)[0][:, 0])[:, 0]
        torch.testing.assert_close(model(ids, mask), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(model(ids[1:, :40], mask[1:, :40])[0], expected[1], rtol=0, atol=5e-5)
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 65), 5), torch.ones((1, 65), dtype=torch.long))


@pytest.mark.parametrize("kind", KINDS)
def test_max_positions_of_absolute_positions(kind):
    assert tiny_model(kind).max_positions == 512


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_head_goes_on_a_trained_encoder(kind):
    encoder = transformers.AutoModel.from_config(tiny_encoder_config(kind)).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model = BertCatModel.from_encoder(encoder, "somebody/encoder")
    assert model.bert_model is encoder
    assert model.config.bert_model == "somebody/encoder"
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert not model.training
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    assert 0.001 < model._classification_layer.weight.std() < 0.1
    assert model._classification_layer.bias.item() == 0


def test_a_half_precision_encoder_becomes_float32():
    encoder = transformers.AutoModel.from_config(tiny_encoder_config()).half()
    assert {p.dtype for p in BertCatModel.from_encoder(encoder).parameters()} == {torch.float32}


def test_an_encoder_with_other_parts_than_automodel_gives_is_refused():
    encoder = transformers.BertModel(tiny_encoder_config("bert"), add_pooling_layer=False)
    with pytest.raises(CheckpointError, match=r"pooler\.dense"):
        BertCatModel.from_encoder(encoder)


def test_trainable_decides_whether_the_encoder_takes_gradients():
    config = BertCatConfig.from_encoder_config(tiny_encoder_config())
    config.trainable = False
    model = BertCatModel(config)
    assert not any(p.requires_grad for p in model.bert_model.parameters())
    assert all(p.requires_grad for p in model._classification_layer.parameters())


def test_the_config_becomes_self_contained_and_the_model_can_be_copied():
    import copy

    config = BertCatConfig("google/electra-small-discriminator")
    with torch.device("meta"):
        model = BertCatModel(config)
    assert model.config.encoder["model_type"] == "electra"
    tiny = tiny_model()
    assert torch.equal(copy.deepcopy(tiny)._classification_layer.weight, tiny._classification_layer.weight)


def test_automodel_loads_what_hugging_face_saves(tmp_path, tokenizer):
    model = tiny_model("bert")
    model.save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, BertCatModel)
    batch = batch_for(model, tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(again(**batch), model(**batch), rtol=0, atol=0)
    _, info = BertCatModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]


@pytest.mark.parametrize("fault", ["missing", "unexpected"])
def test_from_pretrained_is_strict(fault, tmp_path):
    model = tiny_model()
    weights = dict(model.state_dict())
    if fault == "missing":
        del weights["_classification_layer.bias"]
    else:
        weights["bert_model.extra.weight"] = torch.zeros(3)
    model.save_pretrained(tmp_path, state_dict=weights)
    name = {"missing": "_classification_layer.bias", "unexpected": r"bert_model\.extra\.weight"}[fault]
    with pytest.raises(CheckpointError, match=f"{fault}: {name}"):
        BertCatModel.from_pretrained(tmp_path)
