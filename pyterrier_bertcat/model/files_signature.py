"""Whether a checkpoint's files are the same as before, found without reading its weights or importing torch."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from importlib.metadata import version
from pathlib import Path

_SMALL_BYTES = 4 * 1024 * 1024  # configuration and tokenizer: read in a few milliseconds
_SETTLED_S = 3.0  # file systems count time in steps of up to two seconds
_READERS = ("pyterrier-bertcat", "transformers", "tokenizers")  # what they make of the same files may change


def files_signature(folder: Path) -> str | None:
    """Names the present state of a checkpoint's folder: a fingerprint found for it once holds while this is the same.

    It covers each file's name, size, inode and times of change, the content of all small files, the folder's path and
    the releases of the packages that read them. It has to be taken *before* the checkpoint is loaded, and be the same
    afterwards: only then it goes with that checkpoint's fingerprint.

    Args:
        folder: With the files themselves, or with links to them, as in the hub's cache.

    Returns:
        SHA-256 in hex; or None while a file was changed within the last three seconds, when a further change might
        leave no trace, or where a file can't be read.
    """
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), *map(version, _READERS)]).encode())
    latest = time.time_ns() - int(_SETTLED_S * 1e9)
    try:
        for path in sorted(folder.iterdir()):
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            if max(status.st_mtime_ns, status.st_ctime_ns) > latest:
                return None
            facts = (path.name, status.st_size, status.st_ino, status.st_dev, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(json.dumps(facts).encode())
            if status.st_size <= _SMALL_BYTES:
                digest.update(path.read_bytes())
    except OSError:
        return None
    return digest.hexdigest()
