"""The losses against their formulas, computed by hand."""

import math

import pytest
import torch

from pyterrier_bertcat.errors import InputError, TrainingDataError
from pyterrier_bertcat.training import CombinedLoss, Contrastive, ListwiseKL, MarginMSE

# One query with a relevant passage and two others; one with a relevant passage, one other, and a padded column.
SCORES = torch.tensor([[3.0, 1.0, 0.5], [2.0, 2.5, 99.0]])
TEACHER = torch.tensor([[5.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
LABELS = torch.tensor([[1, 0, 0], [1, 0, -1]])


def test_margin_mse_is_the_mean_squared_difference_of_margins_over_positive_and_negative_pairs():
    margins = [(3.0 - 1.0) - (5.0 - 1.0), (3.0 - 0.5) - (5.0 - 2.0), (2.0 - 2.5) - (1.0 - 0.0)]
    expected = sum(margin**2 for margin in margins) / 3
    assert MarginMSE()(SCORES, LABELS, TEACHER).item() == pytest.approx(expected)


def test_margin_mse_over_all_pairs_is_the_error_of_centred_scores_up_to_a_factor():
    torch.manual_seed(0)
    scores, teacher, n = torch.randn(4, 5), torch.randn(4, 5), 5
    difference = scores - teacher
    centred = difference - difference.mean(dim=1, keepdim=True)
    loss = MarginMSE(pairs="all")(scores, torch.zeros(4, 5, dtype=torch.int64), teacher)
    assert loss.item() == pytest.approx(2 * n / (n - 1) * centred.square().mean().item(), rel=1e-5)


def test_contrastive_is_the_cross_entropy_of_the_positive_among_its_candidates():
    first = -math.log(math.exp(3.0) / (math.exp(3.0) + math.exp(1.0) + math.exp(0.5)))
    second = -math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(2.5)))
    assert Contrastive()(SCORES, LABELS, None).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_contrastive_leaves_out_queries_without_a_positive():
    unlabelled = torch.cat([LABELS, torch.zeros(1, 3, dtype=torch.int64)])
    scores = torch.cat([SCORES, torch.randn(1, 3)])
    assert Contrastive()(scores, unlabelled, None).item() == pytest.approx(Contrastive()(SCORES, LABELS, None).item())
    assert Contrastive()(scores[2:], unlabelled[2:], None).item() == 0


def test_listwise_kl_is_the_divergence_of_the_students_distribution_from_the_teachers():
    def softmax(scores):
        powers = [math.exp(score / 2) for score in scores]
        return [power / sum(powers) for power in powers]

    lists = [([3.0, 1.0, 0.5], [5.0, 1.0, 2.0]), ([2.0, 2.5], [1.0, 0.0])]
    expected = [
        sum(p * math.log(p / q) for p, q in zip(softmax(teacher), softmax(student), strict=True))
        for student, teacher in lists
    ]
    assert ListwiseKL()(SCORES, LABELS, TEACHER).item() == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_listwise_kl_needs_no_label_and_is_zero_where_the_teacher_scores_the_same_up_to_a_constant():
    loss = ListwiseKL(temperature=0.7)
    assert loss.needs_teacher
    assert not loss.needs_positive
    unlabelled = LABELS.clamp(max=0)
    assert torch.equal(loss(SCORES, unlabelled, TEACHER), loss(SCORES, LABELS, TEACHER))
    assert loss(SCORES, unlabelled, SCORES + 4).item() == pytest.approx(0, abs=1e-6)
    assert loss(SCORES, unlabelled, TEACHER).item() > 0.1


def test_listwise_kl_is_finite_for_scores_far_apart():
    scores = torch.tensor([[1000.0, -1000.0, 5.0]], requires_grad=True)
    value = ListwiseKL(temperature=0.1)(scores, torch.tensor([[0, 0, -1]]), torch.tensor([[-1000.0, 1000.0, 0.0]]))
    value.backward()
    assert value.isfinite()
    assert scores.grad.isfinite().all()


def test_temperature_divides_the_scores():
    listwise = [ListwiseKL(temperature=2.0)(SCORES, LABELS, TEACHER), ListwiseKL(1.0)(SCORES / 2, LABELS, TEACHER / 2)]
    assert torch.equal(*listwise)
    assert torch.equal(Contrastive(temperature=2.0)(SCORES, LABELS, None), Contrastive()(SCORES / 2, LABELS, None))


def test_a_combined_loss_is_the_weighted_sum():
    both = CombinedLoss((MarginMSE(), Contrastive()), weights=(1.0, 0.2))(SCORES, LABELS, TEACHER)
    expected = MarginMSE()(SCORES, LABELS, TEACHER) + 0.2 * Contrastive()(SCORES, LABELS, None)
    assert both.item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "loss", [MarginMSE(), MarginMSE(pairs="all"), Contrastive(), ListwiseKL(), CombinedLoss((Contrastive(),), (1.0,))]
)
def test_padding_gets_no_gradient_and_changes_nothing(loss):
    scores = SCORES.clone().requires_grad_()
    value = loss(scores, LABELS, TEACHER)
    value.backward()
    assert scores.grad[1, 2] == 0
    assert scores.grad[0].abs().sum() > 0
    moved = SCORES.clone()
    moved[1, 2] = -7.0
    assert torch.equal(loss(moved, LABELS, TEACHER), value)


@pytest.mark.parametrize("loss", [MarginMSE(), ListwiseKL()])
def test_a_loss_without_the_teacher_scores_that_it_needs_says_what_is_missing(loss):
    with pytest.raises(TrainingDataError, match=f"{type(loss).__name__} needs teacher scores"):
        loss(SCORES, LABELS, None)


def test_bad_options_are_refused():
    with pytest.raises(InputError, match="pairs"):
        MarginMSE(pairs="some")
    with pytest.raises(InputError, match="temperature"):
        Contrastive(temperature=0.0)
    with pytest.raises(InputError, match="temperature"):
        ListwiseKL(temperature=-1.0)
    with pytest.raises(InputError, match="2 losses, 1 weights"):
        CombinedLoss((MarginMSE(), Contrastive()), weights=(1.0,))
