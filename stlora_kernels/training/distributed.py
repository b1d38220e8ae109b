"""One training in several processes, as ``torchrun`` starts them: each takes its share of every batch.

``torch.nn.parallel.DistributedDataParallel`` sums the gradients, over NCCL on GPUs and gloo on CPUs. Every process
draws the same order of the same batches, so that the batch stays the one of the configuration however many there are.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stlora_kernels.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """This process among ``size`` of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place; alone nothing happens."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are means over all processes; alone the model itself."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, static_graph=True)  # so that parameters may be unused


ALONE = Ranks()


def under_torchrun() -> bool:
    """Whether ``torchrun`` started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


@contextmanager
def processes(device: str) -> Iterator[tuple[Ranks, str]]:
    """This process's place among those that ``torchrun`` started, and its device, until the block ends.

    Args:
        device: what was asked for; "auto" and "cuda" become the GPU of this process.

    Raises:
        InputError: if every process is told to use the same GPU.
    """
    if not under_torchrun():
        yield ALONE, device
        return
    local = int(os.environ["LOCAL_RANK"])
    if device.startswith("cuda:"):
        raise InputError(
            f"--device: got {device!r} under torchrun, expected auto, cuda or cpu: each process has its own"
        )
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size())
    if not ranks.is_main:  # every process would say the same
        logging.getLogger("stlora_kernels").setLevel(logging.ERROR)
    try:
        yield ranks, device
    finally:
        dist.destroy_process_group()
