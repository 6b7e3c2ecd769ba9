"""Waiting for an event in another process or thread, however slow or busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

HANGS_S = 1200.0  # far more than anything takes that these tests wait for: what takes longer hangs


def wait_until(condition: Callable[[], T], what: str) -> T:
    """The first true value that the condition has; it is asked a hundred times a second."""
    end = time.monotonic() + HANGS_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"after {HANGS_S:g} s there is still no {what}")
        time.sleep(0.01)
    return value
