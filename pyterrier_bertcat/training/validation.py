"""A ranking measure on validation frames, computed with the model as it is at some step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ir_measures
import pandas as pd
import pyterrier as pt

from pyterrier_bertcat.data.measures import measure_of
from pyterrier_bertcat.errors import TrainingDataError
from pyterrier_bertcat.model.bert_cat import CrossEncoder
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.training.sampling import refuse_missing


@dataclass(frozen=True)
class Validation:
    """Re-ranks fixed candidates and measures the ranking.

    Args:
        frame: Result frame with ``qid, query, docno, <text_field>``.
        qrels: Columns ``qid, docno, label``. Queries that the frame has not are left out.
        measure: An ir_measures measure or its name.
        text_field: The column that holds the passage.
        checkpoint: Whose tokenizer and source stand for the model under training.
        scoring: How pairs are cut, and documents scored by their passages.

    Raises:
        InputError: for a measure that ir_measures doesn't have.
        TrainingDataError: where the qrels judge none of the queries, or a text is missing.
    """

    frame: pd.DataFrame
    qrels: pd.DataFrame
    measure: Any
    text_field: str
    checkpoint: Checkpoint
    scoring: ScoringOptions

    def __post_init__(self) -> None:
        object.__setattr__(self, "measure", measure_of(self.measure))
        pt.validate.result_frame(self.frame, extra_columns=["query", self.text_field])
        pt.validate.columns(self.qrels, includes=["qid", "docno", "label"])
        refuse_missing(self.frame, ["query", self.text_field])
        object.__setattr__(self, "frame", _distinct(self.frame))
        qrels = _distinct(self.qrels)
        ranked, judged = self.frame["qid"].unique(), qrels["qid"].unique()
        object.__setattr__(self, "qrels", qrels[qrels["qid"].isin(ranked)])
        if self.qrels.empty:
            raise TrainingDataError(
                f"the validation qrels judge none of the {len(ranked)} validation queries: {len(judged)} are judged, "
                f"such as {judged[:3].tolist()} against {ranked[:3].tolist()}"
            )

    def evaluate(self, model: CrossEncoder) -> float:
        """The measure's mean over the judged queries of the frame, of the candidates ranked by ``model``."""
        scorer = PairScorer(
            replace(self.checkpoint, model=model),
            verbose=False,
            **vars(
                replace(
                    self.scoring,
                    device=str(model.bert_model.device),
                    devices=None,
                    dtype="auto",
                    backend="torch",
                    calibration=None,
                )
            ),
        )
        scores = scorer.score(self.frame["query"].tolist(), self.frame[self.text_field].tolist())
        run = pd.DataFrame(
            {
                "query_id": self.frame["qid"],
                "doc_id": self.frame["docno"],
                "score": scores,
            }
        )
        qrels = pd.DataFrame(
            {
                "query_id": self.qrels["qid"],
                "doc_id": self.qrels["docno"],
                "relevance": self.qrels["label"],
            }
        )
        return float(ir_measures.calc_aggregate([self.measure], qrels, run)[self.measure])


def _distinct(frame: pd.DataFrame) -> pd.DataFrame:
    """Identifiers as strings, each pair of them once."""
    named = frame.assign(qid=frame["qid"].astype(str), docno=frame["docno"].astype(str))
    distinct: pd.DataFrame = named.drop_duplicates(["qid", "docno"], ignore_index=True)
    return distinct
