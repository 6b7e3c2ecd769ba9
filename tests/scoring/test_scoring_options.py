"""The options of scoring: what they say a score depends on, and when they change a scorer."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.pairs.passages import Passages
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.reranker import BertCatReRanker
from pyterrier_bertcat.scoring import devices
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer

LENGTH = Truncation(max_length=512)
PLAIN = ScoringOptions(truncation=LENGTH, device="cpu", dtype="float32")
INT8 = ScoringOptions(truncation=LENGTH, backend="openvino", dtype="int8", calibration=(("a query", "a text"),))
ONLY_TIME = {
    "batch_size": (PLAIN, 7),
    "batch_tokens": (PLAIN, 300),
    "device": (PLAIN, None),
    "devices": (replace(PLAIN, device=None), ("cpu", "cpu")),
}
SCORES = {
    "truncation": (PLAIN, replace(LENGTH, max_query_length=9)),
    "passages": (PLAIN, Passages()),
    "dtype": (INT8, "float32"),
    "backend": (PLAIN, "openvino"),
    "calibration": (INT8, (("a query", "another text"),)),
}


def with_option(options: ScoringOptions, name: str, value: object) -> ScoringOptions:
    others = {"calibration": None} if name == "dtype" else {}
    return replace(options, **{name: value}, **others)


def test_every_option_is_known_to_these_tests():
    assert {option.name for option in fields(ScoringOptions)} == {*ONLY_TIME, *SCORES}


@pytest.mark.parametrize("name", SCORES)
def test_the_facts_change_with_each_option_that_can_change_a_score(name):
    options, value = SCORES[name]
    before, after = options.facts(), with_option(options, name, value).facts()
    assert before[name] != after[name]
    assert json.loads(json.dumps(after)) == after


@pytest.mark.parametrize("name", ONLY_TIME)
def test_the_facts_do_not_change_with_options_that_only_take_time(name):
    options, value = ONLY_TIME[name]
    changed = with_option(options, name, value)
    assert changed != options
    assert changed.facts() == options.facts()


def test_each_part_of_truncation_and_passages_is_in_the_facts():
    ways = [
        LENGTH,
        Truncation(max_length=100),
        replace(LENGTH, max_query_length=30),
        replace(LENGTH, strategy="only_text"),
    ]
    divisions = [Passages(), Passages(length=150), Passages(stride=50), Passages(aggregate="mean")]
    divisions += [Passages(aggregate="kmax", k=2), Passages(aggregate="kmax", k=3)]
    facts = [replace(PLAIN, truncation=truncation).facts() for truncation in ways]
    facts += [replace(PLAIN, passages=passages).facts() for passages in divisions]
    assert len({json.dumps(each, sort_keys=True) for each in facts}) == len(facts)


def test_equal_calibrations_have_equal_facts_whatever_holds_them():
    listed = replace(INT8, calibration=[["a query", "a text"]])
    assert listed == INT8
    assert listed.facts() == INT8.facts()


@pytest.mark.parametrize(
    ("capability", "dtype", "precision"),
    [((8, 0), "auto", "float16"), ((6, 1), "auto", "float32"), ((8, 0), "bfloat16", "bfloat16")],
)
def test_auto_becomes_the_precision_of_this_machine(monkeypatch, capability, dtype, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    for where in ({}, {"device": "cuda"}, {"devices": "all"}, {"devices": ["cuda:0"]}):
        options = ScoringOptions(truncation=LENGTH, dtype=dtype, **where)
        assert options.dtype == dtype
        assert options.precision == options.facts()["dtype"] == precision
    on_cuda = replace(PLAIN, device="cuda")
    assert replace(on_cuda, dtype=dtype).facts() == replace(on_cuda, dtype=precision).facts()


@pytest.mark.precision
def test_openvino_has_the_precision_of_the_cpu_beside_a_gpu_that_could_do_more(monkeypatch):
    from pyterrier_bertcat.scoring.devices import NO_HALF

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setenv(NO_HALF, "1")
    assert ScoringOptions(backend="openvino").precision == "float32"
    with pytest.warns(RuntimeWarning, match="bfloat16 is slow on this cpu"):
        assert ScoringOptions(backend="openvino", dtype="bfloat16").precision == "float32"


def test_the_precision_is_looked_up_only_when_it_is_asked_for():
    code = (
        "import sys; from pyterrier_bertcat.scoring.options import ScoringOptions as Options;"
        "automatic = [Options(), Options(devices='all'), Options(device='cuda:7', dtype='float16')];"
        "known = [Options(device='cpu'), Options(dtype='float32'), Options(backend='openvino')];"
        "known += [Options(devices=['cpu', 'cpu']), Options(backend='openvino', dtype='int8')];"
        "print([options.precision for options in known], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['float32', 'float32', 'float32', 'float32', 'int8'] False"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"device": torch.device("cpu")}, {"device": "cpu"}),
        ({"device": torch.device("cpu"), "dtype": torch.float32}, {"device": "cpu", "dtype": "float32"}),
        ({"devices": [torch.device("cpu")]}, {"devices": ("cpu",)}),
        ({"devices": (torch.device("cpu"),)}, {"devices": ("cpu",)}),
    ],
    ids=str,
)
def test_a_scorer_takes_torchs_own_devices_and_dtypes(tiny_checkpoint, given, named):
    scorer = PairScorer(tiny_checkpoint, verbose=False, **given)
    assert scorer.options == ScoringOptions(**named)
    assert scorer.score(["a dog"], ["fox"]).shape == (1,)
    assert scorer.stats.dtype == "float32"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 3),
        ("batch_tokens", 200),
        ("max_length", 20),
        ("max_query_length", 9),
        ("truncation", "only_text"),
        ("passages", Passages()),
        ("device", None),
        ("dtype", "float32"),
    ],
)
def test_an_option_that_is_set_later_gives_a_new_scorer(tiny_checkpoint, name, value):
    reranker = BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)
    first = reranker.scorer
    assert reranker.scorer is first
    reranker.set_parameter(name, value)
    assert reranker.scorer is not first
    assert reranker.scorer.options == ScoringOptions.of(reranker) != first.options


def test_an_equal_value_or_another_kind_of_option_keeps_the_scorer(tiny_checkpoint):
    reranker = BertCatReRanker(tiny_checkpoint, passages=Passages(), device="cpu", verbose=False)
    first = reranker.scorer
    for name, value in (("passages", Passages()), ("depth", 5), ("verbose", True)):
        reranker.set_parameter(name, value)
    assert reranker.scorer is first
    assert first.verbose


def test_an_option_that_is_set_to_nonsense_is_refused_before_it_is_used(tiny_checkpoint):
    reranker = BertCatReRanker(tiny_checkpoint, device="cpu", verbose=False)
    reranker.set_parameter("truncation", "shortest_first")
    with pytest.raises(InputError, match="truncation is one of 'longest_first', 'only_text', 'paper', got 'shortest"):
        _ = reranker.scorer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "paper"}, "truncation is a Truncation, got 'paper'"),
        ({"passages": 200}, "passages is a Passages or None, got 200"),
        ({"device": ""}, "device is a device's name or None, got ''"),
        ({"devices": "cuda"}, "devices is 'all', a list of at least one device's name, or None, got 'cuda'"),
        ({"devices": []}, "devices is 'all', a list of at least one device's name, or None, got "),
        ({"devices": ["cpu", 1]}, "devices is 'all', a list of at least one device's name, or None, got "),
        ({"devices": "all", "device": "cpu"}, "use either device or devices, got device='cpu' and devices='all'"),
        ({"devices": "all", "backend": "openvino"}, "devices='all' needs backend='torch', got backend='openvino'"),
        ({"backend": "onnx"}, "backend is one of 'torch', 'openvino', got 'onnx'"),
        ({"dtype": "int8"}, "with backend='torch', dtype is one of 'auto', .*, got 'int8'"),
    ],
    ids=str,
)
def test_an_error_says_what_was_expected_and_what_came(options, message):
    with pytest.raises(InputError, match=f"^{message}"):
        ScoringOptions(**options)


def test_int8_scores_of_cpus_with_and_without_fast_bfloat16_are_kept_apart(monkeypatch):
    rest = []
    for fast in (True, False):
        monkeypatch.setattr(devices, "is_fast", lambda dtype, device, fast=fast: fast)
        rest.append(INT8.facts()["int8_rest"])
    assert rest == ["bfloat16", "float32"]


def test_scores_of_a_backend_that_has_no_name_are_not_kept():
    class Other:
        def start(self, batch):
            return lambda: np.empty(0, dtype=np.float32)

    with pytest.raises(InputError, match="stores and jobs need backend='torch' or 'openvino'"):
        ScoringOptions(backend=Other()).facts()
