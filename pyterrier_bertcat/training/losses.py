"""Losses on score tensors: they see scores, labels and teacher scores, never text.

Every loss takes one row per query and one column per candidate passage:

* ``scores``  float32 (queries, candidates): the student's scores
* ``labels``  int64   (queries, candidates): 1 relevant, 0 not, -1 padding
* ``teacher`` float32 (queries, candidates): the teacher's scores, or None

and returns a scalar tensor, the mean over the queries or pairs that count. Padding must not change it: mask it before
an ``exp``, as infinity times 0 is NaN. Losses use tensor methods only, so that constructing one does not import torch,
and are frozen dataclasses, as their ``repr`` helps to identify a training run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pyterrier_bertcat.errors import InputError, TrainingDataError, one_of

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Protocol):
    """A loss, as the training loop uses it."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares with a teacher's scores."""

    @property
    def needs_positive(self) -> bool:
        """Whether it can only use queries with a relevant candidate."""

    def __call__(self, scores: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        """The scalar loss of a batch; shapes as at the head of this module."""


@dataclass(frozen=True)
class MarginMSE:
    """Squared error between the student's and the teacher's score margins (Hofstätter et al. 2020).

    ``mean(((s_i - s_j) - (t_i - t_j))²)`` over pairs (i, j) of one query's candidates.

    Args:
        pairs: ``"positive"`` compares the relevant passage with each other one, as in the paper. ``"all"`` compares
            every two candidates and needs no relevant one; it is the squared error of mean-centred scores, times a
            constant.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import MarginMSE
        >>> scores, teacher = torch.tensor([[2.0, 1.0]]), torch.tensor([[5.0, 1.0]])
        >>> labels = torch.tensor([[1, 0]])
        >>> MarginMSE()(scores, labels, teacher)  # the margins are 1 and 4
        tensor(9.)
    """

    pairs: Literal["positive", "all"] = "positive"
    needs_teacher = True

    def __post_init__(self) -> None:
        one_of("pairs", self.pairs, ("positive", "all"))

    @property
    def needs_positive(self) -> bool:
        """With ``pairs="all"`` it can use unlabelled queries too."""
        return self.pairs == "positive"

    def __call__(self, scores: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        """The scalar loss of a batch; see `Loss`."""
        if teacher is None:
            raise TrainingDataError("MarginMSE needs teacher scores: give TrainingOptions a teacher")
        error = scores - teacher
        # (q, i, j): (s_i - s_j) - (t_i - t_j)
        margin_error = error.unsqueeze(2) - error.unsqueeze(1)
        if self.pairs == "positive":
            compared = (labels > 0).unsqueeze(2) & (labels == 0).unsqueeze(1)
        else:
            present = labels >= 0
            compared = (present.unsqueeze(2) & present.unsqueeze(1)).triu(diagonal=1)
        count = compared.sum().clamp(min=1)
        return (margin_error.square() * compared).sum() / count


@dataclass(frozen=True)
class Contrastive:
    """Localised contrastive loss: softmax cross-entropy of one relevant passage among its negatives.

    Gao, Dai and Callan 2021, "Rethink Training of BERT Rerankers in Multi-Stage Retrieval Pipeline" (arXiv 2101.08751).
    Queries without a relevant candidate add nothing.

    Args:
        temperature: Above 0. Scores are divided by it first.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import Contrastive
        >>> scores, labels = torch.tensor([[2.0, 1.0]]), torch.tensor([[1, 0]])
        >>> Contrastive()(scores, labels, teacher=None)
        tensor(0.3133)
    """

    temperature: float = 1.0
    needs_teacher = False
    needs_positive = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature is a number above 0, got {self.temperature!r}")

    def __call__(self, scores: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        """The scalar loss of a batch; see `Loss`."""
        logits = (scores / self.temperature).masked_fill(labels < 0, float("-inf"))
        positive = labels > 0
        # (queries,): padded columns have no probability, and a query without a positive adds zero
        log_likelihood = logits.log_softmax(dim=1).masked_fill(~positive, 0.0).sum(dim=1)
        return -log_likelihood.sum() / positive.any(dim=1).sum().clamp(min=1)


@dataclass(frozen=True)
class ListwiseKL:
    """Kullback-Leibler divergence from the teacher's distribution over a query's whole list to the student's.

    ``sum_i p_i * (log p_i - log q_i)``, ``p = softmax(teacher / temperature)``, ``q = softmax(scores / temperature)``
    over one query's candidates; the mean over queries. It needs no relevant passage. It is not multiplied by
    ``temperature²`` (Hinton et al. 2015, arXiv 1503.02531, advise that beside a loss without a temperature): give
    `CombinedLoss` a weight.

    Args:
        temperature: Above 0. Both models' scores are divided by it first: a higher one gives the low ranks more weight.

    Example:
        >>> import torch
        >>> from pyterrier_bertcat import ListwiseKL
        >>> scores, teacher = torch.tensor([[2.0, 1.0]]), torch.tensor([[5.0, 1.0]])
        >>> labels = torch.tensor([[0, 0]])
        >>> ListwiseKL(temperature=2.0)(scores, labels, teacher)
        tensor(0.1683)
    """

    temperature: float = 2.0
    needs_teacher = True
    needs_positive = False

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"temperature is a number above 0, got {self.temperature!r}")

    def __call__(self, scores: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        """The scalar loss of a batch; see `Loss`."""
        if teacher is None:
            raise TrainingDataError("ListwiseKL needs teacher scores: give TrainingOptions a teacher")
        padding = labels < 0
        student_log, teacher_log = (
            (one / self.temperature).masked_fill(padding, float("-inf")).log_softmax(dim=1).masked_fill(padding, 0.0)
            for one in (scores, teacher)
        )
        # (queries,): a padded column has no probability, so it must not count with the 0 that stands for its logarithm
        divergence = (teacher_log.exp() * (teacher_log - student_log)).masked_fill(padding, 0.0).sum(dim=1)
        return divergence.mean()


@dataclass(frozen=True)
class CombinedLoss:
    """A weighted sum of losses.

    Args:
        losses: The parts.
        weights: One number per part.

    Example:
        >>> from pyterrier_bertcat import CombinedLoss, ListwiseKL, MarginMSE
        >>> loss = CombinedLoss((MarginMSE(pairs="all"), ListwiseKL()), weights=(0.1, 1.0))
        >>> loss.needs_teacher, loss.needs_positive
        (True, False)
    """

    losses: tuple[Loss, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.losses or len(self.losses) != len(self.weights):
            raise InputError(
                f"expected one weight per loss, got {len(self.losses)} losses, {len(self.weights)} weights"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any part needs a teacher."""
        return any(loss.needs_teacher for loss in self.losses)

    @property
    def needs_positive(self) -> bool:
        """Whether every part does: a part that doesn't can use unlabelled queries."""
        return all(loss.needs_positive for loss in self.losses)

    def __call__(self, scores: Tensor, labels: Tensor, teacher: Tensor | None) -> Tensor:
        """The scalar loss of a batch; see `Loss`."""
        first, *rest = (
            weight * loss(scores, labels, teacher) for loss, weight in zip(self.losses, self.weights, strict=True)
        )
        return sum(rest, start=first)
