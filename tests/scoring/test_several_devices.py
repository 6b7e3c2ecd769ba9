"""Which devices `devices=` means, and which values of it are refused before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring.devices import choose_devices
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

CPU = torch.device("cpu")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


@pytest.fixture
def no_accelerator(monkeypatch):
    for module in (torch.cuda, torch.backends.mps, torch.xpu):
        monkeypatch.setattr(module, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_all_are_the_gpus():
    assert choose_devices("all") == [torch.device("cuda:0"), torch.device("cuda:1")]


@pytest.mark.usefixtures("no_accelerator")
def test_without_gpus_all_is_the_cpu():
    assert choose_devices("all") == [CPU]


@pytest.mark.usefixtures("two_gpus")
def test_a_list_is_taken_in_its_order_with_cpus_as_often_as_they_are_named():
    assert choose_devices(["cpu", "cuda:1", "cpu"]) == [CPU, torch.device("cuda:1"), CPU]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["cuda:1", "cpu", "cuda"], "names cuda:1 more than once"),
        (["cuda:0", "cuda:2"], "device='cuda:2' is not usable here"),
        ([], r"devices is 'all' or a list .*, got \[\]"),
        ("cuda", "devices is 'all' or a list .*, got 'cuda'"),
    ],
)
def test_what_can_not_be_is_refused(devices, message):
    with pytest.raises(InputError, match=message):
        choose_devices(devices)


def test_a_single_device_of_a_list_needs_no_process(tiny_checkpoint):
    scorer = PairScorer(tiny_checkpoint, devices=["cpu"], verbose=False)
    assert scorer.score(["a dog"], ["fox"]).shape == (1,)
    assert scorer.stats.device == "cpu"


@pytest.mark.parametrize(
    "options",
    [
        {"devices": []},
        {"devices": "cuda"},
        {"devices": ["cpu", ""]},
        {"devices": ["cpu", 1]},
        {"devices": 2},
        {"devices": ["cpu", "cpu"], "device": "cpu"},
        {"devices": "all", "backend": "openvino"},
    ],
    ids=str,
)
def test_a_reranker_refuses_what_can_not_work_at_construction(options):
    with pytest.raises(InputError, match="devices"):
        BertCatReRanker("mini", **options)


def test_devices_count_for_equality_and_show():
    several = BertCatReRanker("mini", devices=["cpu", "cpu"])
    assert several == BertCatReRanker("mini", devices=("cpu", "cpu"))
    assert hash(several) == hash(BertCatReRanker("mini", devices=("cpu", "cpu")))
    assert several != BertCatReRanker("mini", devices="all")
    assert repr(several) == "BertCatReRanker('mini', devices=('cpu', 'cpu'))"


def test_a_device_that_is_not_here_is_refused_when_it_is_first_used():
    with pytest.raises(InputError, match="'cuda:77' is not usable here"):
        BertCatReRanker("mini", devices=["cpu", "cuda:77"]).load()
