"""What the tests of the Triton kernels share: where they run, and the rule every case must keep.

On a GPU where there is one, marked ``gpu``; else in Triton's interpreter, which is slow, and wrong for bf16.
"""

import pytest
import torch
from nall_cases import Case, error
from nsp_cases import Stack

from stlora_kernels.ops import dispatch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.float16] + [torch.bfloat16] * torch.cuda.is_available()

marks = [
    pytest.mark.skipif(
        dispatch.why_unavailable("triton", DEVICE) is not None, reason="neither a GPU nor TRITON_INTERPRET=1"
    ),
    *[pytest.mark.gpu] * (DEVICE == "cuda"),
    pytest.mark.usefixtures("within_bounds"),
]


def on_device(tensors: dict) -> dict:
    return {name: None if t is None else t.to(DEVICE) for name, t in tensors.items()}


def check_nall(case: Case, dtype: torch.dtype) -> None:
    truth, tensors = case.reference64(dtype), case.tensors(dtype)
    torchs, ours = case.run("reference", tensors), case.run("triton", on_device(tensors))
    assert ours.keys() == truth.keys()
    for name, expected in truth.items():
        assert ours[name].dtype == dtype
        assert ours[name].shape == expected.shape
        if name != "y" and case.activation and dtype != torch.float32:
            continue  # rounding may turn the sign of a small y, and with it a gradient
        once = 0 if dtype == torch.float32 else torch.finfo(dtype).eps  # z and U are rounded once, as tensor cores ask
        assert error(ours[name].cpu(), expected) <= 2 * error(torchs[name], expected) + 1e-5 + once, name


def check_nsp(case: Stack, dtype: torch.dtype) -> None:
    truth, tensors = case.reference64(dtype), case.tensors(dtype)
    torchs, ours = case.run("reference", tensors), case.run("triton", on_device(tensors))
    assert ours.keys() == truth.keys()
    once = 0 if dtype == torch.float32 else torch.finfo(dtype).eps  # z and U are rounded once, as tensor cores ask
    for name, expected in truth.items():
        assert ours[name].dtype == dtype
        assert ours[name].shape == expected.shape
        assert error(ours[name].cpu(), expected) <= 2 * error(torchs[name], expected) + 1e-5 + once, name
