"""Training and distillation inside PyTerrier: what ``BertCatReRanker.fit`` does, and what it can be told."""

from __future__ import annotations

from pyterrier_bertcat.training.losses import CombinedLoss, Contrastive, ListwiseKL, Loss, MarginMSE
from pyterrier_bertcat.training.options import TrainingOptions
from pyterrier_bertcat.training.teachers import TeacherFile

__all__ = ["CombinedLoss", "Contrastive", "ListwiseKL", "Loss", "MarginMSE", "TeacherFile", "TrainingOptions"]
