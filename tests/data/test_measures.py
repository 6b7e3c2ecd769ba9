"""Measures by name, read without ir_measures' own parser."""

from __future__ import annotations

import ir_measures
import pytest
from ir_measures import AP, ERR, RBP, RR, P, R, nDCG

from pyterrier_bertcat.data.measures import measure_of
from pyterrier_bertcat.errors import InputError


@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("nDCG", nDCG),
        ("nDCG@10", nDCG @ 10),
        (" RR @ 10 ", RR @ 10),
        ("MRR@10", RR @ 10),
        ("RR(rel=2)@10", RR(rel=2) @ 10),
        ("AP(rel=2)", AP(rel=2)),
        ("P(rel=2, judged_only=True)@5", P(rel=2, judged_only=True) @ 5),
        ("RBP(p=0.8)", RBP(p=0.8)),
        ("nDCG(dcg='exp-log2')@20", nDCG(dcg="exp-log2") @ 20),
        ("nDCG(gains={0: 0, 1: 5})@20", nDCG(gains={0: 0, 1: 5}) @ 20),
        ("R(cutoff=100)", R @ 100),
        ("ERR@20", ERR @ 20),
    ],
)
def test_a_name_is_its_measure(name, measure):
    assert repr(measure_of(name)) == repr(measure)
    assert measure_of(name) == measure_of(measure) == measure


@pytest.mark.parametrize("name", sorted(ir_measures.measures.registry))
def test_every_measure_has_a_name_that_is_read_and_its_repr_is_one(name):
    measure = ir_measures.measures.registry[name]
    required = [parameter for parameter, facts in measure.SUPPORTED_PARAMS.items() if facts.required]
    if required == ["cutoff"]:
        assert measure_of(f"{name}@7") == measure_of(repr(measure_of(f"{name}@7"))) == measure @ 7
    elif not required:
        assert measure_of(name) == measure_of(repr(measure_of(name))) == measure


@pytest.mark.parametrize(
    "wrong",
    [
        "nonsense",
        "nonsense@10",
        "nDCG@x",
        "nDCG@",
        "nDCG@10@5",
        "nDCG@'ten'",
        "nDCG@2.5",
        "nDCG(10)",
        "nDCG(cut=10)",
        "nDCG(dcg=log)",
        "nDCG(**{})",
        "RBP(p='high')",
        "__import__('os').getcwd()",
        "nDCG@10; nDCG@20",
        "nDCG@" + "(" * 500 + "1" + ")" * 500,
        "",
        10,
        None,
        nDCG(cut=10),
    ],
    ids=lambda wrong: str(wrong)[:20] if isinstance(wrong, str) else type(wrong).__name__,
)
def test_what_is_none_is_refused(wrong):
    with pytest.raises(InputError, match="measure is a measure of ir_measures or its name, such as 'nDCG@10'"):
        measure_of(wrong)
