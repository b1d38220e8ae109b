"""The table of tiles, and the tuner around it."""

import pytest
import torch
from gpu_cases import DEVICE, on_device
from nall_cases import Case

from stlora_kernels.ops import backends

configs = pytest.importorskip("stlora_kernels.ops.triton_configs")
pytestmark = [
    pytest.mark.skipif(
        backends.BACKENDS["triton"].why_unavailable(DEVICE) is not None, reason="neither a GPU nor TRITON_INTERPRET=1"
    ),
    *[pytest.mark.gpu] * (DEVICE == "cuda"),
]


def test_small_problems_get_small_tiles_and_every_block_is_a_power_of_two():
    large = configs.from_table("nall forward", torch.float16, 4096, 256, 256, 16)
    small = configs.from_table("nall forward", torch.float16, 12, 20, 8, 3)
    assert (large["BM"], large["BO"], large["BI"], large["R"]) == (64, 64, 64, 16)
    assert (small["BM"], small["BO"], small["BI"], small["R"]) == (16, 16, 32, 16)
    for kernel, size in configs._TABLE:
        dtype = {2: torch.bfloat16, 4: torch.float32}[size]
        for rank in (1, 17, 128):
            config = configs.from_table(kernel, dtype, 33, 65, 129, rank)
            blocks = [value for name, value in config.items() if name in ("BM", "BO", "BI", "BD", "ROWS", "R")]
            assert all(block >= 16 and block & (block - 1) == 0 for block in blocks)
            assert config["R"] >= rank


def test_options_are_the_devices():
    config = configs.from_table("nall backward", torch.float16, 64, 64, 64, 16)
    from stlora_kernels.ops.triton_launch import Gpu

    devices = [("cuda", 32), ("hip", 64), ("hip", 32)]  # NVIDIA's, AMD's CDNA and RDNA
    nvidia, cdna, rdna = (configs.options(config, Gpu(100, backend, warp, True)) for backend, warp in devices)
    assert [device["num_warps"] for device in (nvidia, cdna, rdna)] == [8, 4, 8]
    assert ["maxnreg" in device for device in (nvidia, cdna, rdna)] == [True, False, False]


@pytest.fixture
def tuning(monkeypatch):
    """The tuner, with a clock that likes tiles of 32 rows."""
    monkeypatch.setenv("STLORA_TRITON_AUTOTUNE", "1")
    monkeypatch.setattr(configs, "_best", {})
    timed = []

    def milliseconds(call, x):
        call()
        timed.append(call.args[0])
        return 1.0 if timed[-1]["BM"] == 32 else 2.0

    monkeypatch.setattr(configs, "_milliseconds", milliseconds)
    return timed


def test_the_tuner_takes_the_fastest_once_and_changes_no_result(tuning, monkeypatch):
    case = Case(65, 2, 20, 24, 3, dropout_p=0.2)
    tensors = on_device(case.tensors(torch.float32))
    tuned = case.run("triton", tensors)
    tried = len(tuning)
    assert [config["BM"] for config in configs._best.values()] == [32, 32], "forward and backward"
    assert tried == len({tuple(sorted(config.items())) for config in tuning[: tried // 2]}) * 2, "each tried once"
    again = case.run("triton", tensors)
    assert len(tuning) == tried
    monkeypatch.delenv("STLORA_TRITON_AUTOTUNE")
    for name, value in case.run("triton", tensors).items():
        assert torch.equal(again[name], tuned[name])
        torch.testing.assert_close(tuned[name], value)


def test_without_the_variable_nothing_is_timed(tuning, monkeypatch):
    monkeypatch.delenv("STLORA_TRITON_AUTOTUNE")
    case = Case(20, 2, 20, 24, 3)
    case.run("triton", on_device(case.tensors(torch.float32)))
    assert tuning == []


@pytest.mark.skipif(DEVICE == "cuda", reason="of the interpreter")
def test_the_interpreter_cannot_be_timed_and_keeps_the_table():
    x = torch.ones(2)
    assert configs._milliseconds(lambda: None, x) == 0.0
