"""``max_length=None``: how much of a pair is read if you don't say, wherever it is scored, kept or trained on."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from helpers.frames import frame
from helpers.tiny_models import tiny_encoder_config, tiny_model
from helpers.training_collection import HELD_OUT, QUICK, TRAIN

from pyterrier_bertcat.errors import InputError, TruncationWarning
from pyterrier_bertcat.explain.explainer import Explainer
from pyterrier_bertcat.model import fingerprint as checkpoint_files
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.options import ScoringOptions, own_max_length
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.store.score_store import ScoreStore
from pyterrier_bertcat.training.fitting import fit

QUERY = "what does the fox jump over"
TEXTS = ["a dog", "the quick brown fox jumps over the lazy dog " * 8, "a lazy dog sleeps in the sun " * 90]


def stating(checkpoint: Checkpoint, length: object) -> Checkpoint:
    """The checkpoint with a tokenizer that says how many tokens to read."""
    tokenizer = copy.deepcopy(checkpoint.tokenizer)
    tokenizer.model_max_length = length
    return replace(checkpoint, tokenizer=tokenizer)


def with_positions(tokenizer: object, positions: int) -> Checkpoint:
    config = tiny_encoder_config("bert")
    config.max_position_embeddings = positions
    return Checkpoint(BertCatModel(BertCatConfig.from_encoder_config(config)).eval(), tokenizer)


def scores(checkpoint: Checkpoint, length: int | None = None, **options: object) -> np.ndarray:
    truncation = Truncation(max_length=length, **options)
    scorer = PairScorer(checkpoint, truncation=truncation, device="cpu", verbose=False)
    return scorer.score([QUERY] * len(TEXTS), TEXTS)


@pytest.mark.parametrize(
    ("positions", "stated", "read"),
    [
        (512, 128, 128),  # the tokenizer says less than the model can take
        (512, 512, 512),  # the authors' published checkpoint
        (512, 1024, 512),
        (64, 512, 64),
        (64, 32, 32),
        (1024, 1024, 512),  # it only repeats what the model can take
        (1024, 800, 800),
        (512, int(1e30), 512),  # transformers' number for "nothing is stated"
        (512, -1, 512),
    ],
)
def test_a_checkpoint_reads_what_its_tokenizer_states_or_512_or_all_it_can(tokenizer, positions, stated, read):
    checkpoint = stating(with_positions(tokenizer, positions), stated)
    assert own_max_length(checkpoint) == read
    assert PairScorer(checkpoint, device="cpu", verbose=False).max_length == read
    assert PairScorer(checkpoint, passages=Passages(), device="cpu", verbose=False).max_length == read


@pytest.mark.parametrize("nonsense", [None, "128", True, 0, 12.5, float("inf")])
def test_a_tokenizer_that_states_no_number_of_tokens_states_nothing(tiny_checkpoint, nonsense):
    assert stating(tiny_checkpoint, nonsense).stated_max_length is None


def test_what_was_trained_at_all_positions_of_a_long_model_is_read_whole(tokenizer, tmp_path):
    trained = with_positions(tokenizer, 1024).trained_at(1024)
    assert own_max_length(trained) == 1024
    assert own_max_length(load_checkpoint(save_checkpoint(trained, tmp_path / "long"))) == 1024
    assert trained.fingerprint == with_same_weights(trained, tokenizer).fingerprint


def with_same_weights(checkpoint: Checkpoint, tokenizer: object) -> Checkpoint:
    model = copy.deepcopy(checkpoint.model)
    model.config.trained_max_length = None
    return Checkpoint(model, tokenizer)


def test_a_classifier_that_states_128_scores_as_hugging_face_does_at_128(tokenizer, tmp_path):
    """As sentence-transformers' CrossEncoder, which reads the tokenizer's model_max_length."""
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = transformers.BertConfig(**shape, num_labels=1, initializer_range=0.5)
    classifier = transformers.BertForSequenceClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    stated = copy.deepcopy(tokenizer)
    stated.model_max_length = 128
    stated.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    batch = loaded([QUERY] * 3, TEXTS, truncation=True, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (3, 128)
    with torch.no_grad():
        expected = classifier(**batch).logits[:, 0].numpy()
    bertcat = BertCatReRanker(tmp_path, device="cpu", verbose=False)
    assert bertcat.scorer.score([QUERY] * 3, TEXTS) == pytest.approx(expected, abs=5e-5)
    assert bertcat.max_length is None
    asked = BertCatReRanker(tmp_path, max_length=512, device="cpu", verbose=False)
    assert abs(asked.scorer.score([QUERY] * 3, TEXTS) - expected).max() > 1e-3


def test_what_you_ask_for_comes_first_and_is_refused_above_the_positions(tiny_checkpoint):
    stated = stating(tiny_checkpoint, 20)
    assert np.array_equal(scores(stated), scores(tiny_checkpoint, 20))
    assert np.array_equal(scores(stated, 300), scores(tiny_checkpoint, 300))
    assert not np.array_equal(scores(stated), scores(tiny_checkpoint))
    with pytest.raises(InputError, match=r"max_length=513 is more than the 512 positions .*: use max_length=512 or"):
        scores(stated, 513)


def test_the_papers_truncation_keeps_its_own_length(tiny_checkpoint):
    assert np.array_equal(
        scores(stating(tiny_checkpoint, 20), strategy="paper"), scores(tiny_checkpoint, 230, strategy="paper")
    )
    assert np.array_equal(
        scores(tiny_checkpoint, 20, strategy="paper"), scores(stating(tiny_checkpoint, 20), 20, strategy="paper")
    )


def test_an_ensemble_reads_what_each_of_its_members_states(tiny_checkpoint):
    members = [
        BertCatReRanker(one, device="cpu", verbose=False) for one in (tiny_checkpoint, stating(tiny_checkpoint, 20))
    ]
    candidates = frame(TEXTS).assign(query=QUERY)
    with pytest.warns(TruncationWarning):
        mean = BertCatReRanker.mean(members)(candidates).sort_values("docno")["score"].to_numpy()
    assert mean == pytest.approx((scores(tiny_checkpoint) + scores(tiny_checkpoint, 20)) / 2, abs=5e-5)


def test_repr_and_equality_show_what_was_asked(folder):
    none, number = BertCatReRanker(folder), BertCatReRanker(folder, max_length=512)
    for one in (none, none.load()):
        assert one != number
        assert one.max_length is None
        assert repr(one) == f"BertCatReRanker({str(folder)!r})"
    assert repr(number) == f"BertCatReRanker({str(folder)!r}, max_length=512)"


def test_equal_weights_in_memory_that_read_differently_are_not_equal(tiny_checkpoint):
    stated = stating(tiny_checkpoint, 20)
    assert BertCatReRanker(stated) != BertCatReRanker(tiny_checkpoint)
    assert "in memory, 20 tokens" in repr(BertCatReRanker(stated))
    assert BertCatReRanker(stated, max_length=64) == BertCatReRanker(tiny_checkpoint, max_length=64)
    assert pickle.loads(pickle.dumps(BertCatReRanker(stated))) == BertCatReRanker(stated)


def test_statistics_say_how_much_was_read_and_what_was_cut(tiny_checkpoint):
    bertcat = BertCatReRanker(stating(tiny_checkpoint, 20), device="cpu", verbose=False)
    with pytest.warns(TruncationWarning, match="2 of 3 pairs were too long"):
        bertcat(frame(TEXTS).assign(query=QUERY))
    assert (bertcat.stats.max_length, bertcat.stats.truncated_texts) == (20, 2)


def test_an_explanation_reads_what_is_scored(tiny_checkpoint):
    stated = stating(tiny_checkpoint, 20)
    scorer = PairScorer(stated, device="cpu", verbose=False)
    words = Explainer(stated, scorer, verbose=False).explain(QUERY, TEXTS[1]).words
    assert sum(word.read for word in words) == 17  # and three special tokens


def test_facts_of_a_length_that_no_checkpoint_has_filled_in_are_refused(tiny_checkpoint):
    with pytest.raises(InputError, match="max_length=None is no fact without a checkpoint"):
        ScoringOptions().facts()
    asked = ScoringOptions(truncation=Truncation(max_length=20))
    assert ScoringOptions().for_checkpoint(stating(tiny_checkpoint, 20)).facts() == asked.facts()
    papers = [ScoringOptions(truncation=Truncation(strategy="paper", max_length=length)) for length in (None, 512)]
    assert papers[0].for_checkpoint(stating(tiny_checkpoint, 20)).facts() == papers[1].facts()


@pytest.mark.filterwarnings("ignore:.* too long")
def test_a_store_shares_scores_that_were_read_alike_and_no_others(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "_SETTLED_S", -60.0)
    shorter = save_checkpoint(stating(load_checkpoint(folder), 20), tmp_path / "shorter")
    candidates, store = frame(TEXTS).assign(query=QUERY), ScoreStore(tmp_path / "store")

    def from_store(model: object, **options: object) -> int:
        bertcat = BertCatReRanker(model, store=store, device="cpu", verbose=False, **options)
        again = bertcat(candidates).sort_values("docno")["score"].to_numpy()
        fresh = BertCatReRanker(model, device="cpu", verbose=False, **options)(candidates)
        assert np.array_equal(again, fresh.sort_values("docno")["score"].to_numpy())
        return bertcat.stats.from_store

    assert from_store(folder) == 0
    assert from_store(folder, max_length=512) == 3  # asked for or stated: the same
    assert from_store(shorter) == 0  # the same weights, but another length
    assert from_store(folder, max_length=20) == 3
    assert from_store(shorter, max_length=512) == 3
    assert from_store(shorter) == 3
    assert len(store.settings()) == 2
    loaded = BertCatReRanker(shorter, store=store, device="cpu", verbose=False)
    loaded(candidates)
    assert loaded._checkpoint is None  # the store remembers its length too


@pytest.mark.parametrize("kind", ["bert_cat", "classifier"])
def test_what_was_trained_at_32_tokens_is_scored_at_32_wherever_it_is_loaded(tokenizer, tmp_path, kind):
    model: object = tiny_model("bert")
    if kind == "classifier":
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        transformers.BertForSequenceClassification(transformers.BertConfig(**shape, num_labels=1)).save_pretrained(
            tmp_path / "start"
        )
        tokenizer.save_pretrained(tmp_path / "start")
        start = load_checkpoint(tmp_path / "start")
    else:
        start = Checkpoint(model, tokenizer)
    output = tmp_path / "trained"
    options = replace(QUICK, steps=2, output=output)
    trained = BertCatReRanker(start, max_length=32, training=options, device="cpu", verbose=False).fit(
        *TRAIN, *HELD_OUT
    )
    assert own_max_length(start) == 512  # it is left as it was
    copied = trained.save_pretrained(tmp_path / "copy")
    for folder in (output, copied):
        assert json.loads((Path(folder) / "tokenizer_config.json").read_text())["model_max_length"] == 32
        assert transformers.AutoTokenizer.from_pretrained(folder).model_max_length == 32
        loaded = load_checkpoint(folder)
        assert own_max_length(loaded) == 32
        assert np.array_equal(scores(loaded), scores(loaded, 32))
        assert not np.array_equal(scores(loaded), scores(loaded, 512))
    in_memory = fit(
        start, replace(options, output=None), *TRAIN, scoring=ScoringOptions(truncation=Truncation(max_length=32))
    )
    assert own_max_length(in_memory) == 32
    again = fit(in_memory, replace(options, output=None), *TRAIN)  # it is trained on as it was trained
    assert own_max_length(again) == 32


def test_training_refuses_more_tokens_than_there_are_positions(tokenizer):
    start = Checkpoint(tiny_model("bert"), tokenizer)
    with pytest.raises(InputError, match="max_length=600 is more than the 512 positions"):
        fit(start, QUICK, *TRAIN, scoring=ScoringOptions(truncation=Truncation(max_length=600)))
