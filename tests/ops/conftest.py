"""Fixtures of the matrix every backend passes."""

import pytest
import torch
from gpu_cases import DEVICE, start

from stlora_kernels.ops import native

ISAS = [isa for isa in native.ISAS if native.why_unavailable("cpu") is None and native.kernels().isa_supported(isa)]


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set this machine has, forced in turn."""
    before = native.kernels().selected_isa()
    native.kernels().select_isa(request.param)
    yield request.param
    native.kernels().select_isa(before)


GPU_BACKENDS = ["triton", "cuda"] if DEVICE == "cuda" else ["triton", "cuda-0", "cuda-1"]  # and a seed, if emulated


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.gpu] * (DEVICE == "cuda")) for name in GPU_BACKENDS])
def backend(request):
    """Every backend for GPUs, by its name here; where CUDA is emulated, in two orders of threads."""
    name, _, seed = request.param.partition("-")
    if name == "triton" and DEVICE == "cpu":
        request.getfixturevalue("within_bounds")
    return start(name, int(seed or 0))


@pytest.fixture
def within_bounds():
    """Triton's kernels, interpreted, touch no memory but what they were given."""
    if DEVICE == "cuda":
        yield
        return
    import triton_interpreter

    with triton_interpreter.within_bounds():
        yield


@pytest.fixture
def poison(monkeypatch):
    """What nobody wrote yet is NaN, and not what the memory held before, which may be the right result."""
    for module, name in ((torch.Tensor, "new_empty"), (torch, "empty_like"), (torch, "empty")):
        original = getattr(module, name)

        def poisoned(*args, original=original, **kwargs):
            t = original(*args, **kwargs)
            return t.fill_(float("nan")) if t.is_floating_point() else t

        monkeypatch.setattr(module, name, poisoned)
