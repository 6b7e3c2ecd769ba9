"""Checkpoints: the published layout and our own, from folders; self-contained, and known by their fingerprint."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config, tiny_model
from safetensors.torch import load_file

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

KINDS = ["distilbert", "bert", "electra"]
PUBLISHED_CONFIG = """{
  "architectures": [
    "BERT_Cat"
  ],
  "bert_model": "distilbert-base-uncased",
  "model_type": "BERT_Cat",
  "transformers_version": "4.5.1"
}"""
SPECIAL_TOKENS = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
QUERIES = ["what is the transformers library", "naïve CAFÉ 中文", "cat"]
TEXTS = ["a library of models 🤗", "the cat sat on the mat " * 9, "it's a cat-flap"]


def scores_of(checkpoint):
    batch = checkpoint.tokenizer(QUERIES, TEXTS, padding=True, return_tensors="pt")
    types = batch["token_type_ids"] if checkpoint.model.uses_token_types else None
    with torch.no_grad():
        return checkpoint.model(batch["input_ids"], batch["attention_mask"], types).numpy()


def assert_same_scores(one, other):
    # Weights mapped from a file lie at other addresses, for which the processor may add in another order.
    np.testing.assert_allclose(scores_of(one), scores_of(other), rtol=0, atol=1e-6)


@pytest.fixture
def checkpoint(tokenizer):
    return Checkpoint(model=tiny_model(), tokenizer=tokenizer)


@pytest.fixture(scope="module")
def published_folder(tmp_path_factory, minilm_folder):
    """The published files, byte for byte in their layout and full size, but for the weights' values."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    encoder = transformers.DistilBertModel(transformers.DistilBertConfig())
    head = torch.nn.Linear(768, 1)
    weights = {f"bert_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights["bert_model.embeddings.position_ids"] = torch.arange(512).expand(1, -1)
    weights |= {f"_classification_layer.{name}": tensor for name, tensor in head.state_dict().items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(PUBLISHED_CONFIG)
    (folder / "vocab.txt").write_bytes((minilm_folder / "vocab.txt").read_bytes().replace(b"\n", b"\r\n"))
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **SPECIAL_TOKENS}))
    yield folder, encoder.eval(), head
    shutil.rmtree(folder)


def test_the_published_layout_loads_without_network_and_scores_exactly(published_folder, tokenizer):
    folder, encoder, head = published_folder
    assert (folder / "vocab.txt").stat().st_size == 262_030
    loaded = load_checkpoint(folder)
    assert isinstance(loaded.model, BertCatModel)
    assert loaded.source == str(folder)
    assert not loaded.model.training
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    for query, text in zip(QUERIES, TEXTS, strict=True):
        batch = loaded.tokenizer([query], [text], return_tensors="pt")
        assert batch["input_ids"].tolist() == tokenizer([query], [text])["input_ids"]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            expected = head(encoder(**inputs)[0][:, 0]).squeeze(-1)
            torch.testing.assert_close(loaded.model(**inputs), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_loads_the_same_with_no_other_file(kind, tokenizer, tmp_path):
    checkpoint = Checkpoint(model=tiny_model(kind), tokenizer=tokenizer)
    again = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "a" / "b"))
    assert_same_scores(again, checkpoint)
    assert again.fingerprint == checkpoint.fingerprint
    assert again.tokenizer.is_fast
    assert not list(tmp_path.glob("a/.*")), "nothing is left beside the folder"
    assert not list((tmp_path / "a" / "b").glob("*.bin"))
    assert len({path.stat().st_mode for path in (tmp_path / "a" / "b").iterdir()}) == 1, "all may be read by the same"


