"""One training in several processes, as ``torchrun`` starts them, over NCCL on GPUs and gloo on CPUs.

Each takes its share of every batch, and ``torch.nn.parallel.DistributedDataParallel`` sums the gradients. Every process
draws the same order of the same batches, so that the batch stays the one of the configuration however many there are.
Or, with ``--shard-nodes``, each takes whole batches and its share of the nodes' adapters (``nn/sharding.py``).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from stlora_kernels.errors import InputError
from stlora_kernels.nn.sharding import shard_nodes


@dataclass(frozen=True)
class Ranks:
    """This process among ``size`` of them, which share batches, or nodes."""

    rank: int = 0
    size: int = 1
    share: Literal["batches", "nodes"] = "batches"

    @property
    def part(self) -> tuple[int, int]:
        """Which part of every batch is this process's, and of how many."""
        return (self.rank, self.size) if self.share == "batches" else (0, 1)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the parts of a batch, in place; where there is one, nothing happens."""
        if self.part[1] > 1:
            dist.all_reduce(tensor)
        return tensor

    def agreed(self, said: bool) -> bool:
        """What the first process says, which goes by its own clock."""
        if self.size == 1:
            return said
        words = [said]
        dist.broadcast_object_list(words)
        return words[0]

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.size > 1:
            dist.barrier()

    def parallel(self, model: nn.Module) -> nn.Module:
        """The model with gradients that are means over the parts of a batch, or divided by nodes, or as it is."""
        if self.size == 1:
            return model
        if self.share == "nodes":
            return shard_nodes(model, init_device_mesh(next(model.parameters()).device.type, (self.size,)))
        return DistributedDataParallel(model, static_graph=True)  # so that parameters may be unused


ALONE = Ranks()


def under_torchrun() -> bool:
    """Whether ``torchrun`` started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


@contextmanager
def processes(device: str, share: Literal["batches", "nodes"]) -> Iterator[tuple[Ranks, str]]:
    """This process's place among those that ``torchrun`` started, and its device, until the block ends.

    Args:
        device: what was asked for; "auto" and "cuda" become the GPU of this process.
        share: what they share.

    Raises:
        InputError: if every process is told to use the same GPU, or one alone is to share nodes.
    """
    if not under_torchrun():
        if share == "nodes":
            raise InputError("--shard-nodes: got one process, expected several of: torchrun --nproc-per-node=2 -m ...")
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
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), share)
    if not ranks.is_main:  # every process would say the same
        logging.getLogger("stlora_kernels").setLevel(logging.ERROR)
    try:
        yield ranks, device
    finally:
        dist.destroy_process_group()
