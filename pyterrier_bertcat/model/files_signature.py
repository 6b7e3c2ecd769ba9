"""Tells whether a checkpoint's files have changed, without reading its weights or importing torch."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from importlib.metadata import version
from pathlib import Path

_SMALL_BYTES = 4 * 1024 * 1024  # configuration and tokenizer: read in a few milliseconds
_SETTLED_S = 3.0  # file systems count time in steps of up to two seconds
_READERS = ("pyterrier-bertcat", "transformers", "tokenizers")  # a new release may read the same files differently
_FINGERPRINT_RULES = 2  # raise it when `fingerprint` computes something else, so that no old one is remembered


def files_signature(folder: Path) -> str | None:
    """Digest the present state of a checkpoint's folder. While it stays the same, so does the fingerprint.

    It covers each file's name, size, inode and times of change, the content of all small files, the folder's path and
    the releases of the packages that read them. Take it *before* you load the checkpoint and again afterwards: only if
    both are equal does it belong to that checkpoint's fingerprint.

    Args:
        folder: Holds the files or links to them, as the hub's cache does.

    Returns:
        SHA-256 in hex. None if a file can't be read, or was changed within the last three seconds, because another
        change right after it might leave no trace.
    """
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), _FINGERPRINT_RULES, *map(version, _READERS)]).encode())
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
