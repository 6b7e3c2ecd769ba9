"""What each option of `BertCatReRanker` costs in time: one process, the options alternate, medians.

    python -m benchmarks.speed.options --data DATA [--model mini] [--pairs 200] [--rounds 5]

DATA is the folder that holds ``squad_dev``: its questions with BM25's best 100 paragraphs. Prints a Markdown table: the
time that the frame takes with an option, as a multiple of the time without any in the same round. Explaining is for
one pair, against scoring that pair alone.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import pandas as pd

from benchmarks.common import alternating, argument_parser, machine, median_ratio, timed
from benchmarks.speed.workloads import WORKLOADS
from pyterrier_bertcat import BertCatReRanker, Passages

BASE = "no option"
PASSAGE_COLUMNS = ["passages", "passage", "passage_start", "passage_end", "truncated"]


def main() -> None:
    """Prints the table."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    workload = WORKLOADS["squad"](arguments.pairs, arguments.data)
    frame = pd.DataFrame({"query": workload.queries, "text": workload.texts})
    frame["qid"] = frame.groupby("query", sort=False).ngroup().astype(str)
    frame["docno"] = [f"d{row}" for row in range(len(frame))]
    frame["rank"] = frame.groupby("qid").cumcount()
    frame["score"] = -frame["rank"].astype(float)

    def made(**options: object) -> BertCatReRanker:
        reranker = BertCatReRanker(arguments.model, **{"device": "cpu", "dtype": "float32", "verbose": False} | options)
        reranker(frame.head(50))
        return reranker

    plain = made()
    query, text = frame.loc[0, "query"], frame.loc[0, "text"]
    with tempfile.TemporaryDirectory() as scratch:
        full = made(store=Path(scratch) / "full")
        full(frame)
        stores = iter(range(1000))
        empty = made(store=Path(scratch) / "empty")

        def through_an_empty_store() -> None:
            empty.store = Path(scratch) / f"empty{next(stores)}"
            empty(frame)

        ways = {
            'truncation="paper"': made(truncation="paper"),
            "passages=Passages()": made(passages=Passages()),
            "passages=Passages(), extra_columns of them": made(passages=Passages(), extra_columns=PASSAGE_COLUMNS),
            "passages=Passages(length=50, stride=25)": made(passages=Passages(length=50, stride=25)),
            "depth=20": made(depth=20),
            "BertCatReRanker.mean([one, two])": BertCatReRanker.mean([made(), made()]),
            'devices=["cpu", "cpu"]': made(devices=["cpu", "cpu"], device=None),
            'dtype="bfloat16"': made(dtype="bfloat16"),
            'backend="openvino", dtype="int8"': made(
                backend="openvino", dtype="int8", calibration=workload.calibration
            ),
        }
        runs = {name: (lambda way=way: way(frame)) for name, way in ways.items()}
        runs["store, nothing in it"] = through_an_empty_store
        runs["store, everything in it"] = lambda: full(frame)
        explained = {
            f'explain(query, text, method="{method}")': lambda method=method: plain.explain(query, text, method=method)
            for method in ("occlusion", "gradients")
        }
        ratios: dict[str, float] = {}
        for base, against in (
            (lambda: plain(frame), runs),
            (lambda: plain.scorer.score([query], [text]), explained),
        ):
            seconds = alternating(timed({BASE: base} | against), arguments.rounds)
            ratios |= {name: median_ratio(seconds[name], seconds[BASE]) for name in against}
    print(f"{machine()}\n")
    print(
        f"{len(frame)} pairs, {arguments.model} in float32; the text that is explained has {len(text.split())} words\n"
    )
    print("| option | time, as a multiple |\n|---|---|")
    for name, ratio in ratios.items():
        print(f"| `{name}` | {ratio:.2f} |")


if __name__ == "__main__":
    main()
