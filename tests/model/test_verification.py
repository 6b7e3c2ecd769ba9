"""verify: known answers are met, and a checkpoint that was tampered with is found out."""

import numpy as np
import pytest
import torch
from helpers.tiny_models import tiny_encoder_config, tiny_model

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.names import PUBLISHED
from pyterrier_bertcat.model.verification import (
    PUBLISHED_SCORES,
    record_known_scores,
    verify_checkpoint,
)

PAIRS = [("what is a cat", "a small animal that purrs"), ("what is a cat", "a Unix command"), ("", "🤗")]


def scorer(checkpoint):
    def score(queries, texts):
        batch = checkpoint.tokenizer(queries, texts, padding=True, return_tensors="pt")
        with torch.no_grad():
            return checkpoint.model(batch["input_ids"], batch["attention_mask"]).numpy()

    return score


def plain_score(weights, tokenizer, query, text):
    """What the paper's model is, written down once more: AutoModel and a linear layer."""
    import transformers

    encoder = transformers.AutoModel.from_config(tiny_encoder_config()).eval()
    own = {name[len("bert_model.") :]: tensor for name, tensor in weights.items() if name.startswith("bert_model.")}
    encoder.load_state_dict(own, strict=True)
    batch = tokenizer([query], [text], return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        vector = encoder(**batch).last_hidden_state[0, 0]
        return float(vector @ weights["_classification_layer.weight"][0] + weights["_classification_layer.bias"][0])


@pytest.fixture
def folder(tokenizer, tmp_path):
    """A saved checkpoint whose known answers come from plain AutoModel, not from this package."""
    model = tiny_model()
    model.config.known_scores = [
        {"query": query, "text": text, "score": plain_score(model.state_dict(), tokenizer, query, text)}
        for query, text in PAIRS
    ]
    return save_checkpoint(Checkpoint(model=model, tokenizer=tokenizer), tmp_path / "saved")


def test_a_sound_checkpoint_passes(folder):
    checkpoint = load_checkpoint(folder)
    report = verify_checkpoint(checkpoint, scorer(checkpoint))
    assert report.passed
    assert report.largest_difference < 1e-5
    assert [(row.query, row.text) for row in report.rows] == PAIRS
    assert len({round(row.got, 3) for row in report.rows}) == len(PAIRS), "the answers must differ to prove anything"
    assert str(folder) in str(report)


@pytest.mark.parametrize("name", ["_classification_layer.bias", "bert_model.transformer.layer.1.ffn.lin2.bias"])
def test_a_tampered_weight_is_found_out(name, folder):
    checkpoint = load_checkpoint(folder)
    with torch.no_grad():
        checkpoint.model.get_parameter(name)[0] += 0.5
    with pytest.raises(CheckpointError, match=r"NOT as known \(largest difference 0\.\d+, 0\.001 allowed\)"):
        verify_checkpoint(checkpoint, scorer(checkpoint))


def test_a_score_that_is_no_number_does_not_pass(folder):
    checkpoint = load_checkpoint(folder)
    with pytest.raises(CheckpointError, match=r"NOT as known \(largest difference nan"):
        verify_checkpoint(checkpoint, lambda queries, texts: np.full(len(queries), np.nan, np.float32))


def test_the_tolerance_is_the_callers(folder):
    checkpoint = load_checkpoint(folder)
    score = scorer(checkpoint)
    with pytest.raises(CheckpointError, match=r"0\.001 allowed"):
        verify_checkpoint(checkpoint, lambda *pairs: score(*pairs) + 0.01)
    assert verify_checkpoint(checkpoint, lambda *pairs: score(*pairs) + 0.01, tolerance=0.02).passed


def test_recorded_answers_are_saved_and_met(tiny_checkpoint, tmp_path):
    checkpoint = Checkpoint(model=tiny_model(seed=2), tokenizer=tiny_checkpoint.tokenizer)
    record_known_scores(checkpoint, scorer(checkpoint), PAIRS)
    loaded = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "saved"))
    assert verify_checkpoint(loaded, scorer(loaded)).largest_difference < 1e-6


def test_without_known_answers_there_is_an_error(tiny_checkpoint):
    with pytest.raises(CheckpointError, match=r"no score of 'in memory' is known.* verify --published"):
        verify_checkpoint(tiny_checkpoint, scorer(tiny_checkpoint))


def test_malformed_known_answers_are_named(folder):
    checkpoint = load_checkpoint(folder)
    checkpoint.model.config.known_scores = [{"query": "q"}]
    with pytest.raises(CheckpointError, match="list of objects with query, text and score"):
        verify_checkpoint(checkpoint, scorer(checkpoint))


@pytest.mark.parametrize("source", [PUBLISHED, f"{PUBLISHED}@main"])
def test_the_published_checkpoint_is_held_to_its_model_card(source, tiny_checkpoint):
    impostor = Checkpoint(model=tiny_checkpoint.model, tokenizer=tiny_checkpoint.tokenizer, source=source)
    with pytest.raises(CheckpointError, match=r"expected 5\.899686"):
        verify_checkpoint(impostor, scorer(impostor))
    answers = np.array([5.8997, 2.2803], np.float32)
    assert verify_checkpoint(impostor, lambda queries, texts: answers).passed


def test_a_local_copy_can_be_held_to_the_published_answers(tiny_checkpoint):
    answers = np.array([score for _, _, score in PUBLISHED_SCORES], np.float32)
    report = verify_checkpoint(tiny_checkpoint, lambda queries, texts: answers, known=PUBLISHED_SCORES)
    assert report.largest_difference < 1e-6
