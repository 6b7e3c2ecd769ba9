"""What the benchmarks share: collections, candidates, timing, memory, the machine's name, a tiny checkpoint.

Importing this doesn't import torch: some benchmarks measure how far the package gets without it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from pyterrier_bertcat.data.bm25 import Bm25Retriever

if TYPE_CHECKING:
    from pyterrier_bertcat.model.checkpoint import Checkpoint

Result = TypeVar("Result")
PLOT_STYLE = Path(__file__).parents[1] / "pyterrier_bertcat" / "pt_docs" / "images" / "plots.mplstyle"


def argument_parser(description: str | None, *, data: bool = False) -> argparse.ArgumentParser:
    """A parser that shows a benchmark's docstring as its help; with ``data`` it takes the collections' folder."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        parser.add_argument(
            "--data", type=Path, required=True, help="the folder that benchmarks.fetch_data wrote collections into"
        )
    return parser


@dataclass(frozen=True)
class Collection:
    """One folder that `benchmarks.fetch_data` wrote.

    Attributes:
        documents: ``docno`` and ``text`` of each; some collections have a ``title`` too.
        topics: ``qid`` and ``query``.
        qrels: ``qid``, ``docno`` and ``label``.
    """

    documents: list[dict[str, str]]
    topics: pd.DataFrame
    qrels: pd.DataFrame

    @classmethod
    def read(cls, folder: Path, split: str = "") -> Collection:
        """Reads a folder; ``split`` is ``".dev"`` or ``".train"`` where topics come in parts."""
        with gzip.open(folder / "docs.jsonl.gz", "rt", encoding="utf-8") as lines:
            documents = [json.loads(line) for line in lines]
        topics = pd.read_csv(
            folder / f"topics{split}.tsv.gz",
            sep="\t",
            names=["qid", "query"],
            dtype=str,
            quoting=3,
            keep_default_na=False,
        )
        qrels = pd.read_csv(
            folder / f"qrels{split}.txt.gz", sep=" ", names=["qid", "_", "docno", "label"], dtype={0: str, 2: str}
        )
        return cls(documents, topics, qrels.drop(columns="_"))

    @cached_property
    def texts(self) -> dict[str, str]:
        """Docno to text."""
        return {document["docno"]: document["text"] for document in self.documents}

    def sample(self, queries: int) -> Collection:
        """The same documents with at most this many queries, drawn with a fixed seed."""
        topics = self.topics.sample(min(queries, len(self.topics)), random_state=0).reset_index(drop=True)
        return Collection(self.documents, topics, self.qrels[self.qrels["qid"].isin(topics["qid"])])

    def candidates(self, depth: int) -> pd.DataFrame:
        """BM25's best for each query (k1 0.9, b 0.4), with their ``text``."""
        run = Bm25Retriever(self.documents, num_results=depth)(self.topics)
        return run.assign(text=run["docno"].map(self.texts))


def made_up_texts(words: np.ndarray, seed: int, vocabulary: list[str] | None = None) -> list[str]:
    """Texts of random words.

    Args:
        words: How many words each text has.
        seed: Of the random numbers.
        vocabulary: The words. Default: 20,000 made-up words of two to nine letters.
    """
    numbers = np.random.default_rng(seed)
    if vocabulary is None:
        letters = numbers.choice(list("abcdefghijklmnopqrstuvwxyz"), (20_000, 9))
        vocabulary = ["".join(word[: 2 + row % 8]) for row, word in enumerate(letters)]
    return [" ".join(vocabulary[word] for word in numbers.integers(0, len(vocabulary), count)) for count in words]


def made_up_run(
    pairs: int, per_query: int, texts: list[str], *, query_words: int = 6, vocabulary: list[str] | None = None
) -> pd.DataFrame:
    """A run with made-up queries: qid, query, docno, text.

    With at least as many texts as pairs, every pair has a text of its own; otherwise each query draws its own sample.
    """
    numbers, count = np.random.default_rng(0), -(-pairs // per_query)
    if len(texts) >= pairs:
        rows = np.arange(pairs)
    else:
        rows = np.concatenate([numbers.choice(len(texts), per_query, replace=False) for _ in range(count)])[:pairs]
    qids = np.repeat(np.arange(count), per_query)[:pairs]
    queries = made_up_texts(np.full(count, query_words), query_words, vocabulary)
    return pd.DataFrame(
        {
            "qid": qids.astype(str),
            "query": [queries[qid] for qid in qids],
            "docno": rows.astype(str),
            "text": [texts[row] for row in rows],
        }
    )


def seconds_of(run: Callable[[], object], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """How long a call takes."""
    start = clock()
    run()
    return clock() - start


def timed(runs: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], float]]:
    """Calls that return how many seconds each of these takes."""
    return {name: partial(seconds_of, run) for name, run in runs.items()}


def alternating(measures: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Each measure's figures, taken once per round: a machine that slows down for a while then favours none."""
    figures: dict[str, list[Result]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return figures


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median over the rounds of one figure divided by another of the same round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def with_peak_memory(run: Callable[[], Result]) -> tuple[Result, float]:
    """A call's result, and by how many MB its peak exceeded the memory in use before; nan unless this is Linux."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the recorded peak to the memory in use now
        before = _status_mb("VmRSS")
    except OSError:
        return run(), float("nan")
    result = run()
    return result, _status_mb("VmHWM") - before


def resident_mb() -> float:
    """The memory that this process uses now, in MB. Linux only."""
    return _status_mb("VmRSS")


def _status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1e3


def machine() -> str:
    """The CPU, how many of its threads this process may use, and how busy the machine is: for the head of a table."""
    name = platform.processor() or platform.machine()
    usable = os.cpu_count()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
        usable = len(os.sched_getaffinity(0))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {usable} threads{load}"


def tiny_checkpoint() -> Checkpoint:
    """A checkpoint with random weights: two layers of width 32 and the packaged checkpoint's tokenizer.

    For benchmarks of anything but speed and quality. Different pairs get clearly different scores.
    """
    import torch
    from transformers import DistilBertConfig

    from pyterrier_bertcat.model.bert_cat import BertCatModel
    from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint
    from pyterrier_bertcat.model.config import BertCatConfig

    tokenizer = load_checkpoint("mini").tokenizer
    torch.manual_seed(0)
    encoder = DistilBertConfig(vocab_size=len(tokenizer), dim=32, n_layers=2, n_heads=4, hidden_dim=64)
    model = BertCatModel(BertCatConfig.from_encoder_config(encoder))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4.0)
    return Checkpoint(model=model.eval(), tokenizer=tokenizer)
