"""Coverage-guided fuzzing of what reads run files, topics, texts and judgments.

    pip install atheris
    python -m benchmarks.endurance.fuzz_files runs|topics|texts|qrels [-max_total_time=120] [any option of libFuzzer]

Any bytes are read, or refused by an InputError that names the file; anything else stops the fuzzer, which then shows
the bytes. It starts from one good file of each form.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pyterrier_bertcat"]):
    from pyterrier_bertcat.data.qrels import read_qrels
    from pyterrier_bertcat.data.runs import read_run
    from pyterrier_bertcat.data.texts import read_texts
    from pyterrier_bertcat.data.topics import read_topics
    from pyterrier_bertcat.errors import InputError

READERS = {
    "runs": read_run,
    "topics": read_topics,
    "texts": lambda path: read_texts(path, ["d1", "d2"], verbose=False),
    "qrels": read_qrels,
}
GOOD = {
    "runs": [b"1 Q0 d1 1 2.5 bm25\n1 Q0 d2 2 -1e-3 bm25\n"],
    "topics": [
        b"1\twhat is bm25\n",
        b"<top>\n<num> Number: 301\n<title> copy a folder\n<desc> Description:\nAll of it.\n</top>\n",
        b"<?xml version='1.0'?><topics><topic number='1'><query>a &amp; b</query><!-- --></topic></topics>",
    ],
    "texts": [b'{"docno": "d1", "text": "a fox"}\n{"_id": "d2", "title": "b", "contents": "c"}\n', b"d1\ta fox\n"],
    "qrels": [b"1 0 d1 1\n1 0 d2 0\n"],
}


def main() -> None:
    """Fuzzes until libFuzzer's limit."""
    kind, *options = sys.argv[1:]
    scratch = Path(tempfile.mkdtemp())
    corpus, file = scratch / "corpus", scratch / "file"
    corpus.mkdir()
    for number, content in enumerate(GOOD[kind]):
        (corpus / str(number)).write_bytes(content)

    def read(content: bytes) -> None:
        file.write_bytes(content)
        try:
            READERS[kind](file)
        except InputError as error:
            if str(file) not in str(error):
                raise

    atheris.Setup([sys.argv[0], "-max_len=400", f"-artifact_prefix={os.getcwd()}/", *options, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
