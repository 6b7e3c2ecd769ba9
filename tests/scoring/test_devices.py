from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from pyterrier_bertcat.errors import InputError
from pyterrier_bertcat.scoring.devices import (
    NO_HALF,
    choose_device,
    choose_dtype,
    default_batch_tokens,
    is_out_of_memory,
)

pytestmark = pytest.mark.precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine_with(monkeypatch):
    """Makes torch say that there are accelerators of some kinds, and only those."""

    def pretend(*kinds: str) -> None:
        for kind, module in (("cuda", torch.cuda), ("mps", torch.backends.mps), ("xpu", torch.xpu)):
            monkeypatch.setattr(module, "is_available", lambda kind=kind: kind in kinds)
        for module in (torch.cuda, torch.xpu):
            monkeypatch.setattr(module, "device_count", lambda: 2)
            monkeypatch.setattr(module, "current_device", lambda: 1)

    return pretend


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [((), "cpu"), (("xpu",), "xpu:1"), (("xpu", "mps"), "mps"), (("xpu", "mps", "cuda"), "cuda:1")],
)
def test_the_fastest_kind_of_device_is_chosen(machine_with, kinds, expected):
    machine_with(*kinds)
    assert choose_device() == torch.device(expected)


def test_a_device_by_name_gets_its_index(machine_with):
    machine_with("cuda")
    assert choose_device("cuda") == torch.device("cuda:1")
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_device(CPU) == CPU


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu", "meta"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(machine_with, name):
    machine_with()
    with pytest.raises(InputError, match=rf"device='{name}' is not usable here; found cpu \(1\)"):
        choose_device(name)


def test_an_index_that_is_too_high_is_refused(machine_with):
    machine_with("cuda")
    with pytest.raises(InputError, match=r"device='cuda:2' is not usable here; found cuda \(2\), cpu \(1\)"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:first", 1.5])
def test_what_is_no_device_is_refused(name):
    with pytest.raises(InputError, match="device is a name such as"):
        choose_device(name)


def test_auto_precision_is_half_on_a_gpu_that_is_fast_at_it_and_single_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    assert choose_dtype("auto", CUDA) == torch.float32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert choose_dtype("auto", CUDA) == torch.float16
    assert choose_dtype("auto", CPU) == choose_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize("dtype", ["float32", torch.float32])
def test_single_precision_can_be_asked_for_anywhere(dtype):
    assert choose_dtype(dtype, CPU) == choose_dtype(dtype, CUDA) == torch.float32


@pytest.mark.parametrize("dtype", ["half", "fp16", "int8", "", torch.float64, torch.int8, None, 16])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(InputError, match="dtype is one of 'auto', 'float32', 'float16', 'bfloat16', got"):
        choose_dtype(dtype, CPU)


@pytest.mark.parametrize(
    ("dtype", "instructions"), [("float16", "_is_amx_fp16_supported"), ("bfloat16", "_is_avx512_bf16_supported")]
)
def test_a_precision_without_instructions_on_the_cpu_warns_and_float32_stays(monkeypatch, dtype, instructions):
    monkeypatch.delenv(NO_HALF, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for name in ("_is_amx_fp16_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    with pytest.warns(RuntimeWarning, match=f"^{dtype} is slow on this cpu.*: staying in float32"):
        assert choose_dtype(dtype, CPU) == torch.float32
    monkeypatch.setattr(torch.cpu, instructions, lambda: True)
    assert choose_dtype(dtype, CPU) == getattr(torch, dtype)  # a warning would be an error here


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_variable_of_the_environment_takes_half_precision_from_every_cpu(monkeypatch, dtype):
    monkeypatch.setattr(platform, "machine", lambda: "a machine of unknown speed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setenv(NO_HALF, "1")
    with pytest.warns(RuntimeWarning, match=f"^{dtype} is slow on this cpu.*: staying in float32"):
        assert choose_dtype(dtype, CPU) == torch.float32
    assert choose_dtype(dtype, CUDA) == getattr(torch, dtype)
    monkeypatch.setenv(NO_HALF, "")
    assert choose_dtype(dtype, CPU) == getattr(torch, dtype)


@pytest.mark.parametrize(("dtype", "capability"), [("float16", (7, 0)), ("bfloat16", (8, 0))])
def test_a_precision_without_instructions_on_the_gpu_warns(monkeypatch, dtype, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    with pytest.warns(RuntimeWarning, match=f"^{dtype} is slow on this cuda"):
        assert choose_dtype(dtype, CUDA) == getattr(torch, dtype)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_dtype(dtype, CUDA) == getattr(torch, dtype)


def test_a_gpu_gets_larger_batches_than_a_cpu():
    half, single = torch.float16, torch.float32
    assert default_batch_tokens(CUDA, half) > default_batch_tokens(CPU, half) > default_batch_tokens(CPU, single) >= 512


def test_real_exhaustion_is_recognised():
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(2**60)
    assert is_out_of_memory(torch_error.value)
    with pytest.raises(MemoryError) as numpy_error:
        np.empty(2**50)
    assert is_out_of_memory(numpy_error.value)


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 17.88 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "std::bad_alloc",
        "[enforce fail at alloc_cpu.cpp:98] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.",
        "could not create a memory object: out_of_memory",
        "could not create a primitive",
    ],
)
def test_the_words_of_several_libraries_for_it_are_known(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


def test_other_errors_are_not_taken_for_it():
    with pytest.raises(RuntimeError) as error:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(error.value)


def test_errors_of_torch_itself_are_recognised():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA"))


def test_planning_and_pairs_need_no_torch():
    code = (
        "import sys, pyterrier_bertcat.pairs.planning, pyterrier_bertcat.pairs.pair_tokenizer;"
        "import pyterrier_bertcat.scoring.backends;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
