"""Tokenizers: fast ones from whatever files there are, and only with the vocabulary that the encoder was trained on."""

import json

import pytest
import transformers
from helpers.tiny_models import tiny_encoder_config

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.tokenizer import load_tokenizer, save_tokenizer

TEXTS = ["Naïve CAFÉ", "中文字 mixed", "don't e-mail 3.14", "🤗 \u200b\x07 tab\t", "", "unaffable zzqxj"]


@pytest.fixture
def vocabulary_folder(minilm_folder, tmp_path):
    (tmp_path / "vocab.txt").write_bytes((minilm_folder / "vocab.txt").read_bytes())
    return tmp_path


@pytest.mark.parametrize("kind", ["distilbert", "bert", "electra"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_vocabulary_alone_is_enough_whatever_its_line_ends(kind, line_end, vocabulary_folder, tokenizer):
    path = vocabulary_folder / "vocab.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", line_end))
    loaded = load_tokenizer(vocabulary_folder, tiny_encoder_config(kind))
    assert loaded.is_fast
    assert len(loaded) == 30522
    for text in TEXTS:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", ["distilbert", "bert"])
def test_it_survives_saving_whatever_it_was_last_used_for(kind, vocabulary_folder, tmp_path):
    loaded = load_tokenizer(vocabulary_folder, tiny_encoder_config(kind))
    before = [loaded(text)["input_ids"] for text in TEXTS]
    loaded(TEXTS, truncation=True, max_length=3, padding="max_length")
    save_tokenizer(loaded, tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved", tiny_encoder_config(kind))
    assert [again(text)["input_ids"] for text in TEXTS] == before
    assert again.backend_tokenizer.truncation is None
    assert again.backend_tokenizer.padding is None
    assert loaded.backend_tokenizer.truncation is not None, "saving must leave the one in use alone"


def test_a_cased_tokenizer_stays_cased(vocabulary_folder):
    (vocabulary_folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    loaded = load_tokenizer(vocabulary_folder, tiny_encoder_config())
    assert loaded("The")["input_ids"] != loaded("the")["input_ids"]


def test_no_vocabulary_is_an_error_not_an_empty_tokenizer(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json or vocab\.txt, found none"):
        load_tokenizer(tmp_path, tiny_encoder_config())


@pytest.mark.parametrize("kept", [30521, 30000, 200])
def test_a_truncated_vocabulary_is_refused_with_both_sizes(kept, vocabulary_folder):
    path = vocabulary_folder / "vocab.txt"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:kept]))
    with pytest.raises(CheckpointError, match=f"30,522 tokens.* got {kept:,}"):
        load_tokenizer(vocabulary_folder, tiny_encoder_config())


def test_a_longer_vocabulary_is_refused(vocabulary_folder):
    with (vocabulary_folder / "vocab.txt").open("a") as file:
        file.write("onemoreword\n")
    with pytest.raises(CheckpointError, match="got 30,523"):
        load_tokenizer(vocabulary_folder, tiny_encoder_config())


def test_padded_embeddings_are_accepted(vocabulary_folder):
    config = tiny_encoder_config()
    config.vocab_size = 30528
    assert len(load_tokenizer(vocabulary_folder, config)) == 30522


def test_a_cut_vocabulary_of_any_size_works(vocabulary_folder):
    path = vocabulary_folder / "vocab.txt"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:12_003]))
    config = tiny_encoder_config("bert")
    config.vocab_size = 12_003
    loaded = load_tokenizer(vocabulary_folder, config)
    assert max(loaded("the cat 🤗 unaffable")["input_ids"]) < 12_003


def test_a_damaged_tokenizer_file_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(CheckpointError, match=r"can't read the tokenizer; check tokenizer\.json"):
        load_tokenizer(tmp_path, tiny_encoder_config())


def test_other_encoders_use_their_own_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        load_tokenizer(tmp_path, transformers.RobertaConfig())


@pytest.mark.parametrize("stated", ["BertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer", "Evil", None])
def test_whichever_class_wrote_the_folder_the_ids_are_the_same(stated, vocabulary_folder, tokenizer):
    (vocabulary_folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": stated}))
    loaded = load_tokenizer(vocabulary_folder, tiny_encoder_config())
    assert [loaded(text)["input_ids"] for text in TEXTS] == [tokenizer(text)["input_ids"] for text in TEXTS]
