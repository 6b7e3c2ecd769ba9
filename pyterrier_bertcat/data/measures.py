"""Effectiveness measures by name, as ``ir_measures`` writes them: ``nDCG@10``, ``RR(rel=2)@10``, ``RBP(p=0.8)``."""

from __future__ import annotations

import ast
from typing import Any

import ir_measures

from pyterrier_bertcat.errors import InputError


def measure_of(measure: Any) -> Any:
    """The measure with this name.

    Like ``ir_measures.parse_measure``, whose version 0.4.3 can't read a number on Python 3.14.

    Args:
        measure: A name, or a measure, which is returned as it is.

    Raises:
        InputError: ir_measures has no such measure, or the measure doesn't take these parameters.
    """
    got = repr(measure) if isinstance(measure, str) else f"a {type(measure).__name__}"
    try:
        found = _parsed(measure) if isinstance(measure, str) else measure
        found.validate_params()
    except (AttributeError, AssertionError, TypeError, ValueError, SyntaxError, RecursionError) as error:
        raise InputError(
            f"measure is a measure of ir_measures or its name, such as 'nDCG@10' or 'RR(rel=2)@10', got {got}: {error}"
        ) from error
    return found


def _parsed(name: str) -> Any:
    node: ast.expr = ast.parse(name.strip(), mode="eval").body
    cutoff, parameters = None, {}
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
        cutoff = ast.literal_eval(node.right)
        node = node.left
    if isinstance(node, ast.Call) and not node.args:
        parameters = {str(one.arg): ast.literal_eval(one.value) for one in node.keywords}
        node = node.func
    if not isinstance(node, ast.Name) or node.id not in ir_measures.measures.registry:
        raise ValueError(f"there is no {ast.unparse(node)!r}")
    measure = ir_measures.measures.registry[node.id](**parameters)
    return measure if cutoff is None else measure @ cutoff
