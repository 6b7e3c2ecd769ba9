"""A long job that is killed with -9 again and again: does it end as if nothing had happened, and what does that cost?

    OMP_NUM_THREADS=1 python -m benchmarks.endurance.killed_job --data DATA [--queries 1020] [--depth 100]
        [--kills 5] [--seed 0]

DATA is the folder that holds ``squad_dev``. BM25's best are written as a TREC run, and ``pyterrier-bertcat rerank``
re-ranks them twice: once without a stop; and once killed when it has scored a random number of pairs, and each time
started anew by the same command. The model is tiny, with random weights: what is tested is the job, not the model.

Prints what each start had done when it was killed. Pairs are counted where they go into the model, by a file that each
start appends to before it scores a batch. Ends with exit code 1 if the two runs differ in a byte.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyterrier_bertcat.cli
from benchmarks.common import Collection, argument_parser, tiny_checkpoint
from pyterrier_bertcat.data.runs import RunWriter
from pyterrier_bertcat.model.checkpoint import save_checkpoint
from pyterrier_bertcat.scoring.backends.torch import TorchBackend

MODULE = "benchmarks.endurance.killed_job"
COUNTED = "--counted"  # the option with which it starts itself, as a job


def main() -> None:
    """Prints the table, and ends with exit code 1 if the runs differ."""
    parser = argument_parser(__doc__, data=True)
    parser.add_argument("--queries", type=int, default=1020)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pairs = write_job(folder, arguments.data / "squad_dev", arguments.queries, arguments.depth)
        print(f"{pairs:,} pairs in the job\n")
        print("| start | ended | seconds | pairs scored |\n|---|---|---|---|", flush=True)
        began = time.monotonic()
        if start_job(folder, "whole.run").wait():
            sys.exit("the job failed")
        seconds, scored = time.monotonic() - began, counted(folder, "whole.run")
        print(f"| uninterrupted | complete | {seconds:.0f} | {scored:,} |", flush=True)
        killed_job(folder, pairs, kills=arguments.kills, seed=arguments.seed)
        scored = counted(folder, "killed.run")
        same = (folder / "whole.run").read_bytes() == (folder / "killed.run").read_bytes()
        print(f"\nscored in all: {scored:,} pairs for {pairs:,} in the job ({scored / pairs - 1:+.2%})")
        left = {path.name for path in folder.glob("*killed.run*")} - {"killed.run", "killed.run.count"}
        print(f"left beside the run: {', '.join(sorted(left)) or 'nothing'}")
        if not same:
            sys.exit(f"the runs differ: {differences(folder)}")
        print("the runs are identical, byte by byte")


def write_job(folder: Path, data: Path, queries: int, depth: int) -> int:
    """Writes the checkpoint, the run, the topics and the texts; returns how many rows the run has."""
    save_checkpoint(tiny_checkpoint(), folder / "model")
    collection = Collection.read(data).sample(queries)
    topics, results = collection.topics, collection.candidates(depth)
    with RunWriter(folder / "bm25.run") as run:
        run.write(results)
    lines = [f"{qid}\t{' '.join(query.split())}\n" for qid, query in zip(topics["qid"], topics["query"], strict=True)]
    (folder / "topics.tsv").write_text("".join(lines))
    (folder / "texts.jsonl").write_text("".join(json.dumps(document) + "\n" for document in collection.documents))
    return len(results)


def start_job(folder: Path, output: str) -> subprocess.Popen[bytes]:
    """Starts ``pyterrier-bertcat rerank`` with its pairs counted."""
    files = {"--run": "bm25.run", "--topics": "topics.tsv", "--texts": "texts.jsonl", "--output": output}
    files["--model"] = "model"
    named = [part for option, name in files.items() for part in (option, str(folder / name))]
    count = str(folder / f"{output}.count")
    return subprocess.Popen(
        [sys.executable, "-m", MODULE, COUNTED, count, "rerank", *named, "--quiet", "--device", "cpu"]
    )


def killed_job(folder: Path, pairs: int, *, kills: int, seed: int) -> None:
    """Starts the job and kills it at random numbers of scored pairs, again and again; then lets it finish."""
    draw = random.Random(seed)
    moments = sorted(draw.randrange(pairs) for _ in range(kills))
    before = 0
    for start, moment in enumerate([*moments, None], start=1):
        job, began = start_job(folder, "killed.run"), time.monotonic()
        while job.poll() is None:
            if moment is not None and counted(folder, "killed.run") > max(moment, before):
                job.kill()
            time.sleep(0.01)
        ended = f"killed with -{-job.returncode}" if job.returncode < 0 else "complete"
        scored = counted(folder, "killed.run")
        print(f"| {start} | {ended} | {time.monotonic() - began:.0f} | {scored - before:,} |", flush=True)
        before = scored
        if job.returncode != (0 if moment is None else -signal.SIGKILL):
            sys.exit("the job failed")


def counted(folder: Path, output: str) -> int:
    """How many pairs have gone into the model for a run."""
    path = folder / f"{output}.count"
    return sum(map(int, path.read_text().split())) if path.exists() else 0


def differences(folder: Path) -> str:
    """How many lines differ, and the first of them in both."""
    pairs = zip(*((folder / name).read_text().splitlines() for name in ("whole.run", "killed.run")), strict=True)
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    return "\n".join([f"{len(wrong):,} lines", *wrong[0]])


def run_counted(count: str, command: list[str]) -> None:
    """Runs the command line; every batch adds a line to a file before it is scored."""
    start, file = TorchBackend.start, os.open(count, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counting_start(self: TorchBackend, batch):  # noqa: ANN001, ANN202
        os.write(file, f"{len(batch)}\n".encode())
        return start(self, batch)

    TorchBackend.start = counting_start  # type: ignore[method-assign]
    sys.exit(pyterrier_bertcat.cli.main(command))


if __name__ == "__main__":
    if sys.argv[1:2] == [COUNTED]:
        run_counted(sys.argv[2], sys.argv[3:])
    else:
        main()
