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
