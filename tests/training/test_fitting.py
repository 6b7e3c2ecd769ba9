"""Fitting: that it learns, validates, stops early, and refuses what it can't do."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
import torch
import transformers
from helpers.tiny_models import tiny_encoder_config, tiny_model
from helpers.training_collection import HELD_OUT, QUICK, TRAIN, collection
from safetensors.torch import load_file

from pyterrier_bertcat import BertCatReRanker
from pyterrier_bertcat.errors import InputError, TrainingDataError, TruncationWarning
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.classifier import SequenceClassificationModel
from pyterrier_bertcat.model.config import BertCatConfig
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.training import CombinedLoss, Contrastive, ListwiseKL, MarginMSE, TeacherFile
from pyterrier_bertcat.training.fitting import fit
from pyterrier_bertcat.training.validation import Validation


def reciprocal_rank(checkpoint, frame, judged):
    scores = PairScorer(checkpoint, verbose=False).score(frame["query"], frame["text"])
    relevant = pd.MultiIndex.from_frame(frame[["qid", "docno"]]).isin(
        pd.MultiIndex.from_frame(judged[["qid", "docno"]])
    )
    ranks = frame.assign(score=scores).groupby("qid")["score"].rank(ascending=False)
    return float((1 / ranks[relevant]).mean())


def scores(checkpoint):
    return PairScorer(checkpoint, verbose=False).score(HELD_OUT[0]["query"], HELD_OUT[0]["text"])


def last_state(run):
    states = sorted((run / "states").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    return json.loads((states[-1] / "trainer_state.json").read_text())


@pytest.fixture(scope="module")
def start(tokenizer):
    torch.manual_seed(0)
    return Checkpoint(model=tiny_model("bert"), tokenizer=tokenizer)


def weights(checkpoint):
    return {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}


def test_a_small_encoder_learns_from_scratch_what_held_out_queries_need(tokenizer):
    torch.manual_seed(0)
    encoder = transformers.BertConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, initializer_range=0.1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    start = Checkpoint(model=BertCatModel(BertCatConfig.from_encoder_config(encoder)).eval(), tokenizer=tokenizer)
    options = replace(
        QUICK, steps=300, queries_per_step=16, negatives=5, learning_rate=2e-3, warmup_steps=20, save_every=300
    )
    before = reciprocal_rank(start, *HELD_OUT)
    trained = fit(start, options, *collection(1, 600))
    after = reciprocal_rank(trained, *HELD_OUT)
    assert before < 0.6  # six candidates in random order: 0.41
    assert after > before + 0.25


def test_margin_mse_brings_the_students_margins_to_the_teachers(start):
    teacher = pt.apply.doc_score(lambda row: float(len(row["text"])) / 5)
    options = replace(QUICK, steps=80, learning_rate=3e-3, teacher=teacher, loss=MarginMSE(pairs="all"), save_every=80)
    trained = fit(start, options, *TRAIN)
    frame = HELD_OUT[0]
    student = PairScorer(trained, verbose=False).score(frame["query"], frame["text"])
    first = PairScorer(start, verbose=False).score(frame["query"], frame["text"])
    wanted = frame["text"].str.len().to_numpy()
    assert np.corrcoef(student, wanted)[0, 1] > np.corrcoef(first, wanted)[0, 1] + 0.3


def test_the_start_is_left_as_it_is_and_the_seed_decides_the_result(start):
    before = weights(start)
    one, other, seeded = (
        fit(start, QUICK, *TRAIN),
        fit(start, QUICK, *TRAIN),
        fit(start, replace(QUICK, seed=8), *TRAIN),
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in start.model.state_dict().items())
    assert one.fingerprint == other.fingerprint
    assert len({start.fingerprint, one.fingerprint, seeded.fingerprint}) == 3


@pytest.mark.parametrize("kind", ["distilbert", "electra"])
def test_every_kind_of_encoder_trains(tokenizer, kind):
    start = Checkpoint(model=tiny_model(kind), tokenizer=tokenizer)
    assert fit(start, replace(QUICK, steps=2), *TRAIN).fingerprint != start.fingerprint


@pytest.mark.precision
def test_bfloat16_trains_a_float32_model_that_scores_as_the_saved_one(start, tmp_path):
    trained = fit(start, replace(QUICK, steps=2, precision="bfloat16"), *TRAIN)
    assert {tensor.dtype for tensor in trained.model.state_dict().values() if tensor.is_floating_point()} == {
        torch.float32
    }
    saved = load_checkpoint(save_checkpoint(trained, tmp_path / "saved"))
    np.testing.assert_allclose(scores(trained), scores(saved), rtol=0, atol=5e-5)
    assert "forward" not in vars(trained.model)  # accelerate's, which would compute in bfloat16


def test_a_trained_checkpoint_does_not_claim_the_known_scores_of_its_start(tokenizer):
    start = Checkpoint(model=tiny_model("bert"), tokenizer=tokenizer)
    known = [{"query": "a", "text": "b", "score": 1.0}]
    start.model.config.known_scores = known
    trained = fit(start, replace(QUICK, steps=1), *TRAIN)
    assert trained.model.config.known_scores is None
    assert start.model.config.known_scores == known


def test_a_plain_cross_encoder_trains_and_loads_again(tokenizer, tmp_path):
    config = tiny_encoder_config("bert")
    config.num_labels = 1
    torch.manual_seed(0)
    start = Checkpoint(model=SequenceClassificationModel(config).eval(), tokenizer=tokenizer)
    trained = fit(start, replace(QUICK, save_every=6, output=tmp_path / "run"), *TRAIN)
    assert isinstance(trained.model, SequenceClassificationModel)
    assert trained.fingerprint != start.fingerprint
    assert load_checkpoint(tmp_path / "run").fingerprint == trained.fingerprint


def test_whole_numbers_do_as_query_ids(start):
    def numbered(frame):
        return frame.assign(qid=frame["qid"].str.rpartition("-")[2].astype(int))

    options = replace(QUICK, steps=2, save_every=2, teacher=pt.Transformer.identity())
    named = fit(start, options, *TRAIN, *HELD_OUT)
    assert fit(start, options, *map(numbered, (*TRAIN, *HELD_OUT))).fingerprint == named.fingerprint
    mixed = (numbered(TRAIN[0]), *(numbered(frame).astype({"qid": str}) for frame in (TRAIN[1], HELD_OUT[0])))
    assert fit(start, options, *mixed, numbered(HELD_OUT[1])).fingerprint == named.fingerprint


def test_several_teachers_and_a_combined_loss_train_with_a_cosine_schedule(start):
    text_length = pt.apply.doc_score(lambda row: float(len(row["text"])) / 5)
    teachers = [text_length, pt.Transformer.identity()]
    both = CombinedLoss((MarginMSE(pairs="all"), Contrastive()), weights=(1.0, 0.5))
    options = replace(QUICK, steps=6, loss=both, teacher=teachers, schedule="cosine")
    trained = fit(start, options, *TRAIN)
    assert trained.fingerprint != fit(start, replace(options, teacher=text_length), *TRAIN).fingerprint
    assert trained.fingerprint != fit(start, replace(options, schedule="constant"), *TRAIN).fingerprint


def test_fitting_quietly_shows_nothing(start, capfd):
    fit(start, QUICK, *TRAIN, scoring=ScoringOptions(device="cpu"), verbose=False)
    shown = "".join(capfd.readouterr())
    assert "loss" not in shown
    assert "%" not in shown  # nor a bar
    fit(start, QUICK, *TRAIN, verbose=True)
    assert "loss" in "".join(capfd.readouterr())


def test_a_pipeline_is_fitted_through_pyterrier_and_changes_its_identity(start, tmp_path):
    texts = TRAIN[0].drop_duplicates("docno").set_index("docno")["text"]
    first_stage = pt.Transformer.from_df(TRAIN[0].drop(columns="text"))
    text_loader = pt.apply.text(lambda row: texts[row["docno"]])
    save_checkpoint(start, tmp_path / "start")
    reranker = BertCatReRanker(str(tmp_path / "start"), training=QUICK, verbose=False)
    untrained = BertCatReRanker(str(tmp_path / "start"), training=QUICK, verbose=False)
    pipeline = first_stage >> text_loader >> reranker
    topics = TRAIN[0][["qid", "query"]].drop_duplicates(ignore_index=True)
    pipeline.fit(topics, TRAIN[1], None, None)
    assert reranker != untrained
    frame = HELD_OUT[0]
    assert not np.allclose(
        reranker(frame).sort_values(["qid", "docno"])["score"], untrained(frame).sort_values(["qid", "docno"])["score"]
    )
    assert reranker.fit(*TRAIN) is reranker


def test_a_reranker_has_the_history_of_its_training(start, tmp_path):
    reranker = BertCatReRanker(start, training=replace(QUICK, save_every=4), verbose=False)
    assert reranker.training_history is None
    assert BertCatReRanker("mini").training_history is None
    reranker.fit(*TRAIN, *HELD_OUT)
    history = reranker.training_history
    assert history["step"].tolist() == list(range(13))
    assert history["nDCG@10"].notna().tolist() == [step in (0, 4, 8, 12) for step in range(13)]
    assert history["seconds"].is_monotonic_increasing
    in_folder = BertCatReRanker(start, training=replace(QUICK, output=tmp_path / "run"), verbose=False).fit(*TRAIN)
    another_day = BertCatReRanker(tmp_path / "run").training_history
    pd.testing.assert_frame_equal(in_folder.training_history, another_day)
    assert another_day["loss"].tolist() == pytest.approx(history["loss"].tolist()[1:])


def test_validation_gives_back_the_best_state(start, tmp_path):
    longest = pt.apply.doc_score(lambda row: float(len(row["text"])) / 5)
    frame = HELD_OUT[0]
    shortest = frame.loc[frame["text"].str.len().groupby(frame["qid"]).idxmin(), ["qid", "docno"]].assign(label=1)
    options = replace(
        QUICK, save_every=2, learning_rate=1e-2, teacher=longest, loss=MarginMSE("all"), measure="RR", output=tmp_path
    )
    trained = fit(start, options, *TRAIN, frame, shortest)  # what is learned is the opposite of what is measured
    state = last_state(tmp_path)
    before, *measured = trained.history["RR"].dropna()
    assert before == pytest.approx(reciprocal_rank(start, frame, shortest), abs=0.02)
    assert len(measured) == 6
    assert measured[-1] < max(measured) == state["best_metric"]
    assert reciprocal_rank(trained, frame, shortest) == pytest.approx(max(measured), abs=0.02)
    best = load_file(Path(state["best_model_checkpoint"]) / "model.safetensors")
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights(trained).items() if name in best)
    assert len(best) > 20


def test_patience_stops_early_and_a_resumed_run_stays_stopped(start, tmp_path):
    options = replace(QUICK, steps=60, save_every=1, patience=2, learning_rate=1e-12, output=tmp_path)
    trained = fit(start, options, *TRAIN, *HELD_OUT)
    assert last_state(tmp_path)["global_step"] == 3  # the first evaluation, and two without a gain
    assert fit(start, options, *TRAIN, *HELD_OUT).fingerprint == trained.fingerprint
    assert last_state(tmp_path)["global_step"] == 3


def test_validation_changes_nothing_about_the_training(start):
    options = replace(QUICK, save_every=QUICK.steps)
    assert fit(start, options, *TRAIN, *HELD_OUT).fingerprint == fit(start, options, *TRAIN).fingerprint


def test_the_averaged_weights_are_validated_and_returned(start):
    options = replace(QUICK, averaging=0.2, learning_rate=1e-2, save_every=QUICK.steps, measure="RR")
    averaged = fit(start, options, *TRAIN, *HELD_OUT)
    assert averaged.fingerprint != fit(start, replace(options, averaging=None), *TRAIN).fingerprint
    assert averaged.fingerprint == fit(start, options, *TRAIN).fingerprint
    assert averaged.history["RR"].iloc[-1] == pytest.approx(reciprocal_rank(averaged, *HELD_OUT), abs=0.02)


def test_the_best_state_comes_back_with_the_average_that_it_had(start, tmp_path):
    longest = pt.apply.doc_score(lambda row: float(len(row["text"])) / 5)
    frame = HELD_OUT[0]
    shortest = frame.loc[frame["text"].str.len().groupby(frame["qid"]).idxmin(), ["qid", "docno"]].assign(label=1)
    options = replace(
        QUICK, save_every=2, learning_rate=1e-2, teacher=longest, loss=MarginMSE("all"), measure="RR", averaging=0.1,
        output=tmp_path,
    )  # fmt: skip
    trained = fit(start, options, *TRAIN, frame, shortest)
    best = Path(last_state(tmp_path)["best_model_checkpoint"])
    assert best.name == "checkpoint-2"
    average = load_file(best / "averaged.safetensors")
    assert all(torch.equal(tensor, average[name]) for name, tensor in weights(trained).items() if name in average)
    assert len(average) > 20


def test_an_average_that_is_all_of_the_last_weights_changes_nothing(start):
    options = replace(QUICK, averaging=1.0)
    assert fit(start, options, *TRAIN).fingerprint == fit(start, QUICK, *TRAIN).fingerprint


def bytes_kept(train):
    """What autograd keeps for the backward passes, in all."""
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        train()
    return kept


@pytest.mark.parametrize("kind", ["bert", "distilbert", "electra", "classifier"])
def test_gradient_checkpointing_keeps_less_for_the_same_training(tokenizer, kind):
    if kind == "classifier":
        config = tiny_encoder_config("bert")
        config.num_labels = 1
        start = Checkpoint(model=SequenceClassificationModel(config).eval(), tokenizer=tokenizer)
    else:
        start = Checkpoint(model=tiny_model(kind), tokenizer=tokenizer)
    options = replace(QUICK, steps=3, save_every=2)
    trained = []
    plain = bytes_kept(lambda: trained.append(fit(start, options, *TRAIN, *HELD_OUT)))
    saving = bytes_kept(
        lambda: trained.append(fit(start, replace(options, gradient_checkpointing=True), *TRAIN, *HELD_OUT))
    )
    assert saving < plain / 2
    assert trained[0].fingerprint == trained[1].fingerprint
    pd.testing.assert_frame_equal(*(one.history.drop(columns="seconds") for one in trained))


def test_the_head_has_its_own_learning_rate(start):
    before = weights(start)
    trained = weights(fit(start, replace(QUICK, head_learning_rate=1e-30), *TRAIN))
    unmoved = {name for name, tensor in trained.items() if torch.allclose(tensor, before[name], rtol=0, atol=1e-20)}
    assert {"_classification_layer.weight", "_classification_layer.bias"} <= unmoved
    assert not any("attention" in name for name in unmoved)
    same = fit(start, replace(QUICK, head_learning_rate=QUICK.learning_rate), *TRAIN)
    assert same.fingerprint == fit(start, QUICK, *TRAIN).fingerprint


def test_the_linear_schedule_ends_at_the_final_learning_rate(start):
    options = replace(QUICK, learning_rate=1e-3, final_learning_rate=1e-4, head_learning_rate=5e-3)
    # Early versions of the Trainer log the rate of the next step.
    for trained, last in ((fit(start, options, *TRAIN), 1e-4), (fit(start, QUICK, *TRAIN), 0)):
        rates, fall = trained.history["learning_rate"], (1e-3 - last) / 12
        assert np.diff(rates) == pytest.approx(-fall)
        assert last - 1e-9 <= rates.iloc[-1] <= last + fall + 1e-9


def test_weight_decay_pulls_weights_to_zero_but_no_layer_norm(start):
    options = replace(QUICK, learning_rate=1e-4, schedule="constant")
    plain, decayed = (weights(fit(start, replace(options, weight_decay=decay), *TRAIN)) for decay in (0.0, 1000.0))
    dense, norm = "bert_model.encoder.layer.0.output.dense.weight", "bert_model.encoder.layer.0.output.LayerNorm.weight"
    assert decayed[dense].norm() == pytest.approx(0.9**QUICK.steps * plain[dense].norm().item(), rel=0.05)
    assert decayed[norm].norm() == pytest.approx(plain[norm].norm().item(), rel=0.01)


def test_a_distillation_as_of_the_packaged_model_trains(start):
    longest = pt.apply.doc_score(lambda row: float(len(row["text"])) / 5)
    options = replace(
        QUICK, steps=60, save_every=60, learning_rate=3e-3, teacher=longest,
        loss=CombinedLoss((MarginMSE(pairs="all"), ListwiseKL()), weights=(0.1, 1.0)), negatives=4, hardest_negatives=2,
        negative_ranks=(0, 6), averaging=0.002, weight_decay=0.01, head_learning_rate=1e-2, final_learning_rate=6e-5,
    )  # fmt: skip
    losses = fit(start, options, *TRAIN).history["loss"]
    assert losses.iloc[-3:].mean() < 0.7 * losses.iloc[:3].mean()


def test_validation_qrels_of_other_queries_are_refused_before_anything_is_trained(start, tmp_path):
    with pytest.raises(TrainingDataError, match=r"none of the 60 validation queries: 240 .*'q1-0'.*'q2-0'"):
        fit(start, replace(QUICK, output=tmp_path / "run"), *TRAIN, HELD_OUT[0], TRAIN[1])
    assert not (tmp_path / "run").exists()


def test_a_validation_pair_that_comes_twice_counts_once(start):
    twice = tuple(pd.concat([frame, frame]) for frame in HELD_OUT)
    once, repeated = (Validation(*frames, "RR@10", "text", start, ScoringOptions()) for frames in (HELD_OUT, twice))
    assert once.evaluate(start.model) == repeated.evaluate(start.model)


def test_queries_without_candidates_are_not_measured(start):
    frame, qrels = HELD_OUT
    more = pd.concat([qrels, qrels.assign(qid=[f"other{row}" for row in range(len(qrels))])])
    fewer, all_of_them = (Validation(frame, some, "RR@10", "text", start, ScoringOptions()) for some in (qrels, more))
    assert fewer.evaluate(start.model) == all_of_them.evaluate(start.model) > 0


def test_a_published_teacher_file_trains_on_the_pairs_that_it_holds(start, tmp_path):
    frame, judged = TRAIN
    positives = judged.set_index("qid")["docno"]
    first = frame[frame["rank"] == 0]
    lines = [
        f"4.0\t-1.0\t{qid}\t{positives[qid]}\t{docno}"
        for qid, docno in zip(first["qid"], first["docno"], strict=True)
        if docno != positives[qid]
    ]
    (tmp_path / "teacher.tsv").write_text("\n".join(lines) + "\n")
    trained = fit(start, replace(QUICK, teacher=TeacherFile(tmp_path / "teacher.tsv")), *TRAIN)
    assert trained.fingerprint != start.fingerprint
    (tmp_path / "other.tsv").write_text("1.0\t0.0\tnobody\tknows\tthese\n")
    with pytest.raises(TrainingDataError, match=r"score none of the 1440 candidates, such as .*'q1-0', 'd0-0'"):
        fit(start, replace(QUICK, teacher=TeacherFile(tmp_path / "other.tsv")), *TRAIN)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"negatives": 0}, "negatives"),
        ({"steps": 0}, "steps"),
        ({"negative_ranks": (5, 5)}, "negative_ranks"),
        ({"patience": 0}, "patience"),
        ({"schedule": "sudden"}, "schedule"),
        ({"precision": "float8"}, "precision"),
        ({"loss": MarginMSE()}, "teacher"),
        ({"loss": Contrastive(), "queries_per_step": 0}, "queries_per_step"),
        ({"steps": 2.0}, "steps"),
        ({"save_every": True}, "save_every"),
        ({"negative_ranks": (0, 5.5)}, "negative_ranks"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"head_learning_rate": 0.0}, "head_learning_rate"),
        ({"final_learning_rate": 1e-3}, "final_learning_rate .* below learning_rate=0.001"),
        ({"final_learning_rate": 1e-5, "schedule": "cosine"}, "final_learning_rate is for schedule='linear'"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"averaging": 0.0}, "averaging"),
        ({"averaging": 2}, "averaging"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing"),
        ({"hardest_negatives": -1}, "hardest_negatives"),
        ({"hardest_negatives": 4}, "hardest_negatives is at most negatives=3"),
        ({"loss": Contrastive(), "teacher": TeacherFile("scores.tsv")}, "would not use the teacher"),
    ],
)
def test_options_out_of_range_are_refused_by_name(changes, named):
    with pytest.raises(InputError, match=named):
        replace(QUICK, **changes)


def test_an_unknown_measure_is_refused(start):
    with pytest.raises(InputError, match="nonsense"):
        fit(start, replace(QUICK, measure="nonsense@x"), *TRAIN, *HELD_OUT)


def test_half_a_validation_is_refused(start):
    with pytest.raises(InputError, match="both"):
        fit(start, QUICK, *TRAIN, HELD_OUT[0], None)


def test_training_says_how_many_of_its_pairs_are_cut(start):
    short = ScoringOptions(device="cpu", truncation=Truncation(max_length=5))
    with pytest.warns(TruncationWarning, match="pairs were too long .* training reads the beginning of each text"):
        fit(start, replace(QUICK, steps=1), *TRAIN, scoring=short, verbose=False)
