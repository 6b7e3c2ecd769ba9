"""BERT_Cat, the cross-encoder re-ranker of Hofstätter et al. 2020 (arXiv 2010.02666), as a PyTerrier transformer.

The public names are loaded when they are first used: importing this package imports nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyterrier_bertcat.data.bm25 import Bm25Retriever as Bm25Retriever
    from pyterrier_bertcat.errors import BertCatError as BertCatError
    from pyterrier_bertcat.errors import CheckpointError as CheckpointError
    from pyterrier_bertcat.errors import InputError as InputError
    from pyterrier_bertcat.errors import MissingExtraError as MissingExtraError
    from pyterrier_bertcat.errors import PairTooLargeError as PairTooLargeError
    from pyterrier_bertcat.errors import ScoreError as ScoreError
    from pyterrier_bertcat.errors import StoreError as StoreError
    from pyterrier_bertcat.errors import TrainingDataError as TrainingDataError
    from pyterrier_bertcat.errors import TruncationWarning as TruncationWarning
    from pyterrier_bertcat.errors import WorkerError as WorkerError
    from pyterrier_bertcat.model.bert_cat import BertCatModel as BertCatModel
    from pyterrier_bertcat.model.checkpoint import Checkpoint as Checkpoint
    from pyterrier_bertcat.model.checkpoint import load_checkpoint as load_checkpoint
    from pyterrier_bertcat.model.checkpoint import save_checkpoint as save_checkpoint
    from pyterrier_bertcat.model.config import BertCatConfig as BertCatConfig
    from pyterrier_bertcat.pairs.passages import Passages as Passages
    from pyterrier_bertcat.pairs.truncation import Truncation as Truncation
    from pyterrier_bertcat.pipeline.ensemble import MeanReRanker as MeanReRanker
    from pyterrier_bertcat.pipeline.plain_texts import RankedText as RankedText
    from pyterrier_bertcat.pipeline.pyserini import json_text as json_text
    from pyterrier_bertcat.reranker import BertCatReRanker as BertCatReRanker
    from pyterrier_bertcat.scoring.pair_scorer import PairScorer as PairScorer
    from pyterrier_bertcat.scoring.statistics import RunStatistics as RunStatistics
    from pyterrier_bertcat.store.score_store import ScoreStore as ScoreStore
    from pyterrier_bertcat.training.losses import CombinedLoss as CombinedLoss
    from pyterrier_bertcat.training.losses import Contrastive as Contrastive
    from pyterrier_bertcat.training.losses import ListwiseKL as ListwiseKL
    from pyterrier_bertcat.training.losses import MarginMSE as MarginMSE
    from pyterrier_bertcat.training.options import TrainingOptions as TrainingOptions
    from pyterrier_bertcat.training.teachers import TeacherFile as TeacherFile

    __version__: str

_HOME = {
    "BertCatConfig": "model.config",
    "BertCatError": "errors",
    "BertCatModel": "model.bert_cat",
    "BertCatReRanker": "reranker",
    "Bm25Retriever": "data.bm25",
    "Checkpoint": "model.checkpoint",
    "CheckpointError": "errors",
    "CombinedLoss": "training.losses",
    "Contrastive": "training.losses",
    "InputError": "errors",
    "ListwiseKL": "training.losses",
    "MarginMSE": "training.losses",
    "MeanReRanker": "pipeline.ensemble",
    "MissingExtraError": "errors",
    "PairScorer": "scoring.pair_scorer",
    "PairTooLargeError": "errors",
    "Passages": "pairs.passages",
    "RankedText": "pipeline.plain_texts",
    "RunStatistics": "scoring.statistics",
    "ScoreError": "errors",
    "ScoreStore": "store.score_store",
    "StoreError": "errors",
    "TeacherFile": "training.teachers",
    "TrainingDataError": "errors",
    "TrainingOptions": "training.options",
    "Truncation": "pairs.truncation",
    "TruncationWarning": "errors",
    "WorkerError": "errors",
    "json_text": "pipeline.pyserini",
    "load_checkpoint": "model.checkpoint",
    "save_checkpoint": "model.checkpoint",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    """Import a public name from its module, once."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("pyterrier-bertcat")
    elif name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
