"""What the tests of the GPU kernels share: where they run, and the rule every case must keep.

On a GPU where there is one, marked ``gpu``; else Triton's kernels in its interpreter, which is slow, and wrong for
bf16, and the CUDA kernels on the emulator of ``tests/simt``.
"""

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

import emulator
import pytest
import torch
from nall_cases import Case, error
from nsp_cases import Stack

from stlora_kernels.ops import backends

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def start(name: str, seed: int) -> str:
    """Makes a backend ready for the tests' device; its name there, or pytest's skip."""
    if name == "cuda" and DEVICE == "cpu":
        emulator.emulate(seed)
        return emulator.NAME
    if reason := backends.BACKENDS[name].why_unavailable(DEVICE):
        pytest.skip(reason)
    return name


def on_device(tensors: dict) -> dict:
    return {name: None if t is None else t.to(DEVICE) for name, t in tensors.items()}


def _skip_what_is_wrong(backend: str, dtype: torch.dtype) -> None:
    if backend == "triton" and DEVICE == "cpu" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter is wrong for bf16")


def check_nall(case: Case, dtype: torch.dtype, backend: str) -> None:
    _skip_what_is_wrong(backend, dtype)
    truth, tensors = case.reference64(dtype), case.tensors(dtype)
    torchs, ours = case.run("reference", tensors), case.run(backend, on_device(tensors))
    sure = ours.keys()
    if case.activation and dtype != torch.float32:
        sure = {"y"}  # rounding may turn the sign of a small y, and with it a gradient
    _compare(ours, truth, torchs, dtype, sure)


def check_nsp(case: Stack, dtype: torch.dtype, backend: str) -> None:
    _skip_what_is_wrong(backend, dtype)
    # Of so many values rounding may turn the sign of one, and with it a gradient: without the kink, then.
    options = {"negative_slope": 1.0} if dtype != torch.float32 and case.M * case.D > 10000 else {}
    truth, tensors = case.reference64(dtype, **options), case.tensors(dtype)
    torchs, ours = case.run("reference", tensors, **options), case.run(backend, on_device(tensors), **options)
    _compare(ours, truth, torchs, dtype, ours.keys())


def _compare(ours: dict, truth: dict, torchs: dict, dtype: torch.dtype, sure) -> None:
    once = 0 if dtype == torch.float32 else torch.finfo(dtype).eps  # z and U are rounded once, as tensor cores ask
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        assert ours[name].dtype == dtype
        assert ours[name].shape == expected.shape
        if name in sure:
            assert error(ours[name].cpu(), expected) <= 2 * error(torchs[name], expected) + 1e-5 + once, name


class _Counting:
    def __init__(self, kernel, counted: list):
        self.kernel, self.counted = kernel, counted

    def __getitem__(self, grid):
        self.counted.append(grid)
        return self.kernel[grid]


@contextlib.contextmanager
def launches(backend: str) -> Iterator[list]:
    """A list with an item for every kernel launched in the block, once it is left."""
    counted: list = []
    if backend == "triton":
        from stlora_kernels.ops.nall import triton_kernels as nall
        from stlora_kernels.ops.nsp import triton_gradients, triton_kernels

        kernels = [(nall, "forward"), (nall, "backward"), (triton_kernels, "narrow"), (triton_kernels, "wide")]
        with contextlib.ExitStack() as patches:
            for module, name in [*kernels, (triton_gradients, "backward")]:
                counting = _Counting(getattr(module, name), counted)
                patches.enter_context(patch.object(module, name, counting))
            yield counted
    elif backend == emulator.NAME:
        emulator.load().launches()
        yield counted
        counted += emulator.load().launches()
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            yield counted
            torch.cuda.synchronize()
        counted += [event for event in profile.events() if "stlora" in event.name]
