"""Errors cross process boundaries whole: joblib, Ray and multiprocessing pickle them."""

from __future__ import annotations

import pickle

import pytest

from pyterrier_bertcat import errors


@pytest.mark.parametrize(
    "error",
    [
        errors.InputError("expected this, got that"),
        errors.CheckpointError("no such file"),
        errors.PairTooLargeError("too large"),
        errors.MissingExtraError("ray", extra="ray"),
    ],
)
def test_a_pickled_error_is_the_same_error(error):
    same = pickle.loads(pickle.dumps(error))
    assert type(same) is type(error)
    assert str(same) == str(error)


@pytest.mark.parametrize(
    ("values", "named"), [([], ""), (["a", "b", "c"], "'a', 'b', 'c'"), (dict.fromkeys("abcd"), "'a', 'b', 'c', …")]
)
def test_the_first_few_of_many_values_are_named(values, named):
    assert errors.some_of(values) == named


def test_values_are_named_as_asked():
    assert errors.some_of([1, 2], most=1, name="number {}".format) == "number 1, …"
