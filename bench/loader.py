"""Windows per second: what the loader delivers, shuffled, and what the STGCN trainer consumes.

    python bench/loader.py --dataset PEMS08 --data-dir DIR

Both on the CPU, on the same windows in batches of the published size; a trainer's step is all that training does with a
batch. The loader is measured on the data in memory and, by ``--folder``, on a converted folder mapped into memory.
"""

import argparse
import itertools
import statistics
import time
from pathlib import Path

import machine
import torch
from epochs import WARM_UP, seconds, trainer_of

from stlora_kernels.data import Windows
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.experiment import load_data


def loader_rate(part: Windows, batch_size: int, batches: int) -> float:
    """Windows per second, the median over single batches."""
    stream = part.batches(batch_size, shuffle=True, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(min(batches, part.num_batches(batch_size) - 1)):
        start = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - start)
    return batch_size / statistics.median(times[WARM_UP:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="PEMS08")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--folder", help="the same data set, converted")
    parser.add_argument("--batches", type=int, default=80, help="measured batches of the loader (default: 80)")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of the trainer (default: 8)")
    options = parser.parse_args()
    config = TrainConfig(dataset=options.dataset, data_dir=options.data_dir, backbone="stgcn")
    trainer = trainer_of(config)
    size, part = trainer.recipe.batch_size, trainer.data.train
    batches = itertools.islice(part.batches(size, shuffle=True, generator=trainer.order), WARM_UP + options.steps)
    step = statistics.median([seconds(trainer, batch, i) for i, batch in enumerate(batches, 1)][WARM_UP:])
    consumed = size / step
    print(f"{machine.cpu()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {machine.commit()}")
    print(f"{trainer.data.data.name}, {trainer.data.num_nodes} sensors, batches of {size}")
    print(f"STGCN trainer: {1000 * step:.0f} ms per batch, {consumed:.0f} windows/s")
    sources = {"in memory": part}
    if options.folder:
        sources["mapped"] = load_data(TrainConfig(dataset=options.folder)).train
    for name, windows in sources.items():
        rate = loader_rate(windows, size, options.batches)
        print(f"loader, {name}: {rate:.0f} windows/s, {rate / consumed:.0f} times as many")


if __name__ == "__main__":
    main()
