"""Windows per second: what the loader delivers, shuffled, and what the STGCN trainer consumes.

    python bench/loader.py --data-dir DIR > bench/results/loader.csv

Both on the CPU, on the same windows in batches of the published size; a trainer's step is all that training does with a
batch. The loader is measured on the values in memory and on the same data set converted to a folder, which it maps.
"""

import argparse
import csv
import datetime
import itertools
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import machine
import torch
from epochs import WARM_UP, seconds, trainer_of

from stlora_kernels.data import Windows
from stlora_kernels.data.converted import write_converted
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.experiment import load_data


def delivered(part: Windows, batch_size: int, batches: int) -> float:
    """Windows per second of the loader, from the median time of a batch."""
    stream = part.batches(batch_size, shuffle=True, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(min(WARM_UP + batches, part.num_batches(batch_size) - 1)):
        start = time.perf_counter()
        next(stream)
        times.append(time.perf_counter() - start)
    return batch_size / statistics.median(times[WARM_UP:])


def rows(config: TrainConfig, batches: int, steps: int) -> list[dict[str, object]]:
    """Measure the trainer and both loaders."""
    trainer = trainer_of(config)
    size, part = trainer.recipe.batch_size, trainer.data.train
    some = itertools.islice(part.batches(size, shuffle=True, generator=trainer.order), WARM_UP + steps)
    step = statistics.median([seconds(trainer, batch, i) for i, batch in enumerate(some, 1)][WARM_UP:])
    with tempfile.TemporaryDirectory() as folder:
        write_converted(Path(folder), trainer.data.data)
        mapped = load_data(replace(config, dataset=folder, data_dir=None)).train
        rates = {"in memory": delivered(part, size, batches), "mapped": delivered(mapped, size, batches)}
    return [
        {
            "date": datetime.date.today().isoformat(),
            "commit": machine.commit(),
            "cpu": machine.cpu(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "dataset": trainer.data.data.name,
            "nodes": trainer.data.num_nodes,
            "batch": size,
            "values": values,
            "trainer windows/s": round(size / step, 1),
            "loader windows/s": round(rate),
            "times as many": round(rate * step / size),
        }
        for values, rate in rates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="PEMS08")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batches", type=int, default=80, help="measured batches of the loader (default: 80)")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of the trainer (default: 8)")
    options = parser.parse_args()
    config = TrainConfig(dataset=options.dataset, data_dir=options.data_dir, backbone="stgcn")
    measured = rows(config, options.batches, options.steps)
    writer = csv.DictWriter(sys.stdout, measured[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(measured)


if __name__ == "__main__":
    main()
