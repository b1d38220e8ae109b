"""Times on the GPU's own clock, each from a cold L2, and says which machine they are of."""

import functools
import importlib.metadata
import shutil
import statistics
import subprocess
from collections.abc import Callable

import torch
from torch import Tensor

import stlora_kernels

ROUNDS, WARMUP_ROUNDS = 50, 10
HEAD_START = 2_000_000  # clock cycles, about a millisecond: the host needs less to queue a graph


class Tick:
    """A moment on the GPU's clock. In the place of pytest-benchmark's timer: the difference of two is in seconds."""

    def __init__(self) -> None:
        self._event = torch.cuda.Event(enable_timing=True)
        self._event.record()

    def __sub__(self, start: "Tick") -> float:
        self._event.synchronize()
        return start._event.elapsed_time(self._event) / 1e3


@functools.cache
def _junk() -> Tensor:
    size = 4 * torch.cuda.get_device_properties("cuda").L2_cache_size
    return torch.empty(size, dtype=torch.uint8, device="cuda")


def cold() -> None:
    """Fill L2 with what no layer reads. To write it back costs every layer alike, as it does in a model."""
    _junk().zero_()


def idle_and_cold() -> None:
    """Before an eager call: the GPU has nothing to do, so that all the time the host takes to launch counts."""
    cold()
    torch.cuda.synchronize()


def captured(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()  # for both, since handles that libraries keep for a stream must be there before
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph


def replays(call: Callable[[], object]) -> list[float]:
    """Milliseconds of each replay of the call's CUDA graph, all of it queued in time: the GPU's part alone."""
    graph, samples = captured(call), []
    for _ in range(WARMUP_ROUNDS + ROUNDS):
        torch.cuda._sleep(HEAD_START)
        cold()
        start = Tick()
        graph.replay()
        samples.append(1e3 * (Tick() - start))
    return samples[WARMUP_ROUNDS:]


def machine() -> dict[str, object]:
    """Names and versions, the bandwidth of a large copy, and what the clock shows for next to nothing."""
    source, target = torch.randn(2, 1 << 27, device="cuda")  # 512 MiB each: far beyond any cache
    number = torch.ones((), device="cuda")
    copy_ms, floor_ms = (
        statistics.median(replays(call)) for call in (lambda: target.copy_(source), lambda: number.neg_())
    )
    return {
        "device": torch.cuda.get_device_name(),
        "driver": _driver(),
        "cuda": torch.version.cuda or f"hip {torch.version.hip}",
        "torch": torch.__version__,
        "triton": _triton(),
        "stlora_kernels": stlora_kernels.__version__,
        "copy_gb_per_s": round(2 * source.nbytes / copy_ms / 1e6),
        "floor_ms": float(f"{floor_ms:.2g}"),
    }


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True).stdout.partition("\n")[0]


def _triton() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return ""
