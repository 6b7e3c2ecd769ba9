"""Effects: occlusion is what the scores of the edited strings say, gradients add up, and neither changes the model."""

from __future__ import annotations

import copy
import re
import sys

import numpy as np
import pandas as pd
import pyterrier as pt
import pytest
import torch
from helpers.tiny_models import tiny_model

from pyterrier_bertcat.errors import InputError, MissingExtraError
from pyterrier_bertcat.explain import gradients, progress
from pyterrier_bertcat.explain.explainer import Explainer
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

QUERY = "what is the transformers library"
TEXT = "We are happy to show you the 🤗 Transformers library (for models), don't <b>panic</b>."
OTHER = "I don't like this movie about transformers from my local library."
FLOAT32_NOISE = 5e-5  # of scores, by batch neighbours


@pytest.fixture(scope="module")
def mini():
    return load_checkpoint("mini")


def explainer(checkpoint, *, truncation=None, **options):
    scoring = ScoringOptions(device="cpu", truncation=truncation or Truncation())
    scorer = PairScorer(checkpoint, verbose=False, **vars(scoring))
    return Explainer(checkpoint, scorer, verbose=False, **options)


def reranker(checkpoint, **options):
    return BertCatReRanker(checkpoint, device="cpu", verbose=False, **options)


def score(checkpoint, query, text):
    return float(PairScorer(checkpoint, device="cpu", verbose=False).score([query], [text])[0])


def test_occlusion_is_the_score_minus_that_of_the_string_without_the_word(tiny_checkpoint):
    explanation = explainer(tiny_checkpoint).explain(QUERY, TEXT)
    assert explanation.score == pytest.approx(score(tiny_checkpoint, QUERY, TEXT), abs=FLOAT32_NOISE)
    for word in explanation.words:
        strings = {"query": QUERY, "text": TEXT}
        whole = strings[word.part]
        assert whole[word.start : word.end] == word.text
        strings[word.part] = f"{whole[: word.start]} {whole[word.end :]}"
        expected = explanation.score - score(tiny_checkpoint, strings["query"], strings["text"])
        assert word.effect == pytest.approx(expected, abs=3 * FLOAT32_NOISE)
    assert len({word.effect for word in explanation.words}) > 10


def test_all_words_are_left_out_in_one_call_of_the_scorer(tiny_checkpoint):
    calls = []

    class Counting(PairScorer):
        def score_in_detail(self, queries, texts, **more):
            calls.append(len(queries))
            return super().score_in_detail(queries, texts, **more)

    scorer = Counting(tiny_checkpoint, device="cpu", verbose=False)
    explanation = Explainer(tiny_checkpoint, scorer, verbose=False).explain(QUERY, TEXT)
    assert calls == [1, 1 + len(explanation.words)]


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_words_beyond_what_is_read_have_no_effect_at_all(tiny_checkpoint, method):
    short = explainer(tiny_checkpoint, truncation=Truncation(max_length=12), method=method)
    explanation, cut = (
        short.explain("red fish", f"one two three four five six seven {TEXT}"),
        "one two three four five six seven",
    )
    unread = [word for word in explanation.words if not word.read]
    assert [word.text for word in explanation.words if word.read] == ["red", "fish", *cut.split()]
    assert unread
    assert all(word.effect == 0.0 for word in unread)
    # Leaving out a word brings nothing else into view: the rest of the text makes no difference.
    same = short.explain("red fish", cut)
    effects = [[word.effect for word in each.words if word.read] for each in (explanation, same)]
    np.testing.assert_allclose(*effects, atol=3 * FLOAT32_NOISE)


def assert_adds_up(explanation, atol):
    """The effects of each part are what it adds to the score."""
    for part, baseline in zip(("query", "text"), explanation.baselines, strict=True):
        effects = [word.effect for word in explanation.words if word.part == part]
        total = sum(map(abs, effects))
        assert total > 1e-3
        assert sum(effects) == pytest.approx(explanation.score - baseline, abs=0.005 * total + atol)


@pytest.mark.parametrize("kind", ["distilbert", "bert", "electra"])
def test_gradients_add_up_to_the_score_above_the_baseline(tokenizer, kind):
    checkpoint = Checkpoint(model=tiny_model(kind), tokenizer=tokenizer)
    assert_adds_up(explainer(checkpoint, method="gradients").explain(QUERY, TEXT), atol=2 * FLOAT32_NOISE)


