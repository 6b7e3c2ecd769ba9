"""BertCatConfig: reads the published file, needs no network, and describes its encoder completely."""

import json

import pytest
import transformers
from helpers.tiny_models import tiny_encoder_config

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.config import BertCatConfig, encoder_facts, find_encoder_config

PUBLISHED = {
    "architectures": ["BERT_Cat"],
    "bert_model": "distilbert-base-uncased",
    "model_type": "BERT_Cat",
    "transformers_version": "4.5.1",
}


def test_the_published_config_means_distilbert_base():
    encoder = BertCatConfig(**PUBLISHED).encoder_config
    assert encoder.to_dict() == transformers.DistilBertConfig().to_dict()
    assert BertCatConfig(**PUBLISHED).hidden_size == 768


@pytest.mark.parametrize(
    ("name", "model_type", "layers", "hidden"),
    [
        ("distilbert/distilbert-base-uncased", "distilbert", 6, 768),
        ("bert-base-uncased", "bert", 12, 768),
        ("google-bert/bert-large-uncased", "bert", 24, 1024),
        ("google/electra-small-discriminator", "electra", 12, 256),
        ("google/electra-base-discriminator", "electra", 12, 768),
        ("microsoft/MiniLM-L12-H384-uncased", "bert", 12, 384),
    ],
)
def test_well_known_encoders_need_no_network(name, model_type, layers, hidden):
    config = find_encoder_config(name)
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == (model_type, layers, hidden)
    assert config.vocab_size == 30522


def test_the_minilm_entry_is_what_its_folder_says(minilm_folder):
    real = encoder_facts(transformers.AutoConfig.from_pretrained(str(minilm_folder)))
    ours = encoder_facts(find_encoder_config("sentence-transformers/all-MiniLM-L6-v2"))
    differing = {key for key in ours if ours[key] != real.get(key)}
    assert not differing


@pytest.mark.parametrize("name", ["somebody/never-heard-of", "../../etc", "/tmp", "C:\\models", "", "a/b/c"])
def test_an_unknown_encoder_says_what_to_do(name):
    with pytest.raises(CheckpointError, match="under the key 'encoder'"):
        find_encoder_config(name)


def test_a_path_in_the_config_is_not_followed_even_if_it_exists(tmp_path):
    transformers.DistilBertConfig().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="not among the well-known"):
        BertCatConfig(bert_model=str(tmp_path)).encoder_config  # noqa: B018


def test_a_folder_that_is_called_like_a_hub_name_is_not_read_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    transformers.DistilBertConfig().save_pretrained("somebody/encoder")
    with pytest.raises(CheckpointError, match="also a file or folder here"):
        find_encoder_config("somebody/encoder")


def test_an_encoder_of_an_unknown_type_is_refused():
    with pytest.raises(CheckpointError, match="model_type='telepathy'"):
        BertCatConfig(encoder={"model_type": "telepathy"}).encoder_config  # noqa: B018


@pytest.mark.parametrize("kind", ["distilbert", "bert", "electra"])
def test_it_survives_json(kind, tmp_path):
    encoder = tiny_encoder_config(kind)
    config = BertCatConfig.from_encoder_config(encoder, bert_model="somebody/tiny")
    config.known_scores = [{"query": "q", "text": "t", "score": 1.5}]
    config.save_pretrained(tmp_path)
    again = BertCatConfig.from_pretrained(tmp_path)
    assert encoder_facts(again.encoder_config) == encoder_facts(encoder)
    assert again.bert_model == "somebody/tiny"
    assert again.known_scores == config.known_scores
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "BERT_Cat"


def test_a_folder_of_this_machine_does_not_get_into_the_config(minilm_folder):
    encoder = transformers.AutoConfig.from_pretrained(str(minilm_folder))
    config = BertCatConfig.from_encoder_config(encoder)
    assert config.bert_model == "bert"
    assert str(minilm_folder) not in config.to_json_string()


def test_the_precision_of_a_stored_encoder_does_not_get_into_the_config():
    encoder = tiny_encoder_config()
    encoder.torch_dtype = "float16"
    assert not {"dtype", "torch_dtype"} & BertCatConfig.from_encoder_config(encoder).encoder.keys()


def test_auto_config_knows_it_once_the_model_is_imported(tmp_path):
    import pyterrier_bertcat.model.bert_cat  # noqa: F401

    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED))
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), BertCatConfig)
