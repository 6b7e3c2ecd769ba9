"""Candidates and groups: what is drawn, that the seed decides it, and what unusable data is told."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyterrier_bertcat.errors import TrainingDataError
from pyterrier_bertcat.training import MarginMSE, TrainingOptions
from pyterrier_bertcat.training.sampling import draw_groups, judged_candidates


def results(queries=3, depth=6, *, index=None):
    rows = [
        (f"q{query}", f"question {query}", f"d{query}-{rank}", f"text {query} {rank}", float(depth - rank), rank)
        for query in range(queries)
        for rank in range(depth)
    ]
    return pd.DataFrame(rows, columns=["qid", "query", "docno", "text", "score", "rank"], index=index)


def qrels(pairs):
    return pd.DataFrame([(q, d, 1) for q, d in pairs], columns=["qid", "docno", "label"])


def candidates_of(frame, judged, *, needs_positive=True):
    return judged_candidates(frame, judged, text_field="text", needs_positive=needs_positive)


QRELS = qrels([("q0", "d0-2"), ("q1", "d1-0"), ("q2", "d2-5")])


@settings(max_examples=50)
@given(
    negatives=st.integers(1, 8),
    first=st.integers(0, 3),
    width=st.integers(2, 6),
    steps=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_a_group_is_one_positive_and_distinct_negatives_of_the_same_query_from_the_range(
    negatives, first, width, steps, seed
):
    options = TrainingOptions(
        negatives=negatives, negative_ranks=(first, first + width), steps=steps, queries_per_step=2, seed=seed
    )
    candidates = candidates_of(results(), QRELS)
    groups = draw_groups(candidates, options)
    assert len(groups) == 2 * steps
    for group in groups:
        rows = candidates.frame.iloc[group]
        assert rows["qid"].nunique() == 1
        assert candidates.labels[group].tolist() == [1] + [0] * (len(group) - 1)
        assert len(set(group)) == len(group) <= negatives + 1
        assert rows["rank"][1:].between(first, first + width - 1).all()
    again = draw_groups(candidates, options)
    assert all(np.array_equal(one, other) for one, other in zip(groups, again, strict=True))


def test_every_query_comes_once_before_any_comes_again():
    candidates = candidates_of(results(), QRELS)
    groups = draw_groups(candidates, TrainingOptions(steps=2, queries_per_step=3))
    qids = [candidates.frame["qid"][group[0]] for group in groups]
    assert sorted(qids[:3]) == sorted(qids[3:]) == ["q0", "q1", "q2"]


def test_categories_that_do_not_occur_change_nothing():
    frame = results(4).astype({"qid": "category", "docno": "category", "query": "category"})
    some = frame[frame["qid"] != "q3"]
    expected = candidates_of(results(), QRELS)
    found = candidates_of(some, QRELS.astype("category").astype({"label": int}))
    assert [rows.tolist() for rows in found.queries] == [rows.tolist() for rows in expected.queries]
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_another_seed_draws_other_groups():
    candidates = candidates_of(results(queries=8), qrels([(f"q{i}", f"d{i}-1") for i in range(8)]))
    one, other = (draw_groups(candidates, TrainingOptions(steps=4, negatives=2, seed=seed)) for seed in (1, 2))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_hardest_negatives_are_in_every_group_and_the_others_are_drawn_from_the_ranks_below():
    options = TrainingOptions(steps=20, queries_per_step=3, negatives=3, hardest_negatives=2, negative_ranks=(1, 7))
    candidates = candidates_of(results(depth=8), QRELS)
    best = {"q0": ["d0-1", "d0-3"], "q1": ["d1-1", "d1-2"], "q2": ["d2-1", "d2-2"]}  # d0-2 is relevant
    drawn = set()
    for group in draw_groups(candidates, options):
        rows = candidates.frame.iloc[group]
        assert rows["docno"].tolist()[1:3] == best[rows["qid"].iloc[0]]
        assert len(set(group)) == 4
        drawn |= {(qid, rank) for qid, rank in zip(rows["qid"][3:], rows["rank"][3:], strict=True)}
    assert drawn == {("q0", 4), ("q0", 5), ("q0", 6), ("q1", 3), ("q1", 4), ("q1", 5), ("q1", 6),
                     ("q2", 3), ("q2", 4), ("q2", 6)}  # fmt: skip


def test_hardest_negatives_do_with_what_there_is():
    options = TrainingOptions(steps=1, queries_per_step=3, negatives=5, hardest_negatives=5, negative_ranks=(0, 4))
    labelled, unlabelled = (
        draw_groups(candidates_of(results(depth=8), judged, needs_positive=False), options)
        for judged in (QRELS, qrels([]))
    )
    assert sorted(map(len, labelled)) == [4, 4, 5]  # the relevant one of q2 is below the range
    assert [len(group) for group in unlabelled] == [4, 4, 4]


def test_without_hardest_negatives_a_seed_draws_what_it_always_drew():
    candidates = candidates_of(results(depth=8), QRELS)
    options = TrainingOptions(steps=2, queries_per_step=3, negatives=3, negative_ranks=(1, 7), seed=5)
    assert [group.tolist() for group in draw_groups(candidates, options)] == [
        [8, 9, 11, 13], [21, 20, 22, 17], [2, 5, 1, 3], [21, 17, 19, 20], [2, 3, 1, 6], [8, 13, 14, 12],
    ]  # fmt: skip


def test_order_of_rows_and_index_do_not_matter():
    frame = results()
    shuffled = frame.sample(frac=1, random_state=3)
    shuffled = shuffled.sort_values("qid", kind="stable")
    expected = candidates_of(frame, QRELS)
    got = candidates_of(shuffled, QRELS)
    pd.testing.assert_frame_equal(got.frame, expected.frame)
    assert np.array_equal(got.labels, expected.labels)


def test_the_scores_give_the_order_and_without_them_the_ranks_do():
    frame = results().sample(frac=1, random_state=1)
    by_score = candidates_of(frame.drop(columns="rank"), QRELS)
    assert all(by_score.frame["score"][rows].is_monotonic_decreasing for rows in by_score.queries)
    by_rank = candidates_of(frame.drop(columns="score"), QRELS)
    assert all(by_rank.frame["rank"][rows].is_monotonic_increasing for rows in by_rank.queries)
    contradicting = candidates_of(frame.assign(rank=-frame["rank"]), QRELS)
    assert contradicting.frame["docno"].tolist() == by_score.frame["docno"].tolist()


def test_a_pair_that_comes_twice_is_kept_where_it_stands_best():
    frame = results()
    again = frame[frame["docno"] == "d0-1"].assign(rank=4, score=-1.0)
    got = candidates_of(pd.concat([again, frame], ignore_index=True), QRELS)
    pd.testing.assert_frame_equal(got.frame, frame)


def test_candidates_that_the_teacher_files_do_not_score_are_left_out_and_counted(caplog):
    got = judged_candidates(
        results(), QRELS, text_field="text", needs_positive=True, scored=lambda frame: (frame["rank"] != 1).to_numpy()
    )
    assert got.frame["rank"].unique().tolist() == [0, 2, 3, 4, 5]
    assert "3 of 18 candidates are left out" in caplog.text
    assert "('q0', 'd0-1')" in caplog.text


def test_queries_without_a_positive_are_left_out_and_counted(caplog):
    got = candidates_of(results(), qrels([("q1", "d1-0")]))
    assert [got.frame["qid"][rows[0]] for rows in got.queries] == ["q1"]
    assert "2 of 3 training queries are left out" in caplog.text


def test_a_loss_that_needs_no_positive_keeps_unlabelled_queries():
    got = candidates_of(results(), qrels([("q1", "d1-0")]), needs_positive=MarginMSE(pairs="all").needs_positive)
    assert len(got.queries) == 3
    groups = draw_groups(got, TrainingOptions(steps=1, queries_per_step=3, negatives=3))
    assert {len(group) for group in groups} == {4}


def test_qrels_of_other_queries_are_told_apart_from_missing_positives():
    with pytest.raises(TrainingDataError, match=r"judge other queries: 3 queries .* 1 with .*'q0'.*'elsewhere'"):
        candidates_of(results(), qrels([("elsewhere", "d0-0")]))
    with pytest.raises(TrainingDataError, match=r"no relevant passage .* 3 queries .* 1 in both, such as \['q0'\]"):
        candidates_of(results(), qrels([("q0", "not retrieved")]))


def test_queries_with_relevant_passages_only_can_not_be_trained_on():
    with pytest.raises(TrainingDataError, match="both a relevant passage and a negative"):
        candidates_of(results(queries=1, depth=1), qrels([("q0", "d0-0")]))


def test_single_candidates_are_of_no_use_to_a_loss_that_needs_no_positive_either():
    with pytest.raises(TrainingDataError, match=r"none of 3 queries, such as \['q0', .*, has two candidates"):
        candidates_of(results(depth=1), qrels([("elsewhere", "d0-0")]), needs_positive=False)


def test_a_range_beyond_every_ranking_is_named():
    with pytest.raises(TrainingDataError, match="ranks 50 to 59"):
        draw_groups(candidates_of(results(), QRELS), TrainingOptions(negative_ranks=(50, 60)))


@pytest.mark.parametrize("bad", [None, float("nan"), 3])
def test_a_text_that_is_no_string_is_named(bad):
    frame = results().astype({"text": object})
    frame.loc[4, "text"] = bad
    with pytest.raises(TrainingDataError, match=r"1 rows .*'text'.*d0-4"):
        candidates_of(frame, QRELS)