def test_gradients_of_the_packaged_checkpoint_add_up_too(mini):
    assert_adds_up(explainer(mini, method="gradients").explain(QUERY, OTHER), atol=1e-3)


def test_a_baseline_is_the_score_with_every_token_of_the_part_replaced(tiny_checkpoint):
    explanation = explainer(tiny_checkpoint, method="gradients").explain("red fish", "blue fish")
    red, blue, fish = tiny_checkpoint.tokenizer.convert_tokens_to_ids(["red", "blue", "fish"])
    pairs = torch.tensor([[101, 0, 0, 102, blue, fish, 102], [101, red, fish, 102, 0, 0, 102]])
    expected = tiny_checkpoint.model(pairs, torch.ones_like(pairs)).tolist()
    assert explanation.baselines == pytest.approx(expected, abs=FLOAT32_NOISE)


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_the_checkpoint_is_unchanged(tokenizer, method):
    checkpoint = Checkpoint(model=tiny_model(), tokenizer=copy.deepcopy(tokenizer))
    checkpoint.model.bert_model.embeddings.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in checkpoint.model.state_dict().items()}
    wants = [parameter.requires_grad for parameter in checkpoint.model.parameters()]
    settings = checkpoint.tokenizer.backend_tokenizer.to_str()
    explainer(checkpoint, method=method, truncation=Truncation(max_length=16)).explain(QUERY, TEXT)
    for name, tensor in checkpoint.model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert [parameter.requires_grad for parameter in checkpoint.model.parameters()] == wants
    assert all(parameter.grad is None for parameter in checkpoint.model.parameters())
    assert not any(module.training or module._forward_hooks for module in checkpoint.model.modules())
    assert checkpoint.tokenizer.backend_tokenizer.to_str() == settings


@pytest.mark.precision
def test_gradients_are_float32_whatever_the_model_is(tokenizer):
    half = Checkpoint(model=tiny_model().to(torch.bfloat16), tokenizer=tokenizer)
    explanation = explainer(half, method="gradients").explain(QUERY, OTHER)
    whole = Checkpoint(model=copy.deepcopy(half.model).float(), tokenizer=tokenizer)
    assert explanation.baselines == explainer(whole, method="gradients").explain(QUERY, OTHER).baselines
    assert half.model.dtype == torch.bfloat16


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
@pytest.mark.parametrize(("query", "text"), [("", ""), ("a", ""), ("", "b"), (" ", "\u200b"), ("?", "one")])
def test_texts_of_one_word_or_none_are_legal(tiny_checkpoint, method, query, text):
    explanation = explainer(tiny_checkpoint, method=method).explain(query, text)
    assert [word.text for word in explanation.words] == [*query.split(), *text.replace("\u200b", "").split()]
    assert explanation._repr_html_()


