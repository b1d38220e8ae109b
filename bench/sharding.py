"""Memory of the nodes' adapters in one process, and divided by node among several.

    python -m torch.distributed.run --standalone --nproc-per-node=2 bench/sharding.py > bench/results/sharding.csv

Every process trains the same adapter of 8600 nodes for a few steps of Adam on random windows, and prints what it holds:
parameters of nodes, their bytes with gradients and both moments, and how far its memory rose above what it had before
the model (the highest resident set; the whole adapter is drawn before it is divided). Without ``torch.distributed.run``
one process holds all of them.
"""

import argparse
import csv
import datetime
import os
import resource
import statistics
import sys
import time

import machine
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from stlora_kernels import STLoRA
from stlora_kernels.nn.nall import local
from stlora_kernels.nn.sharding import shard_nodes

WINDOW = 12
MIB = 2**20


def peak() -> float:
    """The highest resident set so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=8600)
    parser.add_argument("--batch", type=int, default=2, help="windows per step (default: 2)")
    parser.add_argument("--steps", type=int, default=5, help="steps of the optimizer (default: 5)")
    options = parser.parse_args()
    several = "RANK" in os.environ
    if several:
        dist.init_process_group("gloo")
    before = peak()
    torch.manual_seed(0)
    backbone = nn.Linear(3, 1)
    model = STLoRA(backbone, options.nodes, in_features=3, out_features=1, window=WINDOW, horizon=WINDOW)
    adapter = model.num_adapter_parameters
    if several:
        shard_nodes(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    sharded = [p for p in model.parameters() if isinstance(p, DTensor)]
    others = [p for p in model.parameters() if not isinstance(p, DTensor)]
    optimizer = torch.optim.Adam([{"params": group} for group in (others, sharded) if group])
    times = []
    for _ in range(options.steps):
        x = torch.randn(options.batch, WINDOW, options.nodes, 3)
        start = time.perf_counter()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    held = sum(local(p).numel() for p in model.parameters())
    moments = [t for state in optimizer.state.values() for t in state.values()]
    kept = [t for p in model.parameters() for t in (p, p.grad) if t is not None] + moments
    row = {
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
        "cpu": machine.cpu(),
        "torch": torch.__version__,
        "nodes": options.nodes,
        "adapter parameters": adapter,
        "processes": dist.get_world_size() if several else 1,
        "rank": dist.get_rank() if several else 0,
        "parameters held": held,
        "MiB of parameters, gradients and moments": round(sum(local(t).nbytes for t in kept) / MIB),
        "MiB above the start, at most": round(peak() - before),
        "s per step": round(statistics.median(times[1:] or times), 2),
    }
    rows = [row]
    if several:
        gathered: list[dict[str, object]] = [{} for _ in range(dist.get_world_size())]
        dist.all_gather_object(gathered, row)
        rows = gathered
    if row["rank"] == 0:
        writer = csv.DictWriter(sys.stdout, row, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
