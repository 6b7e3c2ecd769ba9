"""Which device and which precision to compute with, and how to tell that its memory is full."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Sequence

import torch

from pyterrier_bertcat.errors import BertCatError, InputError

NO_HALF = "PYTERRIER_BERTCAT_NO_HALF"
"""Set to anything but an empty string, this environment variable makes every CPU one without half precision.

It is for tests: together with the variables that hold torch and OpenVINO to older instructions, a new CPU stands in for
an old one, in worker processes too.
"""
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HALF_PRECISION = (torch.float16, torch.bfloat16)
_OUT_OF_MEMORY: type[Exception] = getattr(torch, "OutOfMemoryError", torch.cuda.OutOfMemoryError)  # named so from 2.5
# What torch puts into a plain RuntimeError where it has no class for it: CPU, oneDNN, MPS, cuBLAS.
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
    """The device to compute on.

    Args:
        device: A name such as ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. None: the first that is usable of cuda, mps, xpu
            and cpu.

    Returns:
        The device, with its index where it has one (``cuda`` becomes ``cuda:0``, or whichever is current).

    Raises:
        InputError: There is no device of that name here.
    """
    if device is None:
        usable = (name for name in ("cuda", "mps", "xpu") if _is_usable(name))
        return _with_index(torch.device(next(usable, "cpu")))
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device={device!r} is not a device's name: use 'cpu', 'cuda', 'cuda:1', 'mps'...") from error
    if not _is_usable(chosen.type) or (chosen.index or 0) >= _count(chosen.type):
        found = ", ".join(f"{name} ({_count(name)})" for name in ("cuda", "mps", "xpu", "cpu") if _is_usable(name))
        raise InputError(f"device={device!r} is not usable here; found {found}: choose one, or device=None")
    return _with_index(chosen)


def choose_devices(devices: str | Sequence[str | torch.device]) -> list[torch.device]:
    """The devices to compute on side by side.

    Args:
        devices: Names as for `choose_device`, at least one; only ``"cpu"`` may be named several times. Or ``"all"``:
            all devices of the kind that ``choose_device()`` takes, so every GPU, and without any the CPU once.

    Returns:
        The devices, in the order given.

    Raises:
        InputError: There is no device of that name here, one that is no CPU is named twice, or none is named.
    """
    if isinstance(devices, str):
        if devices != "all":
            raise InputError(f"devices={devices!r}: expected 'all' or a list such as ['cuda:0', 'cuda:1']")
        first = choose_device()
        indices = range(_count(first.type)) if first.index is not None else [None]
        return [first if index is None else torch.device(first.type, index) for index in indices]
    chosen = [choose_device(device) for device in devices]
    twice = sorted({str(device) for device in chosen if device.type != "cpu" and chosen.count(device) > 1})
    if twice or not chosen:
        what = f"names {', '.join(twice)} more than once" if twice else "names none"
        raise InputError(f"devices={list(devices)!r} {what}: name at least one device, and each but 'cpu' once")
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The precision of the encoder on a device; warns where the hardware can't do it fast, and a CPU stays in float32.

    Args:
        dtype: ``"float32"``, ``"float16"``, ``"bfloat16"`` or the torch dtype; ``"auto"`` is float16 on cuda
            where that is fast, and float32 elsewhere.
        device: Where the encoder will be.

    Returns:
        The torch dtype.

    Raises:
        InputError: Anything else.
    """
    if isinstance(dtype, str) and dtype == "auto":
        return torch.float16 if device.type == "cuda" and is_fast(torch.float16, device) else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise InputError(f"dtype={dtype!r} is not one of 'auto', {', '.join(map(repr, _DTYPES))}")
    if chosen in _HALF_PRECISION and not is_fast(chosen, device):
        name = str(chosen).removeprefix("torch.")
        stays = "staying in float32" if device.type == "cpu" else "dtype='auto' is faster"
        warnings.warn(
            f"{name} is slow on this {device.type}, which has no instructions for it: {stays}",
            RuntimeWarning,
            stacklevel=2,
        )
        return torch.float32 if device.type == "cpu" else chosen
    return chosen


def default_batch_tokens(device: torch.device, dtype: torch.dtype) -> int:
    """Tokens per batch where the caller names none: few for a CPU's cache, many for a GPU."""
    if device.type == "cpu":
        # Half precision takes half of the cache, and matrix instructions (AMX) are slow on few rows.
        return 1536 if dtype == torch.float32 else 2048
    return 32_768


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the device, or the machine, has no memory left."""
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
    return torch.cuda.device_count() if kind == "cuda" else torch.xpu.device_count() if kind == "xpu" else 1


def _with_index(device: torch.device) -> torch.device:
    if device.index is None and device.type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    if device.index is None and device.type == "xpu":
        return torch.device("xpu", torch.xpu.current_device())
    return device


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the hardware has instructions for a half precision; True where that can't be told."""
    if device.type == "cuda":
        # Tensor cores: float16 from Volta (7.0), bfloat16 from Ampere (8.0) on. AMD reports its own, higher numbers.
        return torch.cuda.get_device_capability(device) >= ((8, 0) if dtype == torch.bfloat16 else (7, 0))
    if device.type == "cpu" and os.environ.get(NO_HALF):
        return False
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    names = (
        ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        if dtype == torch.bfloat16
        else ("_is_amx_fp16_supported",)
    )
    checks = [getattr(torch.cpu, name) for name in names if hasattr(torch.cpu, name)]
    return any(check() for check in checks) if checks else dtype == torch.bfloat16


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory that this process has had so far: tensors on a CUDA device, else all memory.

    Returns:
        MB (of a million bytes), or None where the system does not tell.
    """
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux kibibytes
