"""Memory of this process, as Linux counts it: now, and at its peak during a call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def with_peak_memory(run: Callable[[], Result]) -> tuple[Result, float]:
    """A call's result, and the memory at its peak above that before it, in MB; nan where Linux can't tell."""
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is in use now
        before = _kilobytes(status, "VmRSS")
    except OSError:
        return run(), float("nan")
    result = run()
    return result, (_kilobytes(status, "VmHWM") - before) / 1e3


def resident_mb() -> float:
    """The memory that this process has now, in MB."""
    return _kilobytes(Path("/proc/self/status"), "VmRSS") / 1e3


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
