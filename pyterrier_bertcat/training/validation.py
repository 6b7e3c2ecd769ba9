"""The validation of a training: how well the model ranks candidates that it isn't trained on."""

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

    Queries without candidates in the frame are left out. ``checkpoint`` is where the training started; its tokenizer is
    used. ``scoring`` says how pairs are scored, on the device that the model is on.

    Raises:
        InputError: ir_measures has no such measure.
        TrainingDataError: The qrels judge none of the queries, or a text is missing.
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
        """Ranks the candidates by ``model``, and returns the measure's mean over the judged queries."""
        options = replace(self.scoring, device=str(model.bert_model.device))
        scorer = PairScorer(replace(self.checkpoint, model=model), verbose=False, **vars(options))
        scores = scorer.score(self.frame["query"].tolist(), self.frame[self.text_field].tolist())
        run = pd.DataFrame({"query_id": self.frame["qid"], "doc_id": self.frame["docno"], "score": scores})
        qrels = self.qrels.rename(columns={"qid": "query_id", "docno": "doc_id", "label": "relevance"})
        return float(ir_measures.calc_aggregate([self.measure], qrels, run)[self.measure])


def _distinct(frame: pd.DataFrame) -> pd.DataFrame:
    """Makes qids and docnos strings, and keeps the first row of each pair."""
    named = frame.assign(qid=frame["qid"].astype(str), docno=frame["docno"].astype(str))
    distinct: pd.DataFrame = named.drop_duplicates(["qid", "docno"], ignore_index=True)
    return distinct
