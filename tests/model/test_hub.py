"""The hub: its cache in the real layout when offline, and the real client against a small server on this machine."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from helpers.tiny_models import tiny_model
from helpers.waiting import HANGS_S

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, push_checkpoint, save_checkpoint
from pyterrier_bertcat.model.hub import is_hub_name

NAME = "somebody/tiny-cat"
OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, offline."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.fixture
def checkpoints(tokenizer):
    return {commit: Checkpoint(model=tiny_model(seed=int(commit)), tokenizer=tokenizer) for commit in (OLD, NEW)}


@pytest.fixture
def filled_cache(cache, checkpoints, tmp_path):
    """Two commits of one repository, as the client stores them: blobs, links to them from snapshots, and refs."""
    repository = cache / "models--somebody--tiny-cat"
    (repository / "blobs").mkdir(parents=True)
    for commit, checkpoint in checkpoints.items():
        snapshot = repository / "snapshots" / commit
        snapshot.mkdir(parents=True)
        for path in save_checkpoint(checkpoint, tmp_path / commit).iterdir():
            blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(NEW)
    (repository / "refs" / "v1").write_text(OLD)
    return repository


def test_offline_the_cache_is_used(filled_cache, checkpoints):
    loaded = load_checkpoint(NAME)
    assert loaded.source == NAME
    assert loaded.fingerprint == checkpoints[NEW].fingerprint


@pytest.mark.parametrize(("revision", "commit"), [("main", NEW), ("v1", OLD), (OLD, OLD), (NEW, NEW)])
def test_a_revision_pins_the_commit(revision, commit, filled_cache, checkpoints):
    loaded = load_checkpoint(NAME, revision=revision)
    assert loaded.source == f"{NAME}@{revision}"
    assert loaded.fingerprint == checkpoints[commit].fingerprint


@pytest.mark.parametrize("revision", [None, "main"])
def test_not_in_the_cache_and_offline_says_what_to_do(revision, cache):
    with pytest.raises(CheckpointError, match=r"'somebody/absent'.*connect to the hub once.*model='mini'.*offline"):
        load_checkpoint("somebody/absent", revision=revision)


def test_a_revision_that_is_not_cached_is_named(filled_cache):
    with pytest.raises(CheckpointError, match="at revision 'v2'"):
        load_checkpoint(NAME, revision="v2")


def test_a_half_filled_cache_is_no_checkpoint(filled_cache):
    (filled_cache / "snapshots" / NEW / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="nor complete in the hub's cache"):
        load_checkpoint(NAME)


@pytest.mark.parametrize("revision", ["../../../etc/passwd", "/etc", "a\\b", "refs/../../.."])
def test_a_revision_that_is_a_path_is_refused(revision, filled_cache):
    with pytest.raises(CheckpointError, match="expected a branch, tag or commit"):
        load_checkpoint(NAME, revision=revision)


def test_names_of_repositories():
    assert all(map(is_hub_name, ["owner/model", "model", "sebastian-hofstaetter/distilbert-cat-margin_mse-T2-msmarco"]))
    assert not any(map(is_hub_name, ["../x", "a/../b", "~/x", "./x", "/x", "a\\b", "a/b/c", "", ".", "a b"]))


def test_pushing_offline_is_one_clear_error(cache, checkpoints):
    with pytest.raises(CheckpointError, match=r"can't upload to 'somebody/tiny-cat'.*connection.*logged in"):
        push_checkpoint(checkpoints[NEW], NAME)


def test_pushing_to_no_repository_is_refused(cache, checkpoints):
    with pytest.raises(CheckpointError, match="expected a hub repository"):
        push_checkpoint(checkpoints[NEW], "../somewhere")


class SmallHub(BaseHTTPRequestHandler):
    """As much of the hub as uploading and downloading one model take."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, *args):
        pass

    def answer(self, body, status=200, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.requests.append(f"POST {self.path}")
        if self.path == "/api/repos/create":
            self.answer({"url": f"http://{self.headers['Host']}/{NAME}", "id": NAME})
        elif self.path.startswith(f"/api/models/{NAME}/branch/"):
            self.answer({})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self.answer({"files": modes})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {"commitUrl": f"http://{self.headers['Host']}/{NAME}/commit/{NEW}", "commitOid": NEW, "success": True}
            )
        else:
            self.answer({"error": "unknown"}, 404)

    def do_GET(self):
        self.requests.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if match := re.fullmatch(rf"/{NAME}/resolve/[^/]+/(.+)", path):
            content = self.files.get(match[1])
            if content is None:
                self.answer({"error": "no such file"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=NEW)
            else:
                etag = hashlib.sha256(content).hexdigest()
                self.answer(content, ETag=f'"{etag}"', X_Repo_Commit=NEW)
        elif "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            self.answer(entries, Content_Type="application/json")
        elif path.startswith(f"/api/models/{NAME}"):
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": NAME, "sha": NEW, "siblings": siblings, "tags": [], "private": False})
        else:
            self.answer({"error": "unknown"}, 404)

    do_HEAD = do_GET  # noqa: N815


@pytest.fixture
def small_hub():
    SmallHub.files, SmallHub.requests = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), SmallHub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