def test_the_words_that_match_make_the_score(mini):
    words = explainer(mini).explain("how tall is the eiffel tower", "The Eiffel Tower is 330 metres tall.").words
    strongest = sorted((word for word in words if word.part == "text"), key=lambda word: -word.effect)[:3]
    assert {word.text for word in strongest} == {"Eiffel", "Tower", "tall"}


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
def test_removing_the_words_ranked_highest_costs_more_than_removing_others(mini, method):
    explain = explainer(mini, method=method)
    for query, text in [
        (QUERY, TEXT),
        ("how tall is the eiffel tower", "Built in Paris, the Eiffel Tower is 330 metres tall."),
    ]:
        explanation = explain.explain(query, text)
        words = sorted((word for word in explanation.words if word.part == "text"), key=lambda word: -word.effect)
        best, others = words[:3], words[len(words) // 2 : len(words) // 2 + 3]

        def lost(removed, query=query, text=text):
            shorter = text
            for word in sorted(removed, key=lambda word: -word.start):
                shorter = f"{shorter[: word.start]} {shorter[word.end :]}"
            return score(mini, query, text) - score(mini, query, shorter)

        assert lost(best) > lost(others) + 1.0


def test_a_frame_gives_an_explanation_per_row_in_its_order(tiny_checkpoint):
    frame = pd.DataFrame(
        {"qid": ["2", "1"], "query": ["red fish", QUERY], "docno": ["d9", "d1"], "body": ["blue fish", TEXT]},
        index=[7, 7],
    )
    explanations = reranker(tiny_checkpoint, text_field="body").explain(frame)
    assert [(row.qid, row.docno, row.text) for row in explanations] == [("2", "d9", "blue fish"), ("1", "d1", TEXT)]
    words = explanations.to_dataframe()
    assert words.columns.tolist() == ["qid", "docno", "part", "word", "start", "end", "effect", "read"]
    assert words[words["docno"] == "d9"]["word"].tolist() == ["red", "fish", "blue", "fish"]
    alone = explainer(tiny_checkpoint).explain(QUERY, TEXT).to_dataframe()
    second = words[words["docno"] == "d1"].drop(columns=["qid", "docno"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(second, alone, atol=3 * FLOAT32_NOISE)


def test_an_empty_frame_gives_the_same_columns_and_types(tiny_checkpoint):
    frame = pd.DataFrame({"qid": ["1"], "query": ["a"], "docno": ["d"], "text": ["b"]})
    full, empty = (reranker(tiny_checkpoint).explain(each) for each in (frame, frame.head(0)))
    pd.testing.assert_series_equal(full.to_dataframe().dtypes, empty.to_dataframe().dtypes)
    assert len(empty) == 0
    assert empty._repr_html_()


def test_bad_input_is_refused_before_anything_is_scored(tiny_checkpoint, monkeypatch):
    def never(*_):
        raise AssertionError("scored")

    with pytest.raises(InputError, match="method is one of 'occlusion', 'gradients', got 'lime'"):
        reranker(tiny_checkpoint).explain("a", "b", method="lime")
    monkeypatch.setattr(PairScorer, "score_in_detail", never)
    bertcat = reranker(tiny_checkpoint)
    with pytest.raises(pt.validate.InputValidationError):
        bertcat.explain(pd.DataFrame({"qid": ["1"], "docno": ["d"], "query": ["a"]}))
    with pytest.raises(InputError, match="column 'text' 1 of them are not strings"):
        bertcat.explain(pd.DataFrame({"qid": ["1"], "docno": ["d"], "query": ["a"], "text": [None]}))
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"texts\[0\] is 3 of type int"):
        explainer(tiny_checkpoint).explain("a", 3)


def test_without_captum_the_error_names_the_extra_and_occlusion_works(tiny_checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(MissingExtraError, match=r"pyterrier-bertcat\[explain\]"):
        explainer(tiny_checkpoint, method="gradients").explain("a", "b")
    assert explainer(tiny_checkpoint).explain("a", "b").words


def test_a_comparison_says_which_words_make_the_difference(mini):
    comparison = explainer(mini).compare(
        "how tall is the eiffel tower", "The Eiffel Tower is 330 m tall.", "Cats are 30 cm tall."
    )
    assert comparison.difference == comparison.a.score - comparison.b.score > 0
    rows = comparison.differences()
    assert rows["difference"].abs().is_monotonic_decreasing
    assert {"eiffel", "tower"} <= set(rows.head(5)["word"])
    tall = rows[(rows["word"] == "tall") & (rows["part"] == "text")].iloc[0]
    effects = [[word.effect for word in side.words if word.text == "tall"] for side in (comparison.a, comparison.b)]
    assert [tall.effect_a, tall.effect_b] == [effect[-1] for effect in effects]
    assert comparison.to_dataframe()["passage"].unique().tolist() == ["A", "B"]


# The progress bar

LONG = " ".join(f"word{number}" for number in range(40))


def shown(capsys):
    """What the bars on the terminal said last, by their names: how much of how much."""
    lines = re.split(r"[\r\n]+", capsys.readouterr().err)
    found = [re.match(r"(.+?): .*?\| (\d+)/(\d+) ", line) for line in lines]
    return {match[1]: (int(match[2]), int(match[3])) for match in found if match}


@pytest.fixture
def no_delay(monkeypatch):
    monkeypatch.setattr(progress, "_BAR_DELAY_S", 0)


@pytest.mark.usefixtures("no_delay")
def test_one_bar_counts_the_pairs_that_are_scored(tiny_checkpoint, capsys):
    bertcat = BertCatReRanker(tiny_checkpoint, device="cpu")
    frame = pd.DataFrame({"qid": "1", "query": "a dog", "docno": ["d1", "d2"], "text": [LONG, "a dog"]})
    bertcat.explain("a dog", LONG)
    assert shown(capsys) == {"explaining": (43, 43)}, "the pair, and the pair without each of 42 words"
    bertcat.explain(frame)
    assert shown(capsys) == {"explaining": (43 + 5, 43 + 5)}
    bertcat.compare(frame)
    assert shown(capsys) == {"explaining": (43 + 5, 43 + 5)}
    bertcat.explain("dog dog", "dog dog")  # some of these pairs are equal, and scored once
    assert shown(capsys) == {"explaining": (5, 5)}


@pytest.mark.usefixtures("no_delay")
def test_the_bar_of_gradients_counts_their_steps(tiny_checkpoint, capsys, monkeypatch):
    bertcat = BertCatReRanker(tiny_checkpoint, device="cpu")
    monkeypatch.setattr(gradients, "_TOLERANCE", 1.0)
    bertcat.explain("a dog", LONG, method="gradients")
    assert shown(capsys) == {"explaining": (68, 68)}, "of query and text: both ends and 32 steps"
    monkeypatch.setattr(gradients, "_TOLERANCE", 0.0)
    monkeypatch.setattr(gradients, "_FLOAT32_NOISE", 0.0)
    monkeypatch.setattr(gradients, "_STEPS", (32, 64))
    bertcat.explain("a dog", LONG, method="gradients")
    assert shown(capsys) == {"explaining": (68 + 2 * 64, 68 + 2 * 64)}


def test_short_work_and_quiet_work_show_no_bar(tiny_checkpoint, capsys, monkeypatch):
    for method in ("occlusion", "gradients"):
        BertCatReRanker(tiny_checkpoint, device="cpu").explain("a dog", "a cat", method=method)
    monkeypatch.setattr(progress, "_BAR_DELAY_S", 0)
    reranker(tiny_checkpoint).explain("a dog", LONG)
    assert shown(capsys) == {}


# On the re-ranker


def test_the_reranker_explains_a_pair_a_frame_and_a_difference():
    bertcat = BertCatReRanker("mini", device="cpu", verbose=False)
    texts = ["Sunlight is scattered by air, blue light most of all.", "Boil the egg for six minutes."]
    frame = pd.DataFrame({"qid": "q", "query": "why is the sky blue", "docno": ["d1", "d2"], "text": texts})
    one = bertcat.explain("why is the sky blue", texts[0])
    assert one.score == pytest.approx(bertcat.scorer.score([one.query], [one.text])[0], abs=1e-5)
    assert max(one.words, key=lambda word: word.effect).text.lower() in ("blue", "sky", "light", "sunlight")
    rows = bertcat.explain(frame).to_dataframe()
    assert rows["docno"].unique().tolist() == ["d1", "d2"]
    assert bertcat.compare("why is the sky blue", *texts).difference > 0
    for wrong in ((frame, "text"), (frame.iloc[0], "text"), ("query",), ("query", None), (None, "text")):
        with pytest.raises(InputError):
            bertcat.explain(*wrong)


ROWS = pd.DataFrame(
    {"qid": 7, "query": "a dog", "docno": ["d1", "d2"], "text": ["a dog ran", "the cat sat"], "score": [2.0, 1.0]},
    index=[5, 5],
)


@pytest.mark.parametrize("method", ["occlusion", "gradients"])
@pytest.mark.parametrize(
    "row",
    [ROWS.iloc[1], ROWS.to_dict("records")[1], list(ROWS.itertuples())[1], list(ROWS.itertuples(index=False))[1]],
    ids=["series", "record", "named tuple", "named tuple without index"],
)
def test_one_row_of_a_frame_is_explained_as_the_frame_does(tiny_checkpoint, row, method):
    bertcat = reranker(tiny_checkpoint)
    found, expected = bertcat.explain(row, method=method), bertcat.explain(ROWS, method=method)[1]
    assert (found.qid, found.docno, found.text) == (7, "d2", "the cat sat")
    pd.testing.assert_frame_equal(found.to_dataframe(), expected.to_dataframe(), atol=3 * FLOAT32_NOISE)


def test_a_row_is_checked_as_a_frame_is(tiny_checkpoint):
    bertcat = reranker(tiny_checkpoint)
    with pytest.raises(pt.validate.InputValidationError, match="docno"):
        bertcat.explain({"query": "a dog", "text": "a cat"})
    with pytest.raises(InputError, match="column 'text' 1 of them are not strings"):
        bertcat.explain(ROWS.iloc[0].copy().replace("a dog ran", None))
    with pytest.raises(InputError, match=r"got list and NoneType; .*pandas.DataFrame\(records\)"):
        bertcat.explain(ROWS.to_dict("records"))
    twice = pd.concat([ROWS.iloc[0], pd.Series({"text": "another"})])
    with pytest.raises(InputError, match="2 columns called 'text'"):
        bertcat.explain(twice)


@pytest.mark.parametrize(
    "given",
    [
        (ROWS,),
        (ROWS.iloc[0], ROWS.iloc[1]),
        (ROWS.head(1), ROWS.tail(1)),
        (ROWS.to_dict("records")[0], ROWS.iloc[1]),
    ],
    ids=["a frame", "two series", "two frames of a row", "a record and a series"],
)
def test_rows_are_compared_by_their_docnos(tiny_checkpoint, given):
    bertcat = reranker(tiny_checkpoint)
    comparison = bertcat.compare(*given)
    assert comparison.names == ("d1", "d2")
    assert (comparison.a.text, comparison.b.text) == tuple(ROWS["text"])
    strings = bertcat.compare("a dog", *ROWS["text"])
    assert strings.names == ("A", "B")
    assert comparison.difference == pytest.approx(strings.difference, abs=2 * FLOAT32_NOISE)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((pd.concat([ROWS, ROWS]),), "two rows, got 4"),
        ((ROWS.iloc[0],), "two rows, got 1"),
        ((ROWS, ROWS.iloc[0]), "two rows, got 3"),
        ((ROWS.assign(query=["a dog", "a cat"]),), "of the same query, got the queries 'a dog' and 'a cat'"),
        (("a dog", "a cat"), "two rows, got str, str"),
        (("a dog", ROWS.iloc[0], ROWS.iloc[1]), "got str, Series, Series"),
        (("a dog", "a cat", 3), "got str, str, int"),
    ],
)
def test_what_can_not_be_compared_is_refused(tiny_checkpoint, given, message):
    with pytest.raises(InputError, match=message):
        reranker(tiny_checkpoint).compare(*given)


def test_passages_of_a_row_are_explained_too(tiny_checkpoint):
    long = ROWS.assign(text=["a dog ran " * 9, "the cat sat " * 9])
    comparison = reranker(tiny_checkpoint, passages=Passages(length=8, stride=8)).compare(long)
    assert comparison.names == ("d1", "d2")
    assert len(comparison.a.text) < len(long["text"].iloc[0])


def test_of_a_long_document_the_best_passage_is_explained(tiny_checkpoint):
    passages = Passages(length=8, stride=8)
    bertcat = BertCatReRanker(tiny_checkpoint, passages=passages, device="cpu", verbose=False)
    text = "the quick brown fox jumps over the lazy dog and runs away from it again"
    found = bertcat.explain("a dog", text)
    assert found.text in text
    assert len(found.text) < len(text)
    assert found.score == pytest.approx(bertcat.scorer.score(["a dog"], [text])[0], abs=5e-5)


@pytest.mark.parametrize("aggregate", [{"aggregate": "mean"}, {"aggregate": "sum"}, {"aggregate": "kmax", "k": 2}])
def test_a_score_of_several_passages_is_not_explained_by_one_of_them(aggregate, tiny_checkpoint):
    bertcat = BertCatReRanker(tiny_checkpoint, passages=Passages(**aggregate), device="cpu", verbose=False)
    for look in (lambda: bertcat.explain(QUERY, TEXT), lambda: bertcat.compare(QUERY, TEXT, OTHER)):
        with pytest.raises(InputError, match=f"aggregate='{aggregate['aggregate']}'"):
            look()


def test_what_the_paper_cuts_is_not_read(tiny_checkpoint):
    truncation = Truncation(strategy="paper")
    reading = explainer(tiny_checkpoint, truncation=truncation).explain("dog " * 35, "fox " * 300)
    read = [(word.part, word.read) for word in reading.words]
    assert read.count(("query", True)) == 30
    assert read.count(("text", True)) == 197
