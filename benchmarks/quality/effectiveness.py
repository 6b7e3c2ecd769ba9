"""How well a checkpoint re-ranks BM25's top 100, on collections that it was not trained on.

    python -m benchmarks.quality.effectiveness --data DATA [--model mini] [--only qed_nq]
        [--queries 300] [--dtype float32 bfloat16 int8] [--plot FILE]

DATA is the folder that ``python -m benchmarks.fetch_data`` wrote. Prints a Markdown table: BM25 (k1 0.9, b 0.4) against
each dtype, by MRR@10, nDCG@10, a paired t-test and the seconds per query; with more than one dtype, how far the scores
are apart too. int8 is OpenVINO's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyterrier as pt
import pyterrier_pisa
from ir_measures import RR, nDCG

from benchmarks.common import PLOT_STYLE, Collection, argument_parser, machine
from pyterrier_bertcat import BertCatReRanker
from pyterrier_bertcat.data.bm25 import Bm25Retriever
from pyterrier_bertcat.data.pydoc_collection import PydocDataset, pydoc_documents

DEPTH = 100
COLLECTIONS = ["qed_nq", "squad_dev", "pydoc", "vaswani"]


@dataclass(frozen=True)
class Task:
    """A first stage with texts, and what it is judged by."""

    name: str
    first_stage: pt.Transformer
    topics: pd.DataFrame
    qrels: pd.DataFrame


def with_texts(documents: list[dict[str, str]]) -> pt.Transformer:
    """Adds ``text`` by docno."""
    texts = {document["docno"]: document["text"] for document in documents}
    return pt.apply.text(lambda row: texts[row["docno"]])


def bm25(documents: list[dict[str, str]]) -> pt.Transformer:
    """BM25's best, with their texts."""
    return Bm25Retriever(documents, num_results=DEPTH) >> with_texts(documents)


def tasks(data: Path, wanted: list[str], queries: int, folder: Path) -> Iterator[Task]:
    """The wanted collections one after the other; those with many queries are sampled with a fixed seed."""
    splits = {"qed_nq": ".dev", "squad_dev": ""}
    for name, split in ((name, split) for name, split in splits.items() if name in wanted):
        collection = Collection.read(data / name, split).sample(queries)
        yield Task(name, bm25(collection.documents), collection.topics, collection.qrels)
    if "pydoc" in wanted:
        dataset = PydocDataset()
        yield Task("bertcat:pydoc", bm25(pydoc_documents()), dataset.get_topics(), dataset.get_qrels())
    if "vaswani" in wanted:
        collection = Collection.read(data / "vaswani")
        index = pyterrier_pisa.PisaIndex(str(folder / "vaswani.pisa"), threads=1)
        index.index(collection.documents)
        first_stage = index.bm25(num_results=DEPTH, verbose=False) >> with_texts(collection.documents)
        yield Task("vaswani (PISA)", first_stage, collection.topics, collection.qrels)


def main() -> None:
    """Prints the table."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--only", nargs="+", choices=COLLECTIONS, default=COLLECTIONS, help="some of the collections")
    parser.add_argument("--queries", type=int, default=300, help="at most this many per collection (300)")
    parser.add_argument("--dtype", nargs="+", default=["float32"])
    parser.add_argument("--plot", type=Path, help="where to draw nDCG@10 of BM25 and of the first dtype")
    arguments = parser.parse_args()
    rerankers = {
        dtype: BertCatReRanker(
            arguments.model, dtype=dtype, backend="openvino" if dtype == "int8" else "torch", verbose=False
        ).load()
        for dtype in arguments.dtype
    }
    print(f"{machine()}\n")
    print("| collection | queries | system | MRR@10 | nDCG@10 | p (nDCG@10) | s/query |\n|---|---|---|---|---|---|---|")
    drawn: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.data, arguments.only, arguments.queries, Path(folder)):
            results = pt.Experiment(
                [task.first_stage, *(task.first_stage >> reranker for reranker in rerankers.values())],
                task.topics,
                task.qrels,
                [RR @ 10, nDCG @ 10, "mrt"],
                names=["BM25", *(f"{arguments.model}, {dtype}" for dtype in rerankers)],
                baseline=0,
                plan="tree",
                verbose=False,
            )
            for _, row in results.iterrows():
                print(
                    f"| {task.name} | {len(task.topics)} | {row['name']} | {row['RR@10']:.4f} | {row['nDCG@10']:.4f} "
                    f"| {row['nDCG@10 p-value']:.2g} | {row['mrt'] / 1000:.2f} |",
                    flush=True,
                )
            drawn[f"{task.name}\n{len(task.topics)} queries"] = results["nDCG@10"].tolist()[:2]
            if len(rerankers) > 1:
                frame = task.first_stage(task.topics.head(20))
                scores = [reranker.scorer.score(frame["query"], frame["text"]) for reranker in rerankers.values()]
                apart = [float(np.abs(scores[0] - other).max()) for other in scores[1:]]
                print(f"largest score difference to {arguments.dtype[0]} on {len(frame)} pairs: {apart}", flush=True)
    if arguments.plot:
        plot(drawn, arguments.model, arguments.plot)


def plot(drawn: dict[str, list[float]], model: str, path: Path) -> None:
    """Draws two bars per collection: BM25 and the model, nDCG@10."""
    places = np.arange(len(drawn))
    with plt.style.context(PLOT_STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 2.8), layout="constrained")
        for offset, (name, color) in enumerate((("BM25", "#9aa7b1"), (f"BM25 >> {model}", "#2d8fb0"))):
            bars = axes.bar(
                places + 0.38 * (offset - 0.5), [pair[offset] for pair in drawn.values()], 0.36, color=color, label=name
            )
            axes.bar_label(bars, fmt="%.3f", fontsize=8)
        axes.set(ylabel="nDCG@10", xticks=places, xticklabels=drawn, ylim=(0, 1.12))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(ncols=2, loc="upper right")
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