CLIENT = """
import sys
from pyterrier_bertcat.model.checkpoint import load_checkpoint, push_checkpoint
name, folder, revision = sys.argv[1:]
options = {"revision": revision or None}
if folder:
    print(push_checkpoint(load_checkpoint(folder), name, token="a-token", commit_message="a message", **options))
print(load_checkpoint(name, **options).fingerprint)
"""


def run_client(endpoint, cache_folder, pushed_folder="", revision=""):
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache_folder),
        "HF_HUB_CACHE": str(cache_folder / "hub"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "no_proxy": "127.0.0.1",
    }
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, NAME, str(pushed_folder), revision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert done.returncode == 0, done.stderr
    assert "unexpected tokenization" not in done.stderr
    return done.stdout.split()


def test_what_is_pushed_to_a_hub_is_loaded_from_it_and_then_from_the_cache(
    small_hub, checkpoints, tmp_path, monkeypatch
):
    folder = save_checkpoint(checkpoints[NEW], tmp_path / "saved")
    address, fingerprint = run_client(small_hub, tmp_path / "home", folder)
    assert address.endswith(f"/commit/{NEW}")
    assert fingerprint == checkpoints[NEW].fingerprint
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= SmallHub.files.keys()
    assert "POST /api/repos/create" in SmallHub.requests

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_checkpoint(NAME).fingerprint == fingerprint


def test_pushing_to_a_branch_makes_it_first(small_hub, checkpoints, tmp_path):
    folder = save_checkpoint(checkpoints[NEW], tmp_path / "saved")
    _, fingerprint = run_client(small_hub, tmp_path / "home", folder, revision="v2")
    assert fingerprint == checkpoints[NEW].fingerprint
    posted = [request.partition("?")[0] for request in SmallHub.requests if request.startswith("POST")]
    made, committed = (posted.index(f"POST /api/models/{NAME}/{step}/v2") for step in ("branch", "commit"))
    assert made < committed


def test_only_what_is_needed_is_downloaded(small_hub, checkpoints, tmp_path):
    import torch

    folder = save_checkpoint(checkpoints[NEW], tmp_path / "saved")
    (folder / "model.safetensors").unlink()
    torch.save(checkpoints[NEW].model.state_dict(), folder / "pytorch_model.bin")
    SmallHub.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    SmallHub.files |= {"modeling.py": b"code", "onnx/model.onnx": b"onnx", "tf_model.h5": b"keras"}
    assert run_client(small_hub, tmp_path / "home") == [checkpoints[NEW].fingerprint]
    snapshot = tmp_path / "home" / "hub" / "models--somebody--tiny-cat" / "snapshots" / NEW
    kept = {path.name for path in snapshot.iterdir()}
    assert "pytorch_model.bin" in kept
    assert not kept & {"modeling.py", "onnx", "tf_model.h5"}
