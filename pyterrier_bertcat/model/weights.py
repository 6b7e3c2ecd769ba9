"""Reads weight files safely, and fills a model with them so that none is missing and none is left over."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pyterrier_bertcat.errors import CheckpointError

SAFETENSORS_FILE = "model.safetensors"
PICKLE_FILE = "pytorch_model.bin"

_SHOWN = 5  # names in a message
_Module = TypeVar("_Module", bound=torch.nn.Module)


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Reads a checkpoint's weights from ``model.safetensors`` or else ``pytorch_model.bin``, and never runs their code.

    Returns:
        Weights by the file's names; floating-point ones as float32, on the CPU, mapped from the file where possible.

    Raises:
        CheckpointError: Neither file exists, or it is damaged or holds anything but tensors by name.
    """
    path = next((folder / name for name in (SAFETENSORS_FILE, PICKLE_FILE) if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{folder}: expected the weights in {SAFETENSORS_FILE} or {PICKLE_FILE}, found neither; "
            "copy the file there, or give another folder"
        )
    weights = _read_safetensors(path) if path.name == SAFETENSORS_FILE else _read_pickle(path)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(load_file(path, device="cpu"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(_damaged(path, "a safetensors file", error)) from error


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    try:
        # Files from before torch 1.6 are not zip archives and can't be mapped.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: expected tensors by name, got a damaged file or one with other Python objects. It was not read "
            f"any further, because unpickling those could run code. Download it again, or ask its author for a "
            f"{SAFETENSORS_FILE}. ({_first_line(error)})"
        ) from error
    except Exception as error:  # a damaged file is a damaged program: it can stumble in any way
        raise CheckpointError(_damaged(path, "a PyTorch weights file", error)) from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    ):
        raise CheckpointError(f"{path}: expected tensors by name (a state dict), got {type(weights).__name__}")
    unusable = [
        name for name, tensor in weights.items() if tensor.layout != torch.strided or tensor.device.type != "cpu"
    ]
    # A file can stretch one number over any shape, which takes the memory of all its copies once it is converted.
    size = sum(tensor.nbytes for name, tensor in weights.items() if name not in unusable)
    if unusable or size > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{path}: expected plain tensors, got "
            + (f"others {_listed(unusable)}" if unusable else f"{size:,} bytes of them in a much smaller file")
            + "; ask its author for a file with ordinary tensors"
        )
    return weights


def build_and_fill(build: Callable[[], _Module], weights: Mapping[str, torch.Tensor], *, source: str) -> _Module:
    """Builds a model and fills it with weights, which must be exactly the ones that it has.

    The model is first built without memory, so no time goes into random weights that would be thrown away.

    Args:
        build: Builds the model.
        weights: Tensors by the model's names, on the CPU. They are not copied.
        source: Where they come from, for messages.

    Returns:
        The model, in evaluation mode.

    Raises:
        CheckpointError: A weight is missing, unexpected or of another shape, and the message names it; or the model
            can't be built.
    """
    try:
        with torch.device("meta"):
            model = build()
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from error
    except Exception as error:  # every model class checks its configuration in its own way
        raise CheckpointError(
            f"{source}: config.json describes a model that can't be built: {_first_line(error)}"
        ) from error
    # Files from before transformers 4.31 hold this constant as if it were a weight.
    weights = {name: tensor for name, tensor in weights.items() if not name.endswith("embeddings.position_ids")}
    _check_fit(model.state_dict(), weights, source)
    if not _restore_constants(model):  # takes memory, by sizes that the file has shown to be true
        model = build()
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def _restore_constants(model: torch.nn.Module) -> bool:
    """Fills in the buffers that no file holds. Returns False if the value of one is unknown here."""
    saved = model.state_dict().keys()
    for path, module in model.named_modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if f"{path}.{name}".lstrip(".") in saved:
                continue
            if name == "position_ids":
                value = torch.arange(buffer.shape[-1], dtype=buffer.dtype).expand(buffer.shape)
            elif name == "token_type_ids":
                value = torch.zeros(buffer.shape, dtype=buffer.dtype)
            else:
                return False
            module.register_buffer(name, value, persistent=False)
    return True


def _check_fit(expected: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor], source: str) -> None:
    both = [name for name in expected if name in got]
    faults = {
        "missing": [name for name in expected if name not in got],
        "unexpected": [name for name in got if name not in expected],
        "of another shape": [
            f"{name} (expected {tuple(expected[name].shape)}, got {tuple(got[name].shape)})"
            for name in both
            if expected[name].shape != got[name].shape
        ],
        "not floating-point": [
            name for name in both if expected[name].is_floating_point() and not got[name].is_floating_point()
        ],
    }
    if any(faults.values()):
        listed = "; ".join(f"{fault} {_listed(names)}" for fault, names in faults.items() if names)
        raise CheckpointError(
            f"{source}: the weights do not fit the model that config.json describes: {listed}. "
            "Check that both files belong to the same checkpoint."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"({len(names)}): {', '.join(names[:_SHOWN])}{more}"


def _damaged(path: Path, kind: str, error: Exception) -> str:
    size = path.stat().st_size if path.is_file() else 0
    return (
        f"{path}: expected {kind}, but its {size:,} bytes can't be read as one; it may be truncated. "
        f"Download or copy it again. ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
