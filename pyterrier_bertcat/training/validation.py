"""A ranking measure on validation frames, computed with the model as it is at some step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ir_measures
import pandas as pd

from pyterrier_bertcat.checkpoints import Checkpoint
from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.modeling import CrossEncoder
from pyterrier_bertcat.scoring import PairScorer


@dataclass(frozen=True)
class Validation:
    """Re-ranks fixed candidates and measures the ranking.

    Args:
        frame: Result frame with ``qid, query, docno, <text_field>``.
        qrels: Columns ``qid, docno, label``.
        measure: An ir_measures measure or its name.
        text_field: The column that holds the passage.
        checkpoint: Whose tokenizer and source stand for the model under training.
        max_length: Tokens per pair.
    """

    frame: pd.DataFrame
    qrels: pd.DataFrame
    measure: Any
    text_field: str
    checkpoint: Checkpoint
    max_length: int

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "measure", _parsed(self.measure))
        except (NameError, ValueError, SyntaxError) as error:
            raise InputError(f"measure={self.measure!r} is not one of ir_measures': {error}") from error

    def evaluate(self, model: CrossEncoder) -> float:
        """The measure's mean over the judged queries, of the candidates ranked by ``model``."""
        scorer = PairScorer(
            replace(self.checkpoint, model=model),
            max_length=self.max_length,
            device=model.bert_model.device,
            verbose=False,
        )
        scores = scorer.score(self.frame["query"].tolist(), self.frame[self.text_field].tolist())
        run = pd.DataFrame(
            {
                "query_id": self.frame["qid"].astype(str),
                "doc_id": self.frame["docno"].astype(str),
                "score": scores,
            }
        )
        qrels = pd.DataFrame(
            {
                "query_id": self.qrels["qid"].astype(str),
                "doc_id": self.qrels["docno"].astype(str),
                "relevance": self.qrels["label"],
            }
        )
        return float(ir_measures.calc_aggregate([self.measure], qrels, run)[self.measure])


def _parsed(measure: Any) -> Any:
    return ir_measures.parse_measure(measure) if isinstance(measure, str) else measure
