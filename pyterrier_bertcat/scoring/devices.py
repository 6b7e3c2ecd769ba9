"""Chooses the device and the precision to compute with, and recognises that a device's memory is full."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Sequence

import torch

from pyterrier_bertcat.errors import BertCatError, InputError

NO_HALF = "PYTERRIER_BERTCAT_NO_HALF"
"""If this environment variable is not empty, no CPU counts as fast at half precision.

Tests set it, with the variables that hold torch and OpenVINO to older instructions, to see what an old CPU would do.
Worker processes inherit it.
"""
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HALF_PRECISION = (torch.float16, torch.bfloat16)
_OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # named so from 2.5
# For the CPU, oneDNN, MPS and cuBLAS, torch raises a plain RuntimeError with one of these messages.
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "out_of_memory",
    "alloc_failed",
    "could not create a primitive",  # oneDNN, without memory for its code or scratchpad
)


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Chooses the device to compute on.

    Args:
        device: A name such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. None: the first usable of cuda, mps, xpu and cpu.

    Returns:
        The device, with an index if there can be several: ``"cuda"`` becomes ``cuda:0``, or whichever is current.

    Raises:
        InputError: This machine has no device of that name.
    """
    if device is None:
        usable = (name for name in ("cuda", "mps", "xpu") if _is_usable(name))
        return _with_index(torch.device(next(usable, "cpu")))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device is a name such as 'cpu', 'cuda', 'cuda:1' or 'mps', got {device!r}") from error
    if not _is_usable(chosen.type) or (chosen.index or 0) >= _count(chosen.type):
        found = ", ".join(f"{name} ({_count(name)})" for name in ("cuda", "mps", "xpu", "cpu") if _is_usable(name))
        raise InputError(f"device={device!r} is not usable here; found {found}: use one of these, or device=None")
    return _with_index(chosen)


def choose_devices(devices: str | Sequence[str | torch.device]) -> list[torch.device]:
    """Chooses several devices that compute side by side.

    Args:
        devices: ``"all"`` for every GPU, or the CPU once if there is no GPU. Or at least one name as for
            `choose_device`. Only ``"cpu"`` may be named several times.

    Returns:
        The devices, in the order given.

    Raises:
        InputError: This machine has no device of that name, a GPU is named twice, or the list is empty.
    """
    if devices == "all":
        first = choose_device()
        if first.index is None:
            return [first]
        return [torch.device(first.type, index) for index in range(_count(first.type))]
    if isinstance(devices, str) or not devices:
        raise InputError(f"devices is 'all' or a list such as ['cuda:0', 'cuda:1'], got {devices!r}")
    chosen = [choose_device(device) for device in devices]
    twice = sorted({str(device) for device in chosen if device.type != "cpu" and chosen.count(device) > 1})
    if twice:
        raise InputError(f"devices={list(devices)!r} names {', '.join(twice)} more than once: only 'cpu' may repeat")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Chooses the precision of the encoder on a device.

    It warns if the hardware is slow at the precision that you ask for. A CPU then stays in float32.

    Args:
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"`` or the torch dtype. ``"auto"``: float16 on cuda if that is
            fast, float32 elsewhere.
        device: Where the encoder will be.

    Raises:
        InputError: ``dtype`` is something else.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float16 if device.type == "cuda" and is_fast(torch.float16, device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise InputError(f"dtype is one of 'auto', {', '.join(map(repr, _DTYPES))}, got {dtype!r}")
    if chosen in _HALF_PRECISION and not is_fast(chosen, device):
        name = str(chosen).removeprefix("torch.")
        remedy = "staying in float32" if device.type == "cpu" else "dtype='auto' is faster"
        message = f"{name} is slow on this {device.type}, which has no instructions for it: {remedy}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return torch.float32 if device.type == "cpu" else chosen
    return chosen


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the hardware has instructions for a half precision. True if torch can't tell."""
    if device.type == "cuda":
        # Tensor cores: float16 from Volta (7.0), bfloat16 from Ampere (8.0) on. AMD reports its own, higher numbers.
        return torch.cuda.get_device_capability(device) >= ((8, 0) if dtype == torch.bfloat16 else (7, 0))
    if device.type == "cpu" and os.environ.get(NO_HALF):
        return False
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    names = ["_is_amx_fp16_supported"]
    if dtype == torch.bfloat16:
        names = ["_is_avx512_bf16_supported", "_is_amx_tile_supported"]
    checks = [getattr(torch.cpu, name) for name in names if hasattr(torch.cpu, name)]
    return any(check() for check in checks) if checks else dtype == torch.bfloat16


def default_batch_tokens(device: torch.device, dtype: torch.dtype) -> int:
    """The fastest number of tokens per batch: few on a CPU, whose cache is small, and many on a GPU."""
    if device.type == "cpu":
        # Half precision takes half of the cache, and matrix instructions (AMX) are slow on few rows.
        return 1536 if dtype == torch.float32 else 2048
    return 32_768


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device or the machine has no memory left."""
    if isinstance(error, (MemoryError, _OUT_OF_MEMORY)):
        return True
    if not isinstance(error, RuntimeError) or isinstance(error, BertCatError):  # ours may quote such words
        return False
    return any(words in str(error).lower() for words in _OUT_OF_MEMORY_WORDS)


def _is_usable(kind: str) -> bool:
    if kind == "mps":
        return torch.backends.mps.is_available()
    if kind == "xpu":
        return hasattr(torch, "xpu") and torch.xpu.is_available()
    return kind == "cpu" or (kind == "cuda" and torch.cuda.is_available())


def _count(kind: str) -> int:
    return int(getattr(torch, kind).device_count()) if kind in ("cuda", "xpu") else 1


def _with_index(device: torch.device) -> torch.device:
    if device.index is None and device.type in ("cuda", "xpu"):
        return torch.device(device.type, getattr(torch, device.type).current_device())
    return device


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory that this process has used so far, in MB (a million bytes); None if the system does not tell.

    On a CUDA device, it counts tensors there; elsewhere, all memory of the process.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux kibibytes
