"""Fixtures of the matrix every backend passes."""

import pytest
from triton_cases import DEVICE

from stlora_kernels.ops import native

ISAS = [isa for isa in native.ISAS if native.why_unavailable("cpu") is None and native.kernels().isa_supported(isa)]


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set this machine has, forced in turn."""
    before = native.kernels().selected_isa()
    native.kernels().select_isa(request.param)
    yield request.param
    native.kernels().select_isa(before)


@pytest.fixture
def within_bounds():
    """Triton's kernels, interpreted, touch no memory but what they were given."""
    if DEVICE == "cuda":
        yield
        return
    import triton_interpreter

    with triton_interpreter.within_bounds():
        yield
