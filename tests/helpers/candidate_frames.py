"""Candidates for the tests of the re-ranker, as a first stage gives them, and their scores by hand."""

from __future__ import annotations

import pandas as pd
import torch

from pyterrier_bertcat.model.checkpoint import Checkpoint

TEXTS = {
    "d1": "copy a folder with everything in it",
    "d2": "remove a file from the disk",
    "d3": "how sockets wait for a connection, and how long they do so before they give up",
    "d4": "",
    "d5": "große Straßen und 東京 🔥",
}


def results(**changes) -> pd.DataFrame:
    """Two queries, five rows, as a first stage gives them."""
    table = pd.DataFrame(
        {
            "qid": ["q2", "q2", "q1", "q1", "q1"],
            "query": ["copy a directory", "copy a directory", "wait", "wait", "wait"],
            "docno": ["d1", "d2", "d3", "d4", "d5"],
            "text": [TEXTS[docno] for docno in ("d1", "d2", "d3", "d4", "d5")],
            "score": [9.0, 8.0, 7.0, 6.0, 5.0],
            "rank": [0, 1, 0, 1, 2],
        }
    )
    return table.assign(**changes)


def scores_by_hand(checkpoint: Checkpoint, frame: pd.DataFrame) -> list[float]:
    """The published recipe, a pair at a time: the encoder, its first token, the linear layer."""
    model, scores = checkpoint.model, []
    for query, text in zip(frame["query"], frame["text"], strict=True):
        pair = checkpoint.tokenizer(query, text, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            hidden = model.bert_model(input_ids=pair["input_ids"], attention_mask=pair["attention_mask"])[0]
            scores.append(float(model._classification_layer(hidden[:, 0])))
    return scores
