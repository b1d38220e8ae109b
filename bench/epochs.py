"""What a training epoch of each backbone costs, alone and with the ST-LoRA adapter, and the adapter's share of it.

    python bench/epochs.py --data-dir DIR > bench/results/epochs.csv

Both models of a pair train side by side, a step of one and a step of the other on the same windows, so that whatever
else the machine does falls on both. A step is all that training does with a batch: forward, loss, backward, clipping,
the optimizer. Batches are of the published size; an epoch is the median step times their number, the last one, which
may be smaller, counted as whole. The share is the median over the pairs of ``(with - without) / with``.
"""

import argparse
import csv
import datetime
import statistics
import sys
import time
from itertools import islice
from pathlib import Path

import machine
import torch

from stlora_kernels.backbones import backbone_names
from stlora_kernels.data import Batch
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.experiment import load_data
from stlora_kernels.training.model import build_model, describe_parameters
from stlora_kernels.training.progress import Progress
from stlora_kernels.training.trainer import Trainer, seed_everything

WARM_UP = 2  # steps that are not counted: memory is taken, kernels are chosen


def trainer_of(config: TrainConfig) -> Trainer:
    """A trainer with a new model, on the CPU."""
    data = load_data(config)
    seed_everything(config.seed)
    device = torch.device("cpu")
    trainer = Trainer(build_model(config, data, device), data, config, device, lambda epoch: None, Progress(quiet=True))
    trainer.model.train()
    return trainer


def seconds(trainer: Trainer, batch: Batch, position: int) -> float:
    """The time of one step."""
    start = time.perf_counter()
    trainer.step(batch, 1, position)
    return time.perf_counter() - start


def row(backbone: str, dataset: str, data_dir: Path, steps: int) -> dict[str, object]:
    """Measure a pair."""
    plain, adapted = (
        trainer_of(TrainConfig(dataset=dataset, data_dir=data_dir, backbone=backbone, stlora=stlora).complete())
        for stlora in (False, True)
    )
    batches = plain.data.train.batches(plain.recipe.batch_size, shuffle=True, generator=plain.order)
    pairs = [
        (seconds(plain, batch, i), seconds(adapted, batch, i))
        for i, batch in enumerate(islice(batches, WARM_UP + steps), 1)
    ][WARM_UP:]
    without, with_adapter = (statistics.median(times) for times in zip(*pairs, strict=True))
    first, share, third = statistics.quantiles([100 * (b - a) / b for a, b in pairs])
    parameters = describe_parameters(adapted.model)
    return {
        "date": datetime.date.today().isoformat(),
        "commit": machine.commit(),
        "cpu": machine.cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dataset": dataset,
        "nodes": plain.data.num_nodes,
        "backbone": backbone,
        "parameters": parameters["backbone"],
        "adapter parameters": parameters["adapter"],
        "batch": plain.recipe.batch_size,
        "batches": plain.batches_per_epoch,
        "steps": len(pairs),
        "epoch s": round(without * plain.batches_per_epoch, 1),
        "epoch + s": round(with_adapter * plain.batches_per_epoch, 1),
        "share of the adapter %": round(share, 1),
        "share iqr %": round(third - first, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="PEMS08")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--backbones", nargs="+", default=backbone_names(), choices=backbone_names())
    parser.add_argument("--steps", type=int, default=10, help="measured pairs of steps (default: 10)")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error(f"--steps: got {options.steps}, expected at least 2: one has no spread")
    writer = None
    for backbone in options.backbones:
        measured = row(backbone, options.dataset, options.data_dir, options.steps)
        if writer is None:
            writer = csv.DictWriter(sys.stdout, measured, lineterminator="\n")
            writer.writeheader()
        writer.writerow(measured)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
