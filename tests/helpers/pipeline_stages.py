"""A small collection for the tests of pipelines, and the stages around the re-ranker."""

from __future__ import annotations

import bm25s
import numpy as np
import pandas as pd
import pyterrier as pt

DOCUMENTS = {
    "copytree": "copy a whole folder with all its files to another place",
    "copy": "copy one file and keep its permission bits",
    "remove": "remove a file from the disk",
    "rmtree": "delete a folder with everything in it",
    "rename": "give a file or a folder another name",
    "socket": "wait for a connection from the network",
    "timeout": "how long a connection may wait before it gives up",
    "sort": "put the items of a list in order, smallest first",
    "reverse": "turn a list round so that the last item comes first",
    "random": "draw random numbers, or shuffle a list of items",
    "json": "read and write objects as text that other languages understand",
    "zip": "pack files of a folder into one archive, or unpack them",
}
TOPICS = pd.DataFrame(
    [("1", "copy a folder"), ("2", "wait for a connection"), ("3", "order a list of items")], columns=["qid", "query"]
)


class Texts:
    """A collection that only knows its texts."""

    def text_loader(self, fields="*", *, verbose=False):
        return pt.apply.generic(
            lambda frame: frame.assign(text=[DOCUMENTS[docno] for docno in frame["docno"]]),
            transform_outputs=lambda columns: [*columns, "text"],
        )


text = pt.text.get_text(Texts(), "text")


class Bm25sRetriever(pt.Transformer):
    """bm25s as its users wrap it; its results have the index 0..7 again and again."""

    def __init__(self):
        self.index = bm25s.BM25()
        self.index.index(bm25s.tokenize(list(DOCUMENTS.values()), show_progress=False), show_progress=False)

    def transform(self, inp):
        pt.validate.query_frame(inp, extra_columns=["query"])
        frames = [pd.DataFrame({"qid": [], "query": [], "docno": [], "score": []})]
        for topic in inp.itertuples():
            tokens = bm25s.tokenize([topic.query], show_progress=False)
            found, scores = self.index.retrieve(tokens, corpus=np.array(list(DOCUMENTS)), k=8, show_progress=False)
            frames.append(pd.DataFrame({"qid": topic.qid, "query": topic.query, "docno": found[0], "score": scores[0]}))
        return pt.model.add_ranks(pd.concat(frames[1:] or frames))


def pairs(frame: pd.DataFrame) -> dict[tuple[str, str], float]:
    assert not frame.duplicated(["qid", "docno"]).any()
    return dict(zip(zip(frame["qid"], frame["docno"], strict=True), frame["score"].tolist(), strict=True))
