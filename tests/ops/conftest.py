"""Fixtures of the matrix every backend passes."""

import pytest

from stlora_kernels.ops import native

ISAS = [isa for isa in native.ISAS if native.why_unavailable("cpu") is None and native.kernels().isa_supported(isa)]


@pytest.fixture(params=ISAS)
def isa(request):
    """Every instruction set this machine has, forced in turn."""
    before = native.kernels().selected_isa()
    native.kernels().select_isa(request.param)
    yield request.param
    native.kernels().select_isa(before)
