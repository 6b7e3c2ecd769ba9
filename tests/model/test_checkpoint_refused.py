"""What can be wrong with a checkpoint: damaged or foreign folders, code in them, and names that are none."""

import json
import re

import pytest
from helpers.checkpoint_edits import edit_config

from pyterrier_bertcat.errors import CheckpointError, InputError
from pyterrier_bertcat.model.checkpoint import load_checkpoint

# --- what can be wrong with a folder ---------------------------------------------------------------------------------


def test_an_empty_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected a config\.json, found none"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "\xff"])
def test_a_damaged_config_is_named(content, folder):
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.json: expected"):
        load_checkpoint(folder)


@pytest.mark.parametrize("model_type", ["t5", "gpt2", "BERT_Dot", None, 7])
def test_a_foreign_model_type_is_refused(model_type, folder):
    edit_config(folder, model_type=model_type)
    with pytest.raises(CheckpointError, match=re.escape(f"got {model_type!r}")):
        load_checkpoint(folder)


def test_code_in_a_checkpoint_is_not_run(folder, tiny_checkpoint, tmp_path):
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    edit_config(folder, auto_map={"AutoModel": "modeling.Evil", "AutoConfig": "modeling.Evil"})
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["modeling.Evil", None]}}))
    assert load_checkpoint(folder).fingerprint == tiny_checkpoint.fingerprint
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("change", [{"dim": 64}, {"n_layers": 3}, {"n_layers": 1}, {"n_heads": 5}, {"dim": "wide"}])
def test_a_config_of_other_weights_is_refused(change, tiny_checkpoint, folder):
    edit_config(folder, encoder={**tiny_checkpoint.model.config.encoder, **change})
    with pytest.raises(CheckpointError, match=re.escape(str(folder))):
        load_checkpoint(folder)


def test_a_missing_tokenizer_is_refused(folder):
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json or vocab\.txt"):
        load_checkpoint(folder)


def test_an_encoder_that_nobody_knows_is_refused_with_what_to_do(folder):
    edit_config(folder, encoder=None, bert_model="somebody/private-encoder")
    with pytest.raises(CheckpointError, match=r"config\.json: the encoder 'somebody/private-encoder'.*key 'encoder'"):
        load_checkpoint(folder)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../elsewhere", "a/../../b", "/no/such/folder", "~/models", "./mini", "a\\b", "a/b/c", "a--b/c", "", "."]
)
def test_paths_that_are_no_folders_and_names_that_are_no_names_are_refused(name):
    with pytest.raises(CheckpointError):
        load_checkpoint(name)


def test_a_revision_belongs_to_the_hub(folder):
    for name in (folder, str(folder), "mini"):
        with pytest.raises(InputError, match="needs a name on the hub"):
            load_checkpoint(name, revision="main")


def test_a_path_object_is_never_looked_up_on_the_hub(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(tmp_path / "absent")
