"""Checks and measures the package on a GPU. Prints Markdown, and exits with 1 if a number is wrong.

    python -m benchmarks.on_gpu [--quick] [--device cuda] [--sections parity speed ...]

The default takes about 4 minutes on an H100, ``--quick`` about one. ``--device cpu --quick`` runs the same code, in
small, on a machine without a GPU. Only the package, its ``train`` extra and this folder are needed. With bm25s and
sentence-transformers installed, there is more to compare with; what can't be measured is named.

Each section prints its lines when it ends, and the others don't depend on it: an error is printed and counts as wrong.
Processes of their own run the sections, so that not even a crash, a hang or a broken CUDA context stops the rest. The
sections of ``GROUPS[0]`` and ``GROUPS[1]`` run side by side, and those that take times run alone, last.

- parity: every family of encoders against plain transformers, on the device, in each precision.
- packed: batches without padding against padded ones, and in other batches.
- half: `mini` in half precision against float32, on the questions of Python's documentation.
- memory: a batch that is far too large is divided, and one of more than 2**31 numbers is right.
- interrupt: Ctrl-C while scoring is a KeyboardInterrupt, and the re-ranker works afterwards.
- fit: 50 steps, killed and resumed, give the weights of an uninterrupted run.
- devices: several devices, each with a process of its own, give the scores of one.
- speed: pairs per second end to end, beside sentence-transformers' CrossEncoder.
- waiting: for which share of the time the GPU has nothing to do, and where its time goes.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.common import alternating, argument_parser, machine, median_ratio, timed

if TYPE_CHECKING:
    import transformers

    from pyterrier_bertcat import Checkpoint, PairScorer

GROUPS = (
    ("machine", "parity", "packed", "half", "memory", "interrupt"),
    ("fit", "devices"),
    ("speed", "waiting"),
)
SECTION_LIMIT_S = (200, 600)  # on a GPU, on a CPU
FLOAT32_TOLERANCE = 5e-5  # times the largest score, if that is above 1
SIZES = {  # hidden, layers, heads, feed-forward
    "mini": (128, 2, 2, 512),
    "MiniLM-L6": (384, 6, 12, 1536),
    "DistilBERT": (768, 6, 12, 3072),
    "BERT-base": (768, 12, 12, 3072),
}
QUERY_WORDS = 6
GOAL_TOKENS, GOAL_PAIRS_PER_SECOND, GOAL_RATIO = 76, 60_000, 1.5


@dataclass
class Run:
    """What one section needs to know, and what it finds."""

    device: str
    quick: bool
    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def on_cpu(self) -> bool:
        """Whether this is a rehearsal without a GPU: everything is as small as possible."""
        return self.device == "cpu"

    @cached_property
    def halves(self) -> list[str]:
        """The half precisions to check: those that the device is fast at."""
        import torch

        from pyterrier_bertcat.scoring.devices import choose_device, is_fast

        names = ["bfloat16"] if self.on_cpu else ["float16", "bfloat16"]
        return [name for name in names if is_fast(getattr(torch, name), choose_device(self.device))]

    def say(self, line: str = "") -> None:
        """Adds a line to the section's report."""
        self.lines.append(line)

    def check(self, holds: object, message: str) -> str:
        """Notes a wrong number; returns what a table shows for it."""
        if holds:
            return "yes"
        self.wrong.append(message)
        return "**NO**"


# ---------------------------------------------------------------------------------------------------------------------
# Models and texts
# ---------------------------------------------------------------------------------------------------------------------


@cache
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """The packaged checkpoint's, which needs no download; it cuts at 512 tokens."""
    from pyterrier_bertcat import load_checkpoint

    found = load_checkpoint("mini").tokenizer
    found.model_max_length = 512
    return found


def plain_model(config: transformers.PretrainedConfig, *, spread: float = 2.0) -> transformers.PreTrainedModel:
    """Hugging Face's sequence classifier with random weights; ``spread`` keeps different pairs' scores apart."""
    import torch
    import transformers

    torch.manual_seed(0)
    config.num_labels, config.vocab_size, config.pad_token_id = 1, len(tokenizer()), tokenizer().pad_token_id
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(spread)
    return model.eval()


def sized_model(size: str) -> transformers.PreTrainedModel:
    """A classifier of a well-known size."""
    import transformers

    hidden, layers, heads, feed_forward = SIZES[size]
    if size == "DistilBERT":
        config = transformers.DistilBertConfig(dim=hidden, n_layers=layers, n_heads=heads, hidden_dim=feed_forward)
    else:
        config = transformers.BertConfig(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=feed_forward
        )
    return plain_model(config)


def checkpoint_of(plain: transformers.PreTrainedModel) -> Checkpoint:
    """The same weights in this package's class."""
    from pyterrier_bertcat import Checkpoint
    from pyterrier_bertcat.model.classifier import SequenceClassificationModel

    model = SequenceClassificationModel(plain.config)
    model.load_state_dict(SequenceClassificationModel.internal_names(plain.config, plain.state_dict()), strict=True)
    return Checkpoint(model=model.eval(), tokenizer=tokenizer())


