"""``pyterrier-bertcat --version``: what a bug report should say about the machine, ready to paste.

Broken installations need a report most, so a part that is missing or fails becomes a line of the report, not an error.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

_NOT_INSTALLED = "not installed"
_WITHOUT_TORCH = "unknown without torch"
# Each with torch's names for it, on x86 and on ARM, and the check in versions of torch that list no capabilities.
_INSTRUCTION_SETS = (
    ("AVX2", ("avx2",), "_is_avx2_supported"),
    ("AVX-512", ("avx512_f",), "_is_avx512_supported"),
    ("VNNI", ("avx512_vnni", "avx_vnni"), "_is_vnni_supported"),
    ("bf16", ("avx512_bf16", "bf16"), "_is_avx512_bf16_supported"),
    ("AMX", ("amx_tile",), "_is_amx_tile_supported"),
)


class PrintReport(argparse.Action):
    """Prints the report and exits with 0."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Called by argparse for the option."""
        print(report())
        parser.exit()


def report() -> str:
    """Versions and hardware, as lines of a label and a value. Takes as long as importing torch."""
    torch, torch_version = _import_torch()
    values = {
        "pyterrier-bertcat": _version("pyterrier-bertcat"),
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "PyTerrier": _version("pyterrier", "python-terrier"),  # the second is its old name
        "torch": torch_version,
        "transformers": _version("transformers"),
        "pandas": _version("pandas"),
        "system": platform.platform(),
        "CPU": _or_reason(_cpu_name),
        "instruction sets": _or_reason(_instruction_sets, torch),
        "threads": _or_reason(_threads, torch),
        "GPUs": _or_reason(_gpus, torch),
        "Java": _or_reason(_java),
    }
    return "\n".join(f"{label:<18} {value}" for label, value in values.items())


def _or_reason(find: Callable[..., str], *arguments: ModuleType | None) -> str:
    try:
        return find(*arguments)
    except Exception as error:
        return f"unknown ({_one_line(error)})"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _version(*names: str) -> str:
    """The version of the first of these distributions that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            return version(name)
    return _NOT_INSTALLED


def _import_torch() -> tuple[ModuleType | None, str]:
    """The module, or None, and its version, with the reason if it can't be imported."""
    installed = _version("torch")
    if installed == _NOT_INSTALLED:
        return None, installed
    try:
        import torch
    except Exception as error:  # for example, a library that it needs is missing
        return None, f"{installed}, but importing it fails ({_one_line(error)})"
    return torch, torch.__version__  # which names the build: 2.13.0+cpu


def _cpu_name() -> str:
    try:
        if sys.platform == "linux":
            lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        if sys.platform == "darwin":
            return _output_of("sysctl", "-n", "machdep.cpu.brand_string").strip()
        if sys.platform == "win32":
            import winreg

            key = winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0")
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0]).strip()
    except (OSError, StopIteration, ImportError, subprocess.SubprocessError):
        pass  # for example, Linux on ARM names no model
    return platform.processor() or platform.machine()


def _instruction_sets(torch: ModuleType | None) -> str:
    """The instruction sets that decide which precision is fast."""
    if torch is None:
        return _WITHOUT_TORCH
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.5 has none yet
    found = [
        name
        for name, keys, check in _INSTRUCTION_SETS
        if any(capabilities.get(key) for key in keys) or getattr(torch.cpu, check, bool)()
    ]
    return ", ".join(found) or f"none of {', '.join(name for name, _, _ in _INSTRUCTION_SETS)}"


def _threads(torch: ModuleType | None) -> str:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    used = f"; torch uses {torch.get_num_threads()}" if torch else ""
    return f"{usable} of {os.cpu_count()}{used}"


def _gpus(torch: ModuleType | None) -> str:
    if torch is None:
        return _WITHOUT_TORCH
    cuda = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    found = [f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in cuda]
    if torch.backends.mps.is_available():
        found.append("Apple MPS")
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found += map(torch.xpu.get_device_name, range(torch.xpu.device_count()))
    return ", ".join(found) or "none"


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    program = (shutil.which("java", path=os.path.join(home, "bin")) if home else None) or shutil.which("java")
    if program is None:
        return "none"
    try:
        lines = _output_of(program, "-version").splitlines()
    except subprocess.CalledProcessError:  # macOS has a java that only says where to get one
        return "none"
    return next((line for line in lines if " version " in line), "unknown")  # it may list its options first


def _output_of(*command: str) -> str:
    """What a command prints, to stdout or stderr."""
    return subprocess.check_output(command, stderr=subprocess.STDOUT, timeout=10).decode(errors="replace")
