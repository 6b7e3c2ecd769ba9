"""Families of encoders: one record each, which classifiers, positions and the fast path of scoring read."""

import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config
from transformers import AutoModel

from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.model.families import FAMILIES, classifier_types, family_of
from pyterrier_bertcat.scoring.backends.first_token import has_first_token_path

FAST = ["bert", "distilbert", "electra"]
WHOLE = ["roberta", "xlm-roberta"]
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def tiny_config(kind):
    if kind in FAST:
        return tiny_encoder_config(kind)
    return transformers.AutoConfig.for_model(kind, vocab_size=200, max_position_embeddings=66, **TINY)


def test_every_family_is_tested_here():
    assert set(FAMILIES) == {*FAST, *WHOLE}
    assert classifier_types() == tuple(FAMILIES), "all of them load as classifiers"


@pytest.mark.parametrize("kind", FAST)
def test_the_last_layer_is_computed_for_the_first_token_only(kind):
    encoder = AutoModel.from_config(tiny_config(kind))
    assert has_first_token_path(encoder)
    own_class = type("Own", (type(encoder),), {})
    assert not has_first_token_path(own_class(encoder.config)), "a subclass may compute something else"
    encoder.config.is_decoder = True
    assert not has_first_token_path(encoder)


@pytest.mark.parametrize("kind", WHOLE)
def test_the_whole_encoder_runs_where_its_parts_are_not_named(kind):
    assert not has_first_token_path(AutoModel.from_config(tiny_config(kind)))


@pytest.mark.parametrize("kind", [*FAST, *WHOLE])
def test_a_pair_may_have_as_many_tokens_as_the_encoder_takes(kind):
    model = BertCatModel(BertCatConfig.from_encoder_config(tiny_config(kind))).eval()
    ids = torch.full((1, model.max_positions), 7)
    types = torch.zeros_like(ids)
    longer = torch.full((1, model.max_positions + 1), 7)
    with torch.no_grad():
        assert model(ids, torch.ones_like(ids), types).isfinite().all()
        with pytest.raises((IndexError, RuntimeError)):
            model(longer, torch.ones_like(longer))


@pytest.mark.parametrize(("kind", "takes_them"), [("bert", True), ("electra", True), ("distilbert", False)])
def test_token_types_go_to_encoders_that_take_them(kind, takes_them):
    config = tiny_config(kind)
    config.type_vocab_size = 2
    assert BertCatModel(BertCatConfig.from_encoder_config(config)).uses_token_types == takes_them
    config.type_vocab_size = 1
    assert not BertCatModel(BertCatConfig.from_encoder_config(config)).uses_token_types


def test_an_unknown_family_gets_the_defaults():
    family = family_of(transformers.AlbertConfig())
    assert (family.head, family.layers, family.counts_from_padding) == (None, None, False)
