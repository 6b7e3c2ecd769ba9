"""Plain cross-encoders: equal to AutoModelForSequenceClassification on each kind of head, through the same engine."""

import copy
import json

import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.classifier import SequenceClassificationModel

WORDPIECE_KINDS = ["bert", "distilbert", "electra"]
ROBERTA_SHAPE = {
    "vocab_size": 200,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "type_vocab_size": 1,
}


def reference_model(kind, *, labels=1):
    """The Hugging Face class with random weights, spread so that its features leave the linear range."""
    torch.manual_seed(3)
    if kind == "roberta":
        config = transformers.RobertaConfig(**ROBERTA_SHAPE)
    elif kind == "xlm-roberta":
        config = transformers.XLMRobertaConfig(**ROBERTA_SHAPE)
    else:
        config = tiny_encoder_config(kind)
    config.num_labels = labels
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def wrapped(reference):
    model = SequenceClassificationModel(reference.config)
    names = SequenceClassificationModel.internal_names(reference.config, reference.state_dict())
    model.load_state_dict(names, strict=True)
    return model.eval()


def random_batch(kind, length=24):
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 200, (6, length), generator=generator)
    mask = torch.ones_like(ids)
    ids[3:, 15:], mask[3:, 15:] = (1 if "roberta" in kind else 0), 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if kind in ("bert", "electra"):
        batch["token_type_ids"] = (torch.arange(length) > 7).long().expand(6, -1) * mask
    return batch


@pytest.mark.parametrize("kind", [*WORDPIECE_KINDS, "roberta", "xlm-roberta"])
def test_scores_equal_hugging_faces_logits(kind):
    reference = reference_model(kind)
    batch = random_batch(kind)
    with torch.no_grad():
        expected = reference(**batch).logits.squeeze(-1)
        scores = wrapped(reference)(**batch)
    assert expected.std() > 0.01
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.precision
@pytest.mark.parametrize("kind", [*WORDPIECE_KINDS, "roberta"])
def test_the_layers_after_the_encoder_stay_in_float32(kind):
    model = wrapped(reference_model(kind))
    batch = random_batch(kind)
    with torch.no_grad():
        full = model(**batch)
        half = model.cast_encoder(torch.bfloat16)(**batch)
    assert model.encode(**batch).dtype == torch.bfloat16
    assert {p.dtype for p in [*model.dense.parameters(), *model.output.parameters()]} == {torch.float32}
    assert half.dtype == torch.float32
    assert not torch.equal(half, half.bfloat16().float())
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", WORDPIECE_KINDS)
def test_a_folder_of_hugging_face_loads_and_what_is_saved_loads_there(kind, tokenizer, tmp_path):
    reference = reference_model(kind)
    reference.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    checkpoint = load_checkpoint(tmp_path / "theirs")
    batch = random_batch(kind)
    with torch.no_grad():
        expected = reference(**batch).logits.squeeze(-1)
        torch.testing.assert_close(checkpoint.model(**batch), expected, rtol=0, atol=1e-6)

    folder = save_checkpoint(checkpoint, tmp_path / "ours")
    again = load_checkpoint(folder)
    assert again.fingerprint == checkpoint.fingerprint
    back, info = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        torch.testing.assert_close(back(**batch).logits.squeeze(-1), expected, rtol=0, atol=1e-6)


def test_a_roberta_folder_with_its_own_tokenizer_loads(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(f"w{i}" for i in range(195))]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, **special, pad_token="<pad>", unk_token="<unk>", mask_token="<mask>"
    )
    reference = reference_model("roberta")
    reference.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.model.max_positions == 64
    batch = checkpoint.tokenizer(["w1 w2"], ["w3 w4 w5"], return_tensors="pt")
    assert batch["input_ids"].tolist() == [[0, 6, 7, 2, 2, 8, 9, 10, 2]]
    with torch.no_grad():
        expected = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0]
        scores = checkpoint.model(batch["input_ids"], batch["attention_mask"])
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("labels", [2, 3])
def test_more_than_one_logit_is_refused(labels, tokenizer, tmp_path):
    reference_model("bert", labels=labels).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"one logit, got one with {labels}"):
        load_checkpoint(tmp_path)


def test_an_encoder_without_a_head_is_refused(tokenizer, tmp_path):
    config = tiny_encoder_config("bert")
    config.num_labels = 1
    transformers.BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        load_checkpoint(tmp_path)


def test_it_can_be_trained_and_dropout_is_only_then_active():
    model = wrapped(reference_model("electra"))
    batch = random_batch("electra")
    with torch.no_grad():
        torch.testing.assert_close(model(**batch), model(**batch), rtol=0, atol=0)
        model.train()
        assert not torch.equal(model(**batch), model(**batch))
    model(**batch).sum().backward()
    assert all(p.grad is not None for p in [*model.dense.parameters(), *model.output.parameters()])


def test_known_scores_travel_with_it(tokenizer, tmp_path):
    model = wrapped(reference_model("bert"))
    model.config.known_scores = [{"query": "q", "text": "t", "score": 0.5}]
    folder = save_checkpoint(Checkpoint(model=model, tokenizer=tokenizer), tmp_path / "saved")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]
    assert load_checkpoint(folder).model.config.known_scores == model.config.known_scores


def test_it_can_be_copied():
    model = wrapped(reference_model("bert"))
    batch = random_batch("bert")
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(**batch), model(**batch), rtol=0, atol=0)
