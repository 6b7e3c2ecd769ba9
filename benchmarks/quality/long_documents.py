"""What becomes of long documents: cut off, or scored by their passages.

    python -m benchmarks.quality.long_documents --data DATA [--model mini] [--dtype bfloat16] [--queries 100]
        [--depth 20]

DATA is the folder that holds ``squad_dev``. Its paragraphs are joined, in their order, into documents of about 3,000
words; a document is relevant if one of its paragraphs is. BM25's best (k1 0.9, b 0.4) are re-ranked in several ways.
Prints a Markdown table: nDCG@10, MRR@10, a paired t-test against truncation, seconds per query (of the re-ranker), and
passages per document.
"""

from __future__ import annotations

import time

import pyterrier as pt
from ir_measures import RR, nDCG

from benchmarks.common import Collection, argument_parser, machine
from pyterrier_bertcat import BertCatReRanker, Passages

WORDS = 3000


def joined(collection: Collection) -> Collection:
    """A collection of long documents, each of neighbouring paragraphs."""
    long: list[dict[str, str]] = []
    home: dict[str, str] = {}
    words = WORDS
    for document in collection.documents:
        if words >= WORDS:
            long.append({"docno": f"long{len(long)}", "text": ""})
            words = 0
        long[-1]["text"] += document["text"] + "\n\n"
        words += len(document["text"].split())
        home[document["docno"]] = long[-1]["docno"]
    judged = collection.qrels.assign(docno=collection.qrels["docno"].map(home))
    qrels = judged.groupby(["qid", "docno"], as_index=False)["label"].max()
    return Collection(long, collection.topics, qrels)


def main() -> None:
    """Prints the table."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--depth", type=int, default=20)
    arguments = parser.parse_args()
    collection = joined(Collection.read(arguments.data / "squad_dev")).sample(arguments.queries)
    run, queries = collection.candidates(arguments.depth), len(collection.topics)
    mean_words = sum(len(text.split()) for text in collection.texts.values()) / len(collection.texts)
    print(f"{machine()}\n")
    print(f"{len(collection.texts)} documents of {mean_words:.0f} words, {queries} queries, first {arguments.depth}\n")

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
        seconds[name] = (time.perf_counter() - start) / queries
        passages[name] = runs[name]["passages"].mean()
    table = pt.Experiment(
        list(runs.values()),
        collection.topics,
        collection.qrels,
        [nDCG @ 10, RR @ 10],
        names=list(runs),
        baseline=1,
        verbose=False,
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
