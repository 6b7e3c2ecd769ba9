"""What becomes of long documents: cut off, or scored by their passages.

    python benchmarks/long_documents.py --data DATA [--model mini] [--dtype bfloat16] [--queries 100] [--depth 20]

DATA is the folder that holds ``squad_dev``. Its paragraphs are joined, in their order, into documents of about 3,000
words; a document is relevant if one of its paragraphs is. BM25's best (k1 0.9, b 0.4) are re-ranked in several ways.
Prints a Markdown table: nDCG@10, MRR@10, a paired t-test against truncation, seconds per query (of the re-ranker), and
passages per document.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import pyterrier as pt
from ir_measures import RR, nDCG
from train_mini import read_collection

from pyterrier_bertcat import BertCatReRanker, Passages
from pyterrier_bertcat.data.bm25 import Bm25Retriever

WORDS = 3000
SEED = 0


def joined(documents: list[dict[str, str]], qrels: pd.DataFrame) -> tuple[list[dict[str, str]], pd.DataFrame]:
    """Neighbouring paragraphs as long documents, and the judgments of these."""
    long: list[dict[str, str]] = []
    home: dict[str, str] = {}
    words = WORDS
    for document in documents:
        if words >= WORDS:
            long.append({"docno": f"long{len(long)}", "text": ""})
            words = 0
        long[-1]["text"] += document["text"] + "\n\n"
        words += len(document["text"].split())
        home[document["docno"]] = long[-1]["docno"]
    judged = qrels.assign(docno=qrels["docno"].map(home))
    return long, judged.groupby(["qid", "docno"], as_index=False)["label"].max()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=20)
    arguments = parser.parse_args()
    documents, topics, qrels = read_collection(arguments.data / "squad_dev", "")
    documents, qrels = joined(documents, qrels)
    topics = topics.sample(min(arguments.queries, len(topics)), random_state=SEED).reset_index(drop=True)
    qrels = qrels[qrels["qid"].isin(topics["qid"])]
    texts = {document["docno"]: document["text"] for document in documents}
    run = Bm25Retriever(documents, num_results=arguments.depth)(topics)
    run["text"] = run["docno"].map(texts)
    mean_words = sum(len(text.split()) for text in texts.values()) / len(texts)
    print(f"{len(documents)} documents of {mean_words:.0f} words, {len(topics)} queries, first {arguments.depth}\n")

    ways = {
        "cut at 512 tokens": {},
        "first passage": {"passages": Passages(aggregate="first")},
        "max": {"passages": Passages()},
        "max, no overlap": {"passages": Passages(stride=200)},
        "max, passages of 400": {"passages": Passages(length=400, stride=200)},
        "mean": {"passages": Passages(aggregate="mean")},
        "kmax, k=3": {"passages": Passages(aggregate="kmax", k=3)},
    }
    runs, seconds, passages = {"BM25": run}, {"BM25": 0.0}, {"BM25": 0.0}
    for name, options in ways.items():
        options = {"dtype": arguments.dtype, "device": "cpu", "extra_columns": ["passages"], "verbose": False} | options
        reranker = BertCatReRanker(arguments.model, **options).load()
        start = time.perf_counter()
        runs[name] = reranker(run)
        seconds[name] = (time.perf_counter() - start) / len(topics)
        passages[name] = runs[name]["passages"].mean()
    table = pt.Experiment(
        list(runs.values()), topics, qrels, [nDCG @ 10, RR @ 10], names=list(runs), baseline=1, verbose=False
    )
    print("| way | nDCG@10 | MRR@10 | p (nDCG@10) | s/query | passages |\n|---|---|---|---|---|---|")
    for _, row in table.iterrows():
        name = row["name"]
        print(
            f"| {name} | {row['nDCG@10']:.3f} | {row['RR@10']:.3f} | {row['nDCG@10 p-value']:.2g} "
            f"| {seconds[name]:.2f} | {passages[name]:.1f} |"
        )


if __name__ == "__main__":
    main()