def test_half_precision_files_are_half_the_size_and_load_as_float32(checkpoint, tmp_path):
    full = save_checkpoint(checkpoint, tmp_path / "full")
    half = save_checkpoint(checkpoint, tmp_path / "half", dtype=torch.float16)
    size = [(path / "model.safetensors").stat().st_size for path in (half, full)]
    assert size[0] < 0.55 * size[1]
    loaded = load_checkpoint(half)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(scores_of(loaded), scores_of(checkpoint), atol=5e-3)
    assert loaded.fingerprint == load_checkpoint(save_checkpoint(loaded, half, dtype=torch.float16)).fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_the_authors_class_takes_the_saved_weights(kind, tokenizer, tmp_path):
    from test_bert_cat import authors_model

    checkpoint = Checkpoint(model=tiny_model(kind), tokenizer=tokenizer)
    folder = save_checkpoint(checkpoint, tmp_path / "saved")
    theirs = authors_model(kind)
    theirs.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    batch = checkpoint.tokenizer(QUERIES, TEXTS, padding=True, return_tensors="pt")
    if not checkpoint.model.uses_token_types:
        batch.pop("token_type_ids", None)
    with torch.no_grad():
        np.testing.assert_allclose(theirs(batch).squeeze(-1).numpy(), scores_of(checkpoint), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_the_authors_class_load_here(kind, tokenizer, tmp_path):
    from test_bert_cat import authors_model

    theirs = authors_model(kind)
    folder = save_checkpoint(Checkpoint(model=tiny_model(kind), tokenizer=tokenizer), tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    loaded = load_checkpoint(folder)
    assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.skipif(int(transformers.__version__.split(".")[0]) >= 5, reason="their class loads on transformers 4 only")
def test_the_authors_from_pretrained_reads_a_saved_folder(checkpoint, tmp_path):
    from test_bert_cat import AuthorsConfig

    class WholeAuthorsModel(transformers.PreTrainedModel):
        config_class = AuthorsConfig
        base_model_prefix = "bert_model"

        def __init__(self, cfg):
            super().__init__(cfg)
            self.bert_model = transformers.AutoModel.from_pretrained(cfg.bert_model)
            self._classification_layer = torch.nn.Linear(self.bert_model.config.hidden_size, 1)

    transformers.AutoModel.from_config(tiny_encoder_config()).save_pretrained(tmp_path / "encoder")
    checkpoint.model.config.bert_model = str(tmp_path / "encoder")
    theirs = WholeAuthorsModel.from_pretrained(save_checkpoint(checkpoint, tmp_path / "saved"))
    ours = checkpoint.model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.state_dict().items())


# --- saving ----------------------------------------------------------------------------------------------------------


def test_saving_over_a_checkpoint_replaces_it_and_leaves_other_files(tokenizer, folder):
    (folder / "README.md").write_text("a card")
    other = Checkpoint(model=tiny_model(seed=7), tokenizer=tokenizer)
    save_checkpoint(other, folder)
    assert load_checkpoint(folder).fingerprint == other.fingerprint
    assert (folder / "README.md").read_text() == "a card"


def test_saving_over_the_folder_that_it_was_loaded_from_works(checkpoint, folder):
    loaded = load_checkpoint(folder)
    save_checkpoint(loaded, folder)
    assert_same_scores(loaded, checkpoint)
    assert_same_scores(load_checkpoint(folder), checkpoint)


class Interrupted(BaseException):
    pass


class InterruptingTokenizer:
    """Stands for Ctrl-C in the middle of a save."""

    def __deepcopy__(self, memo):
        raise Interrupted


def test_an_interrupted_save_leaves_no_new_folder_and_no_changed_one(checkpoint, folder, tmp_path):
    unlucky = Checkpoint(model=tiny_model(seed=7), tokenizer=InterruptingTokenizer())
    for target in (tmp_path / "new", folder):
        with pytest.raises(Interrupted):
            save_checkpoint(unlucky, target)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert load_checkpoint(folder).fingerprint == checkpoint.fingerprint


@pytest.mark.skipif(os.name != "posix", reason="there are no such permissions")
def test_saved_files_are_as_readable_as_other_new_files(checkpoint, tmp_path):
    previous = os.umask(0o022)
    try:
        folder = save_checkpoint(checkpoint, tmp_path / "readable")
    finally:
        os.umask(previous)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_saving_where_a_file_is_says_so(checkpoint, tmp_path):
    (tmp_path / "occupied").write_text("")
    with pytest.raises(CheckpointError, match=r"can't save the checkpoint to .*occupied"):
        save_checkpoint(checkpoint, tmp_path / "occupied")
