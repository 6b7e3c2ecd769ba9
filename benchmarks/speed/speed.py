"""How fast the ways of scoring are: one process, the ways alternate, medians.

    python -m benchmarks.speed.speed [--workloads passages long repeated squad] [--data DATA] [--rounds 5]
        [--pairs 256] [--device cpu] [--plot FILE]

Prints a Markdown table per workload. DATA is the folder that holds ``squad_dev``, for the workload of that name. The
ways, and the model that all of them score with, are in ``ways.py``; the workloads are in ``workloads.py``. Every way
scores the same pairs with the same weights, and how far its scores are from the plain loop's is printed with it.

The columns: pairs per second (median); how many times the plain loop's speed that is (median over the rounds, each
against the plain loop of the same round, so that a machine that slows down for a while spoils neither); memory at its
peak above what was in use before; and the share of the machine's own matrix-product rate. That rate is measured in the
same rounds, with the products of the model's layers at the batch size in use, and nothing around them. The share counts
useful arithmetic only: what the score depends on, so no padding, and one token in the last layer.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers

from benchmarks.common import (
    PLOT_STYLE,
    alternating,
    argument_parser,
    machine,
    median_ratio,
    seconds_of,
    timed,
    with_peak_memory,
)
from benchmarks.speed.ways import Way, speed_ways, write_model
from benchmarks.speed.workloads import WORKLOADS, Workload
from pyterrier_bertcat.pairs.pair_tokenizer import PairTokenizer

PRODUCT_TOKENS = {"float32": 1536, "bfloat16": 2048, "float16": 32_768}
WARM_UP_PAIRS = 48


def main() -> None:
    """Prints the tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=["passages"])
    parser.add_argument("--data", type=Path, help="the folder that holds squad_dev")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plot", type=Path, help="where to draw the first workload's pairs per second")
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder)
        workloads = [WORKLOADS[name](arguments.pairs, arguments.data) for name in arguments.workloads]
        ways = speed_ways(folder, arguments.device, calibration=workloads[0].calibration)
        tokenizer = transformers.BertTokenizerFast.from_pretrained(folder)
        for number, workload in enumerate(workloads):
            rates = compare(workload, ways, tokenizer, arguments.device, arguments.rounds)
            if arguments.plot and number == 0:
                plot(rates, workload.title, arguments.plot)


def compare(
    workload: Workload, ways: list[Way], tokenizer: transformers.PreTrainedTokenizerFast, device: str, rounds: int
) -> dict[str, float]:
    """Prints one workload's table; each way's pairs per second."""
    queries, texts = workload.queries, workload.texts
    lengths = PairTokenizer(tokenizer).encode(queries, texts).lengths
    print(f"\n### {workload.title}: {len(queries)} pairs of {lengths.mean():.0f} tokens on average\n", flush=True)
    plain, apart, peaks = ways[0].score(queries, texts), {}, {}
    for way in ways:
        way.score(queries[:WARM_UP_PAIRS], texts[:WARM_UP_PAIRS])
        scores, peaks[way.name] = with_peak_memory(partial(way.score, queries, texts))
        apart[way.name] = float(np.abs(scores - plain).max())
    dtypes = sorted({way.dtype for way in ways} & PRODUCT_TOKENS.keys())
    figures = alternating(
        {dtype: partial(product_rate, dtype, device) for dtype in dtypes}
        | timed({way.name: partial(way.score, queries, texts) for way in ways}),
        rounds,
    )
    seconds = {way.name: figures[way.name] for way in ways}
    product_rates = {dtype: figures[dtype] for dtype in dtypes}
    useful = useful_operations(lengths)
    print("| way | pairs/s | against the plain loop | peak memory | share of the product rate | largest difference |")
    print("|---|---|---|---|---|---|")
    for way in ways:
        rate = len(queries) / statistics.median(seconds[way.name])
        ratio = median_ratio(seconds[ways[0].name], seconds[way.name])
        shares = [useful / s / p for s, p in zip(seconds[way.name], product_rates.get(way.dtype, []), strict=False)]
        share = f"{statistics.median(shares):.0%}" if shares else ""
        print(
            f"| {way.name} | {rate:.1f} | {ratio:.2f} | {peaks[way.name]:.0f} MB | {share} | {apart[way.name]:.1e} |",
            flush=True,
        )
    print("\nMatrix products alone: ", end="")
    print(", ".join(f"{dtype} {statistics.median(r) / 1e9:.0f} GFLOP/s" for dtype, r in product_rates.items()))
    for name, base in [(ours.name, other.name) for ours in ways if ours.ours for other in ways if not other.ours]:
        print(f"{name} against {base}: {median_ratio(seconds[base], seconds[name]):.2f}")
    print(tokenising_report(tokenizer, queries, texts, rounds), flush=True)
    return {way.name: len(queries) / statistics.median(seconds[way.name]) for way in ways}


