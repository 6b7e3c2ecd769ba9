"""Checkpoints from somebody who means harm: refused, before they take memory and without following a path.

Each trap is loaded in a process of its own, whose memory is measured.
"""

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import threading
import zipfile

import pytest
import torch
from helpers.waiting import HANGS_S
from safetensors.torch import load_file

from pyterrier_bertcat.model.checkpoint import load_checkpoint

ROOM_MB = 700
LOADER = """
import json, os, sys, warnings
from pyterrier_bertcat.model.checkpoint import load_checkpoint
from pyterrier_bertcat.errors import CheckpointError

warnings.simplefilter("ignore")

def peak_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3

load_checkpoint(sys.argv[1])
for folder in map(str.rstrip, sys.stdin):
    if os.fork() == 0:
        before, said = peak_mb(), "loaded"
        try:
            load_checkpoint(folder)
        except CheckpointError as error:
            said = f"refused: {error}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        print(json.dumps([said, peak_mb() - before]), flush=True)
        os._exit(0)
    os.wait()
    print(json.dumps(["it died", 0]), flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured by /proc")


@pytest.fixture(scope="module")
def loader(saved_folder):
    """A process that loads each folder that it is told of in a fork of itself."""
    command = [sys.executable, "-c", LOADER, str(saved_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.fixture
def load(loader, folder):
    """Loads the folder: what became of it, and how many MB that took."""

    def load():
        guard = threading.Timer(HANGS_S, loader.kill)
        guard.start()
        print(folder, file=loader.stdin, flush=True)
        said, memory = json.loads(loader.stdout.readline())
        if said != "it died":
            assert json.loads(loader.stdout.readline())[0] == "it died"  # its process has ended
        guard.cancel()
        return said, memory

    return load


def config_with(**changes):
    def change(folder):
        facts = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**facts, **changes}))

    return change


def encoder_with(**changes):
    def change(folder):
        facts = json.loads((folder / "config.json").read_text())
        facts["encoder"].update(changes)
        (folder / "config.json").write_text(json.dumps(facts))

    return change


def config_holding(text):
    def change(folder):
        inside = (folder / "config.json").read_text().rstrip().removesuffix("}")
        (folder / "config.json").write_text(f'{inside}, "more": {text}}}')

    return change


def safetensors_with(header, data=b"", length=None):
    def change(folder):
        text = json.dumps(header).encode()
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", length or len(text)) + text + data)

    return change


def pickle_with(tensors, **options):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(tensors(weights), folder / "pytorch_model.bin", **options)

    return change


def deflated(folder):
    pickle_with(lambda _: {"weight": torch.zeros(2 * 10**8)})(folder)  # 800 MB of zeros
    archive = folder / "pytorch_model.bin"
    archive.rename(folder / "whole")
    with zipfile.ZipFile(folder / "whole") as whole, zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as small:
        for name in whole.namelist():
            with whole.open(name) as content, small.open(name, "w", force_zip64=True) as target:
                shutil.copyfileobj(content, target)
    (folder / "whole").unlink()


def claims_more_than_it_holds(folder):
    """The number of a storage's elements stands in the pickle; here it says ten thousand million."""
    pickle_with(lambda _: {"weight": torch.zeros(10, 10)}, _use_new_zipfile_serialization=False)(folder)
    path = folder / "pytorch_model.bin"
    content, claim = path.read_bytes(), pickle.dumps(10**10, protocol=2)[2:-1]
    assert content.count(b"Kd") > 0  # BININT1 100
    path.write_bytes(content.replace(b"Kd", claim))


def linked(name, target):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return change


def pipe(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def endless_vocabulary(folder):
    (folder / "tokenizer.json").unlink()
    linked("vocab.txt", "/dev/zero")(folder)


def one_id_far_away(folder):
    facts = json.loads((folder / "tokenizer.json").read_text())
    facts["model"]["vocab"]["hello"] = 10**7
    (folder / "tokenizer.json").write_text(json.dumps(facts))


REFUSED = {
    "vectors too wide": encoder_with(dim=10**9, n_heads=1),
    "vectors wider than the file's": encoder_with(dim=10**5, n_heads=1),
    "endless layers": encoder_with(n_layers=10**9),
    "many layers": encoder_with(n_layers=10**6),
    "endless vocabulary size": encoder_with(vocab_size=10**12),
    "many positions": encoder_with(max_position_embeddings=10**6),
    "endless positions": encoder_with(max_position_embeddings=10**10),
    "computed positions": encoder_with(sinusoidal_pos_embds=True, max_position_embeddings=10**6),
    "endless labels": config_with(num_labels=10**9),
    "endless labels inside": encoder_with(num_labels=10**9),
    "negative width": encoder_with(dim=-1),
    "no activation": encoder_with(activation="os.system"),
    "a path as encoder": config_with(encoder=None, bert_model="../../etc"),
    "deep config": config_holding("[" * 200_000 + "]" * 200_000),
    "large config": config_holding(f'"{"a" * 50_000_000}"'),
    "long number": config_holding("9" * 5000),
    "a pipe as config": pipe,
    "a giant tensor": safetensors_with(
        {"w": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    ),
    "a giant header": safetensors_with({}, length=2**62),
    "overlapping tensors": safetensors_with(
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, b"\0" * 8
    ),
    "endless and empty": safetensors_with({"w": {"dtype": "F32", "shape": [0, 10**18], "data_offsets": [0, 0]}}),
    "a stretched number": pickle_with(lambda _: {"w": torch.zeros(1).expand(10**5, 10**5)}),
    "a stretched half number": pickle_with(lambda _: {"w": torch.zeros(1, dtype=torch.float16).expand(10**5, 10**5)}),
    "sparse": pickle_with(lambda _: {"w": torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6))}),
    "complex": pickle_with(lambda weights: {name: tensor + 0j for name, tensor in weights.items()}),
    "without values": pickle_with(lambda weights: {name: tensor.to("meta") for name, tensor in weights.items()}),
    "deflated": deflated,
    "claims more than it holds": claims_more_than_it_holds,
    "endless vocabulary": endless_vocabulary,
    "weights that are another file": linked("model.safetensors", "/etc/passwd"),
    "a config that is another file": linked("config.json", "/etc/passwd"),
    "weights that never end": linked("model.safetensors", "/dev/zero"),
    "an id far away": one_id_far_away,
}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("trap", REFUSED)
def test_a_trap_is_refused_without_taking_memory(trap, folder, load):
    REFUSED[trap](folder)
    said, memory = load()
    assert said.startswith("refused: "), said
    assert str(folder) in said
    assert memory < ROOM_MB
    assert "root:" not in said  # no line of a file that was linked to


def test_an_honest_one_loads_by_the_same_way(load):
    said, memory = load()
    assert said == "loaded"
    assert memory < ROOM_MB


@pytest.mark.parametrize(
    "names",
    [
        {"tokenizer_class": "../../x"},
        {"tokenizer_class": ["a"]},
        {"vocab_file": "/etc/passwd", "tokenizer_file": "/etc/passwd", "added_tokens_file": "/etc/passwd"},
        {"name_or_path": "../../etc", "fast_tokenizer_files": ["../../../etc/passwd"]},
        {"chat_template": "{{ ''.__class__ }}", "model_max_length": 1},
    ],
)
def test_paths_in_a_tokenizer_config_are_not_followed(names, folder, tokenizer):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **names}))
    loaded = load_checkpoint(folder).tokenizer
    assert loaded.get_vocab() == tokenizer.get_vocab()