def scorer_of(run: Run, checkpoint: Checkpoint, dtype: str = "auto", **options: Any) -> PairScorer:
    """This package's scorer on the device."""
    from pyterrier_bertcat import PairScorer

    if "backend" in options or "devices" in options:
        return PairScorer(checkpoint, dtype=dtype, verbose=False, **options)
    return PairScorer(checkpoint, device=run.device, dtype=dtype, verbose=False, **options)


@cache
def one_token_words() -> tuple[str, ...]:
    """Words that are one token each."""
    return tuple(
        sorted(word for word in tokenizer().get_vocab() if word.isascii() and word.isalpha() and len(word) > 2)
    )


def some_texts(words: np.ndarray, seed: int) -> list[str]:
    """Texts of random words; ``words`` says how many each has."""
    vocabulary = np.array(one_token_words(), dtype=object)
    drawn = vocabulary[np.random.default_rng(seed).integers(0, len(vocabulary), int(words.sum()))].tolist()
    ends = np.cumsum(words).tolist()
    return [" ".join(drawn[end - count : end]) for end, count in zip(ends, words.tolist(), strict=True)]


def some_pairs(count: int, tokens: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Queries and texts that make pairs of about ``tokens`` tokens, spread as passages' are; at 512, all are full."""
    most = 512 - QUERY_WORDS - 3
    mean = tokens - QUERY_WORDS - 3
    if tokens >= 512:
        words = np.full(count, most)
    else:
        words = np.random.default_rng(seed).gamma(9, mean / 9, count).clip(3, most).astype(np.int64)
    queries = some_texts(np.full(-(-count // 50), QUERY_WORDS), seed + 1)
    return [queries[row // 50] for row in range(count)], some_texts(words, seed + 2)


def plain_scores(
    model: transformers.PreTrainedModel, queries: list[str], texts: list[str], device: str, dtype: str
) -> np.ndarray:
    """Scores of a plain loop with transformers: float32 (n,)."""
    import copy

    import torch

    # The embeddings of some families take no token types, others have only one
    types = model.config.model_type != "distilbert" and model.config.type_vocab_size > 1
    placed = copy.deepcopy(model).to(device=device, dtype=getattr(torch, dtype))
    scores = []
    with torch.inference_mode():
        for start in range(0, len(queries), 32):
            rows = slice(start, start + 32)
            batch = tokenizer()(queries[rows], texts[rows], truncation=True, padding=True, return_tensors="pt")
            if not types:
                batch.pop("token_type_ids", None)
            scores.append(placed(**batch.to(device)).logits[:, 0].float().cpu().numpy())
    return np.concatenate(scores)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of two arrays of scores."""
    return float(np.abs(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)).max())


def float32_tolerance(scores: np.ndarray) -> float:
    """How far float32 scores may be apart."""
    return FLOAT32_TOLERANCE * max(1.0, float(np.abs(scores).max()))


# ---------------------------------------------------------------------------------------------------------------------
# Sections
# ---------------------------------------------------------------------------------------------------------------------


def section_machine(run: Run) -> None:
    """What runs here."""
    import torch
    import transformers

    run.say(f"- {machine()}")
    run.say(f"- torch {torch.__version__}, transformers {transformers.__version__}, Python {sys.version.split()[0]}")
    if run.on_cpu:
        run.say("- no GPU: a rehearsal on the CPU, in small")
        return
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        run.say(f"- cuda:{index}: {gpu.name}, {gpu.total_memory / 1e9:.0f} GB, compute {gpu.major}.{gpu.minor}")
    from pyterrier_bertcat.scoring.backends.attention import variable_length_works

    device = torch.device(run.device)
    for dtype in run.halves:
        works = variable_length_works(device, getattr(torch, dtype), head_size=64)
        run.say(f"- packed attention in {dtype} works: {run.check(works, f'no packed attention in {dtype}')}")
    allowed = torch.backends.cuda.matmul.allow_tf32
    run.say(f"- TF32 products allowed: {allowed}")
    run.check(not allowed, "TF32 is on, so float32 is not exact")


def section_parity(run: Run) -> None:
    """Every family against plain transformers.

    In half precision, the yardstick is plain transformers' own distance from float32 in that precision.
    """
    import transformers

    tiny = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128, "hidden_size": 64}
    odd_heads = tiny | {"hidden_size": 104}  # heads of 26, as in TinyBERT's 4 layers of 312
    configs: dict[str, Callable[[], transformers.PretrainedConfig]] = {
        "distilbert": lambda: transformers.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128),
        "bert": lambda: transformers.BertConfig(**tiny),
        "bert, heads of 26": lambda: transformers.BertConfig(**odd_heads),
        "electra": lambda: transformers.ElectraConfig(embedding_size=32, **tiny),
        "roberta": lambda: transformers.RobertaConfig(max_position_embeddings=514, type_vocab_size=1, **tiny),
        "xlm-roberta": lambda: transformers.XLMRobertaConfig(max_position_embeddings=514, type_vocab_size=1, **tiny),
    }
    models: dict[str, Callable[[], transformers.PreTrainedModel]] = {
        name: (lambda config=config: plain_model(config(), spread=4.0)) for name, config in configs.items()
    }
    if not run.quick:
        models["DistilBERT's size"] = lambda: sized_model("DistilBERT")
        models["BERT-base's size"] = lambda: sized_model("BERT-base")
    queries, texts = some_pairs(24 if run.on_cpu else 256, 120)
    texts[0], texts[1], queries[2] = " ", some_texts(np.array([900]), 9)[0], ""
    run.say("Largest difference from plain transformers in float32: of this package, and of plain transformers.\n")
    run.say("| encoder | precision | this package | transformers | spread of the scores | right |")
    run.say("|---|---|---|---|---|---|")
    for name, made in models.items():
        plain = made()
        checkpoint = checkpoint_of(plain)
        exact = plain_scores(plain, queries, texts, run.device, "float32")
        for dtype in ["float32", *run.halves]:
            ours = apart(scorer_of(run, checkpoint, dtype).score(queries, texts), exact)
            theirs = 0.0 if dtype == "float32" else apart(plain_scores(plain, queries, texts, run.device, dtype), exact)
            limit = float32_tolerance(exact) + 2 * theirs
            right = run.check(ours <= limit < 3 * exact.std(), f"{name} in {dtype}: {ours:.1e} is above {limit:.1e}")
            run.say(f"| {name} | {dtype} | {ours:.1e} | {theirs:.1e} | {exact.std():.2f} | {right} |")


def section_packed(run: Run) -> None:
    """Batches without padding, padded ones, and smaller ones in another order."""
    from pyterrier_bertcat.scoring.backends.torch import TorchBackend

    plain = sized_model("mini" if run.quick else "DistilBERT")
    checkpoint = checkpoint_of(plain)
    queries, texts = some_pairs(200 if run.on_cpu else 4000, 76)
    texts[0] = ""
    order = np.random.default_rng(0).permutation(len(texts))
    exact = scorer_of(run, checkpoint, "float32").score(queries, texts)
    run.say("Largest differences of a score.\n")
    run.say("| precision | packs | from float32 | packed from padded | other batches | right |")
    run.say("|---|---|---|---|---|---|")
    for dtype in ["float32", *run.halves]:
        backends = [TorchBackend(checkpoint.model, device=run.device, dtype=dtype) for _ in range(2)]
        packs = backends[0]._packs
        backends[1]._packs = False
        packed, padded = (scorer_of(run, checkpoint, backend=backend) for backend in backends)
        scores = packed.score(queries, texts)
        from_padded = apart(scores, padded.score(queries, texts))
        shuffled = scorer_of(run, checkpoint, dtype, batch_size=3).score(
            [queries[row] for row in order], [texts[row] for row in order]
        )
        from_batches, from_exact = apart(shuffled, scores[order]), apart(scores, exact)
        limit = float32_tolerance(exact) + (0 if dtype == "float32" else 2 * from_exact)
        right = run.check(
            max(from_padded, from_batches) <= limit and np.isfinite(scores).all(),
            f"{dtype}: packed and padded or other batches differ by more than {limit:.1e}",
        )
        if dtype != "float32":
            run.check(packs, f"{dtype} is padded")
        run.say(f"| {dtype} | {packs} | {from_exact:.1e} | {from_padded:.1e} | {from_batches:.1e} | {right} |")


def section_half(run: Run) -> None:
    """The packaged checkpoint in half precision, on questions about Python's documentation."""
    import ir_measures
    from ir_measures import nDCG

    from pyterrier_bertcat import BertCatReRanker
    from pyterrier_bertcat.data.bm25 import Bm25Retriever
    from pyterrier_bertcat.data.pydoc_collection import PydocDataset, PydocTextLoader, pydoc_documents

    depth, questions = (20, 5) if run.on_cpu else (20, 60) if run.quick else (50, 1000)
    topics, qrels = PydocDataset().get_topics().head(questions), PydocDataset().get_qrels()
    if importlib.util.find_spec("bm25s"):
        candidates, which = Bm25Retriever(pydoc_documents(), num_results=depth)(topics), f"BM25's first {depth}"
    else:
        docnos = [document["docno"] for document in pydoc_documents()]
        drawn = np.random.default_rng(0).choice(len(docnos), (len(topics), depth))
        rows = [(*topic, docnos[row]) for topic, some in zip(topics.to_numpy(), drawn, strict=True) for row in some]
        judged = qrels.merge(topics, on="qid")[[*topics.columns, "docno"]]
        candidates = pd.concat([pd.DataFrame(rows, columns=judged.columns), judged]).drop_duplicates(["qid", "docno"])
        which = f"{depth} documents drawn at random and the judged ones (not BM25's: bm25s is not installed)"
    candidates = PydocTextLoader()(candidates)
    judgments = qrels[qrels["qid"].isin(topics["qid"])].rename(
        columns={"qid": "query_id", "docno": "doc_id", "label": "relevance"}
    )
    run.say(f"`mini`, {len(topics)} questions, {which}: {len(candidates):,} pairs.\n")
    run.say("| precision | largest difference from float32 | nDCG@10 | right |\n|---|---|---|---|")
    exact: pd.Series[float] | None = None
    exact_ndcg = 0.0
    for dtype in ["float32", *run.halves]:
        ranked = BertCatReRanker("mini", device=run.device, dtype=dtype, verbose=False)(candidates)
        found = ranked.rename(columns={"qid": "query_id", "docno": "doc_id"})
        ndcg = ir_measures.calc_aggregate([nDCG @ 10], judgments, found)[nDCG @ 10]
        scores = ranked.set_index(["qid", "docno"])["score"].sort_index()
        if exact is None:
            exact, exact_ndcg = scores, ndcg
        difference = apart(scores.to_numpy(), exact.to_numpy())
        most = {"float32": 0.0, "float16": 0.1, "bfloat16": 1.0}[dtype]
        right = run.check(
            difference <= most and abs(ndcg - exact_ndcg) < 0.01, f"mini in {dtype}: {difference:.2g}, nDCG {ndcg:.4f}"
        )
        run.say(f"| {dtype} | {difference:.1e} | {ndcg:.4f} | {right} |")


def section_memory(run: Run) -> None:
    """A batch far too large for the memory; one with more numbers than 32-bit indices count."""
    import torch

    size = "mini" if run.on_cpu else "MiniLM-L6" if run.quick else "DistilBERT"
    checkpoint = checkpoint_of(sized_model(size))
    queries, texts = some_pairs(300 if run.on_cpu else 8192, 128)
    huge = {"batch_size": len(texts), "batch_tokens": len(texts) * 512}
    exact = scorer_of(run, checkpoint, "float32").score(queries, texts)
    run.say("| precision | limit | divided | tokens per batch at the end | again divided | difference | right |")
    run.say("|---|---|---|---|---|---|---|")
    for dtype in ["float32"] if run.on_cpu else ["float32", "float16"]:
        expected = scorer_of(run, checkpoint, dtype).score(queries, texts)
        scorer = _small_scorer(run, checkpoint, dtype, huge)
        with _little_memory(run) as limit, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            scores = scorer.score(queries, texts)
            first = scorer.stats
            scorer.score(queries, texts)
        again, difference = scorer.stats.back_offs, apart(scores, expected)
        most = float32_tolerance(exact) + 2 * apart(expected, exact)
        warned = any("did not fit in memory" in str(one.message) for one in caught)
        right = run.check(
            first.back_offs and warned and not again and difference <= most,
            f"memory in {dtype}: {first.back_offs} back-offs, then {again}; warned {warned}; {difference:.1e} apart",
        )
        run.say(
            f"| {dtype} | {limit} | {first.back_offs} | {first.batch_tokens:,} | {again} | {difference:.1e} | {right} |"
        )
    if run.on_cpu or run.quick:
        run.say("\nNot measured: one batch with more than 2**31 numbers.")
        return
    torch.cuda.empty_cache()
    expected = scorer_of(run, checkpoint, "float16").score(queries, texts)
    scorer = scorer_of(run, checkpoint, "float16", **huge)
    difference, most = apart(scorer.score(queries, texts), expected), 2 * apart(expected, exact)
    tokens, peak = scorer.stats.tokens, (scorer.stats.peak_memory_mb or 0) / 1e3
    right = run.check(difference <= most, f"a batch of {tokens:,} tokens: {difference:.1e} apart")
    run.say(
        f"\nOne batch of {tokens:,} tokens in float16, {tokens * 3072 / 2**31:.1f} times 2**31 numbers in one tensor: "
        f"{difference:.1e} apart, {scorer.stats.back_offs} times divided, {peak:.0f} GB at most; right: {right}"
    )


def _small_scorer(run: Run, checkpoint: Checkpoint, dtype: str, options: dict[str, Any]) -> PairScorer:
    """A scorer with huge batches; on the CPU, its backend says by itself that they don't fit."""
    import torch

    from pyterrier_bertcat.scoring.backends.torch import TorchBackend

    if not run.on_cpu:
        return scorer_of(run, checkpoint, dtype, **options)

    class Limited(TorchBackend):
        def start(self, batch: Any) -> Any:
            if len(batch.input_ids) > 4096:
                raise torch.OutOfMemoryError("CUDA out of memory (a rehearsal)")
            return super().start(batch)

    return scorer_of(run, checkpoint, backend=Limited(checkpoint.model, device="cpu", dtype=dtype), **options)


@contextlib.contextmanager
def _little_memory(run: Run, gigabytes: float = 1.5) -> Iterator[str]:
    """Leaves this process a little more GPU memory than it uses now."""
    if run.on_cpu:
        yield "4,096 tokens, pretended"
        return
    import torch

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    device = torch.device(run.device)  # has an index
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + gigabytes * 1e9
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    try:
        yield f"{allowed / 1e9:.1f} GB"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def section_interrupt(run: Run) -> None:
    """Ctrl-C at several moments of a run that takes seconds."""
    from pyterrier_bertcat import BertCatReRanker

    signal.signal(signal.SIGINT, signal.default_int_handler)
    checkpoint = checkpoint_of(sized_model("mini" if run.on_cpu else "BERT-base"))
    queries, texts = some_pairs(1000, 100)
    repeats = 10 if run.on_cpu else 60 if run.quick else 150
    frame = pd.DataFrame(
        {
            "qid": [str(row % repeats) for row in range(len(texts) * repeats)],
            "query": [f"{queries[row % repeats]} {row % repeats}" for row in range(len(texts) * repeats)],
            "docno": [f"d{row // repeats}" for row in range(len(texts) * repeats)],
            "text": [texts[row // repeats] for row in range(len(texts) * repeats)],
        }
    )
    reranker = BertCatReRanker(checkpoint, device=run.device, verbose=False)
    small = frame.head(500)
    expected = reranker(small)
    took = []
    delays = (0.05, 0.3, 0.6) if run.on_cpu else (0.05, 1.0) if run.quick else (0.05, 1.0, 3.0)
    for delay in delays:
        sent: list[float] = []

        def interrupt(sent: list[float] = sent) -> None:
            sent.append(time.perf_counter())
            os.kill(os.getpid(), signal.SIGINT)

        timer = threading.Timer(delay, interrupt)
        timer.start()
        try:
            reranker(frame)
        except KeyboardInterrupt:
            took.append(time.perf_counter() - sent[0])
        else:
            timer.cancel()
            run.check(False, f"{len(frame):,} pairs were scored before the interrupt after {delay} s")
            break
        after = reranker(small)
        run.check(after["docno"].equals(expected["docno"]), "another ranking after the interrupt")
        limit = 1e-2 * max(1.0, float(np.abs(expected["score"]).max()))
        run.check(apart(after["score"], expected["score"]) <= limit, "other scores after the interrupt")
    run.say(
        f"KeyboardInterrupt {', '.join(f'{seconds:.2f}' for seconds in took)} s after SIGINT, sent "
        f"{', '.join(map(str, delays))} s into a run of {len(frame):,} pairs; the re-ranker then ranks as before: "
        f"{'yes' if not run.wrong and len(took) == len(delays) else '**NO**'}"
    )


FIT_STEPS, FIT_SAVED_EVERY = 50, 10


def _fit(device: str, size: str, output: Path, *, precision: str = "float32", pairs: int = 400) -> dict[str, Any]:
    """Trains a new model of a size in a folder, and returns its weights."""
    from pyterrier_bertcat.scoring.options import ScoringOptions
    from pyterrier_bertcat.training import TrainingOptions
    from pyterrier_bertcat.training.fitting import fit

    queries, texts = some_pairs(pairs, 40)
    frame = pd.DataFrame(
        {"qid": [str(row // 8) for row in range(pairs)], "query": [queries[row - row % 8] for row in range(pairs)]}
    )
    frame["docno"], frame["text"] = [str(row) for row in range(pairs)], texts
    frame["score"] = -np.arange(pairs, dtype=float)
    frame["rank"] = np.arange(pairs) % 8
    relevant = np.arange(pairs) % 8 == (np.arange(pairs) // 8) % 8
    frame.loc[relevant, "text"] = frame["query"] + " " + frame["text"]
    qrels = frame.loc[relevant, ["qid", "docno"]].assign(label=1)
    options = TrainingOptions(
        steps=FIT_STEPS,
        save_every=FIT_SAVED_EVERY,
        queries_per_step=4,
        negatives=3,
        learning_rate=1e-4,
        warmup_steps=5,
        precision=precision,
        output=output,
    )
    warnings.simplefilter("ignore")
    start = checkpoint_of(sized_model(size))
    trained = fit(start, options, frame, qrels, scoring=ScoringOptions(device=device), verbose=False)
    return dict(trained.model.state_dict())


def _killed_fit(device: str, size: str, output: str) -> None:
    """Trains as `_fit`, and kills this process once a state is saved."""

    def kill() -> None:
        saved = Path(output) / "states" / f"checkpoint-{2 * FIT_SAVED_EVERY}" / "trainer_state.json"
        while not saved.exists():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    with _deterministic():
        _fit(device, size, Path(output))


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """Lets torch choose operators that give the same bits in each run, where there are any."""
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def section_fit(run: Run) -> None:
    """Training that is killed and resumed, and mixed precision."""
    if not importlib.util.find_spec("accelerate"):
        run.say("Not measured: accelerate is not installed.")
        return
    size = "mini" if run.quick else "MiniLM-L6"
    with tempfile.TemporaryDirectory() as name, _deterministic():
        folder = Path(name)
        arguments = f"{run.device!r}, {size!r}, {str(folder / 'killed')!r}"
        call = f"from benchmarks import on_gpu; on_gpu._killed_fit({arguments})"
        killed = subprocess.Popen([sys.executable, "-c", call], stderr=subprocess.PIPE, text=True)
        whole = _fit(run.device, size, folder / "whole")
        _, errors = killed.communicate()
        states = sorted(path.name for path in (folder / "killed" / "states").glob("checkpoint-*"))
        was_killed = killed.returncode == -signal.SIGKILL
        run.check(was_killed, f"the run to kill ended with {killed.returncode}")
        if not was_killed:
            run.say(f"```\n{errors[-1500:]}\n```")
        resumed = _fit(run.device, size, folder / "killed")
        difference, repeat = _weights_apart(whole, resumed), 0.0
        if difference:
            repeat = _weights_apart(whole, _fit(run.device, size, folder / "again"))
        moved = _weights_apart(whole, dict(checkpoint_of(sized_model(size)).model.state_dict()))
        right = run.check(
            difference <= 3 * repeat and moved > 0, f"the resumed run's weights are {difference:.1e} apart"
        )
        run.say(
            f"{size}'s size, {FIT_STEPS} steps in float32, killed by SIGKILL with {', '.join(states)} saved, resumed: "
            f"largest difference of a weight {difference:.1e} (two uninterrupted runs: {repeat:.1e}; training moved "
            f"weights by up to {moved:.1e}); right: {right}"
        )
        for precision in run.halves:
            weights = _fit(run.device, size, folder / precision, precision=precision)
            finite = all(bool(tensor.isfinite().all()) for tensor in weights.values())
            off = _weights_apart(whole, weights)
            right = run.check(finite and 0 < off <= 2 * moved, f"training in {precision}: {off:.1e} apart")
            run.say(f"In {precision}: {off:.1e} from float32's weights; right: {right}")


def _weights_apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float((tensor.float().cpu() - other[name].float().cpu()).abs().max()) for name, tensor in one.items())


def section_devices(run: Run) -> None:
    """Processes for several devices."""
    import torch

    count = 0 if run.on_cpu else torch.cuda.device_count()
    if run.on_cpu:
        choices: dict[str, Any] = {"two CPUs": ["cpu", "cpu"]}
    elif count > 1:
        choices = {f"all {count} GPUs": "all"}
    else:
        run.say("Not measured: two GPUs, because there is one.\n")
        choices = {} if run.quick else {"a GPU and a CPU": ["cuda:0", "cpu"]}
    checkpoint = checkpoint_of(sized_model("mini"))
    queries, texts = some_pairs(300 if run.on_cpu else 20_000, 76)
    exact = scorer_of(run, checkpoint, "float32").score(queries, texts)
    for name, devices in choices.items():
        scorer = scorer_of(run, checkpoint, "float32", devices=devices)
        difference = apart(scorer.score(queries, texts), exact)
        right = run.check(difference <= float32_tolerance(exact), f"{name}: {difference:.1e} apart")
        run.say(f"{name} ({scorer.stats.device}): {difference:.1e} from one device's scores; right: {right}")
        del scorer
    if count > 1:
        checkpoint = checkpoint_of(sized_model("DistilBERT"))
        queries, texts = some_pairs(50_000 if run.quick else 200_000, 76)
        scorers = {"one": scorer_of(run, checkpoint), "all": scorer_of(run, checkpoint, devices="all")}
        runs = timed({way: partial(scorer.score, queries, texts) for way, scorer in scorers.items()})
        alternating(runs, 1)
        seconds = alternating(runs, 3)
        ratio = median_ratio(seconds["one"], seconds["all"])
        run.say(f"DistilBERT's size, {len(texts):,} pairs: {count} GPUs are {ratio:.2f} times as fast as one.")


def section_speed(run: Run) -> None:
    """Pairs per second, strings in and scores out."""
    rounds = 1 if run.quick else 3
    if run.on_cpu:
        cells = [(size, tokens) for size in ("mini", "DistilBERT") for tokens in (64, 512)]
    elif run.quick:
        cells = [("mini", 64), ("DistilBERT", GOAL_TOKENS)]
    else:
        cells = [(size, tokens) for size in SIZES for tokens in (64, 256, 512)] + [("DistilBERT", GOAL_TOKENS)]
    rival = importlib.util.find_spec("sentence_transformers") is not None
    if not rival:
        run.say("Not measured: sentence-transformers, which is not installed.\n")
    dtype = "float32" if run.on_cpu else "float16"
    run.say(f"Pairs per second, end to end, random weights, {dtype}; the ways alternate, median of {rounds}.\n")
    goal = ""
    run.say("| size | tokens | pairs | this package | sentence-transformers | its batch | ratio | largest difference |")
    run.say("|---|---|---|---|---|---|---|---|")
    for size, tokens in cells:
        most_tokens = 2_000 if run.on_cpu else 4_000_000 if tokens == GOAL_TOKENS else 2_000_000
        queries, texts = some_pairs(max(8, most_tokens // tokens), tokens)
        some = slice(0, max(8, len(texts) // 4))
        plain = sized_model(size)
        ours = scorer_of(run, checkpoint_of(plain), dtype)
        ours.score(queries[some], texts[some])
        runs: dict[str, Callable[[], Any]] = {"ours": partial(ours.score, queries, texts)}
        batch, difference = 0, 0.0
        if rival:
            with tempfile.TemporaryDirectory() as name:
                predict = _sentence_transformers(run, plain, Path(name), dtype)
            batch = _fastest_batch(predict, queries[some], texts[some], [32] if run.on_cpu else [32, 128, 512])
            runs["theirs"] = partial(predict, queries, texts, batch)
            difference = apart(predict(queries[some], texts[some], batch), ours.score(queries[some], texts[some]))
            run.check(
                difference <= (1e-3 if run.on_cpu else 0.1), f"{size} at {tokens}: {difference:.1e} from its rival"
            )
        seconds = alternating(timed(runs), rounds)
        rates = {way: len(texts) / statistics.median(times) for way, times in seconds.items()}
        theirs = (
            f"{rates['theirs']:,.0f} | {batch} | {median_ratio(seconds['theirs'], seconds['ours']):.2f}"
            if rival
            else "| |"
        )
        run.say(f"| {size} | {tokens} | {len(texts):,} | {rates['ours']:,.0f} | {theirs} | {difference:.1e} |")
        if tokens == GOAL_TOKENS:
            reached = rates["ours"] >= GOAL_PAIRS_PER_SECOND
            reached &= not rival or median_ratio(seconds["theirs"], seconds["ours"]) >= GOAL_RATIO
            goal = (
                f"\nGoal for DistilBERT's size at {tokens} tokens: {GOAL_PAIRS_PER_SECOND:,} pairs/s, and {GOAL_RATIO} "
                f"times sentence-transformers. Reached: {'yes' if reached else 'no'}"
            )
    run.say(goal)


def _sentence_transformers(
    run: Run, plain: transformers.PreTrainedModel, folder: Path, dtype: str
) -> Callable[[list[str], list[str], int], np.ndarray]:
    """``CrossEncoder.predict`` with the same weights."""
    import torch
    from sentence_transformers import CrossEncoder

    plain.save_pretrained(folder)
    names = ["input_ids", "attention_mask"]
    if plain.config.model_type != "distilbert":
        names.insert(1, "token_type_ids")
    kept = tokenizer().model_input_names
    tokenizer().model_input_names = names
    tokenizer().save_pretrained(folder)
    tokenizer().model_input_names = kept
    model = CrossEncoder(
        str(folder), device=run.device, model_kwargs={"dtype": dtype}, activation_fn=torch.nn.Identity()
    )

    def predict(queries: list[str], texts: list[str], batch_size: int) -> np.ndarray:
        pairs = list(zip(queries, texts, strict=True))
        scores = model.predict(pairs, batch_size=batch_size, show_progress_bar=False)
        return np.asarray(scores, dtype=np.float32).reshape(-1)

    return predict


def _fastest_batch(
    predict: Callable[[list[str], list[str], int], np.ndarray], queries: list[str], texts: list[str], sizes: list[int]
) -> int:
    predict(queries[:64], texts[:64], 32)
    times = timed({str(size): partial(predict, queries, texts, size) for size in sizes})
    return int(min(times, key=lambda size: times[size]()))


def section_waiting(run: Run) -> None:
    """One profile, the statistics of a run, and other batch sizes."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    size = "mini" if run.on_cpu else "DistilBERT"
    checkpoint = checkpoint_of(sized_model(size))
    queries, texts = some_pairs(300 if run.on_cpu else 16_384 if run.quick else 40_000, GOAL_TOKENS)
    scorer = scorer_of(run, checkpoint)
    scorer.score(queries[: len(queries) // 4], texts[: len(queries) // 4])
    scorer.score(queries, texts)
    stats = scorer.stats
    run.say(
        f"{size}'s size, {len(texts):,} pairs of {stats.tokens / len(texts):.0f} tokens in {stats.dtype}, "
        f"{stats.batch_tokens:,} tokens a batch: {stats.seconds:.2f} s, {stats.pairs_per_second:,.0f} pairs/s; "
        f"tokenising {stats.tokenising_seconds:.2f} s (most of it beside the GPU), "
        f"waiting in the backend {stats.scoring_seconds:.2f} s.\n"
    )
    activity = ProfilerActivity.CPU if run.on_cpu else ProfilerActivity.CUDA
    with profile(activities=[activity]) as profiled:
        scorer.score(queries, texts)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kinds = {"cpu_op"} if run.on_cpu else {"kernel", "gpu_memcpy", "gpu_memset"}
    if not any(event.get("cat") in kinds for event in events):
        run.say("Not measured: the share of time that the GPU waits, because the profiler saw no kernel.")
        return
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") in kinds]
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    busy = _covered(spans)
    run.say(
        f"With the profiler, from the first to the last operation {wall / 1e6:.2f} s: nothing ran there for "
        f"**{1 - busy / wall:.0%}** of the time" + (" (operators of the CPU, for rehearsal)." if run.on_cpu else ".")
    )
    totals: dict[str, float] = {}
    for event in events:
        if event.get("cat") in kinds:
            totals[event["name"]] = totals.get(event["name"], 0.0) + event["dur"]
    run.say("\n| where the time goes | share |\n|---|---|")
    for name, total in sorted(totals.items(), key=lambda item: -item[1])[:8]:
        run.say(f"| `{name[:90].replace('|', '/')}` | {total / sum(totals.values()):.0%} |")
    padded = scorer_of(run, checkpoint)
    padded._backend._packs = False
    runs = timed({way: partial(one.score, queries, texts) for way, one in (("packed", scorer), ("padded", padded))})
    alternating(runs, 1)
    seconds = alternating(runs, 1 if run.quick else 3)
    run.say(f"\nPadding takes {median_ratio(seconds['padded'], seconds['packed']):.2f} times as long as packing.")
    sizes = [1024, 2048] if run.on_cpu else [16_384, 32_768, 65_536, 131_072]
    found = []
    for tokens in sizes:
        other = scorer_of(run, checkpoint, batch_size=4096, batch_tokens=tokens)
        other.score(queries[:2000], texts[:2000])
        other.score(queries, texts)
        found.append(f"{tokens:,}: {other.stats.pairs_per_second:,.0f}")
    run.say(f"\nPairs/s by tokens a batch: {'; '.join(found)}")
    if not run.on_cpu:
        run.say(f"\nMemory at most: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")


def _covered(spans: list[tuple[float, float]]) -> float:
    """How long at least one of these spans of time lasted."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Running the sections
# ---------------------------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[Run], None]] = {name: globals()[f"section_{name}"] for group in GROUPS for name in group}


def main() -> None:
    """Runs the sections in processes of their own, and ends with 1 if one of them found a wrong number."""
    parser = argument_parser(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="smaller, and each time taken once")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        run_sections(arguments)
        return
    began = time.perf_counter()
    print(f"### `python -m benchmarks.on_gpu --device {arguments.device}{' --quick' * arguments.quick}`\n", flush=True)
    with tempfile.TemporaryDirectory() as name:
        groups = [[section for section in group if section in arguments.sections] for group in GROUPS]
        wrong: list[str] = []
        beside = threading.Thread(target=lambda: wrong.extend(supervised(groups[1], arguments, Path(name) / "1")))
        beside.start()
        wrong.extend(supervised(groups[0], arguments, Path(name) / "0"))
        beside.join()
        wrong.extend(supervised(groups[2], arguments, Path(name) / "2"))
    print(f"\n**{len(wrong)} wrong**, {time.perf_counter() - began:.0f} s in all", flush=True)
    for message in wrong:
        print(f"- {message}", flush=True)
    sys.exit(1 if wrong else 0)


def supervised(sections: list[str], arguments: argparse.Namespace, record: Path) -> list[str]:
    """Runs sections in one process, and in another one those that it did not get to. Returns what is wrong."""
    wrong: list[str] = []
    left = list(sections)
    while left:
        record.write_text("")
        command = [sys.executable, "-m", "benchmarks.on_gpu", "--record", str(record), "--device", arguments.device]
        command += ["--quick"] * arguments.quick + ["--sections", *left]
        settings = {"HF_HUB_OFFLINE": "1"}
        if "fit" in sections:
            settings["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # else its products may differ from run to run
        if arguments.device == "cpu":
            settings["OMP_NUM_THREADS"] = "1"  # for two processes side by side
        ended = subprocess.run(command, env=os.environ | settings, check=False)
        entries = [json.loads(line) for line in record.read_text().splitlines()]
        done = {entry["section"] for entry in entries if "wrong" in entry}
        wrong += [f"{entry['section']}: {message}" for entry in entries for message in entry.get("wrong", ())]
        for section in [entry["section"] for entry in entries if "wrong" not in entry and entry["section"] not in done]:
            message = f"{section}: its process ended with {ended.returncode}"
            print(f"\n#### {section}\n\n**{message}**", flush=True)
            wrong.append(message)
            done.add(section)
        if not done:  # it did not even begin
            return [*wrong, f"{', '.join(left)}: the process ended with {ended.returncode} before it began"]
        left = [section for section in left if section not in done]
    return wrong


def run_sections(arguments: argparse.Namespace) -> None:
    """Runs sections one after the other in this process, and records when each begins and how it ends."""
    import torch
    import transformers

    from pyterrier_bertcat.scoring.devices import choose_device

    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    device = str(choose_device(arguments.device))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def record(**entry: Any) -> None:
        with arguments.record.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    for name in arguments.sections:
        record(section=name)
        faulthandler.dump_traceback_later(SECTION_LIMIT_S[device == "cpu"], exit=True)
        run, began = Run(device=device, quick=arguments.quick), time.perf_counter()
        try:
            SECTIONS[name](run)
        except (Exception, KeyboardInterrupt) as error:
            run.wrong.append(f"{type(error).__name__}: {str(error)[:300]}")
            run.say(f"\n```\n{''.join(traceback.format_exception(error))[-3000:]}\n```")
        faulthandler.cancel_dump_traceback_later()
        seconds = time.perf_counter() - began
        body = "\n".join(run.lines)
        print(f"\n#### {name} ({seconds:.1f} s)\n\n{body}", flush=True)
        record(section=name, wrong=run.wrong, seconds=seconds)
        if device != "cpu" and run.wrong:
            torch.cuda.synchronize()  # raises if an error has broken this process's CUDA: another one does the rest
        if device != "cpu":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