def product_rate(dtype: str, device: str) -> float:
    """Operations per second of the products of one encoder layer, one after the other, nothing else."""
    tokens = PRODUCT_TOKENS[dtype]
    options = {"dtype": getattr(torch, dtype), "device": device}
    shapes = [(768, 768)] * 4 + [(768, 3072), (3072, 768)]
    inputs = {width: torch.randn(tokens, width, **options) for width in (768, 3072)}
    weights = [torch.randn(shape, **options) for shape in shapes]

    def layer() -> None:
        for weight in weights:
            torch.mm(inputs[weight.shape[0]], weight)
        if device != "cpu":
            torch.cuda.synchronize()

    layer()
    return sum(2 * tokens * a * b for a, b in shapes) / statistics.median(seconds_of(layer) for _ in range(5))


def useful_operations(lengths: np.ndarray, *, hidden: int = 768, feed_forward: int = 3072, layers: int = 6) -> float:
    """Multiplications and additions that the scores depend on, of the distinct rows given."""
    key_and_value = 2 * 2 * hidden * hidden
    others = 2 * 2 * hidden * hidden + 2 * 2 * hidden * feed_forward  # query, output projection, feed-forward
    tokens, squares, pairs = lengths.sum(), (lengths.astype(float) ** 2).sum(), len(lengths)
    all_tokens = (layers - 1) * ((key_and_value + others) * tokens + 4 * hidden * squares)
    return float(all_tokens + key_and_value * tokens + others * pairs + 4 * hidden * tokens)


def tokenising_report(
    tokenizer: transformers.PreTrainedTokenizerFast, queries: list[str], texts: list[str], rounds: int
) -> str:
    """Tokenising and building pairs alone: ours, ours where no text occurs twice, and the tokenizer's own call."""
    pairs = PairTokenizer(tokenizer)
    distinct = [f"{text} {row}" for row, text in enumerate(texts)]
    runs = {
        "with reuse": lambda: pairs.encode(queries, texts),
        "ours without": lambda: pairs.encode(queries, distinct),
        "the tokenizer's own call": lambda: tokenizer(queries, texts, truncation=True, max_length=512),
    }
    alternating(timed(runs), rounds=1)  # warms up
    seconds = alternating(timed(runs), rounds)
    parts = [
        f"{name} {statistics.median(times) * 1e6 / len(texts):.0f} µs a pair "
        f"({median_ratio(times, seconds['with reuse']):.1f} times the first)"
        for name, times in seconds.items()
    ]
    return f"Tokenising ({len(set(texts))} distinct texts): {', '.join(parts)}"


def plot(rates: dict[str, float], title: str, path: Path) -> None:
    """Draws a bar per way: pairs per second, this package's in colour."""
    names = list(rates)[::-1]
    colors = ["#2d8fb0" if name.startswith("this package") else "#9aa7b1" for name in names]
    with plt.style.context(PLOT_STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 0.34 * len(rates) + 0.7), layout="constrained")
        bars = axes.barh(names, [rates[name] for name in names], color=colors)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9)
        axes.set(xlabel="pairs per second", title=title, xlim=(0, 1.1 * max(rates.values())))
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
