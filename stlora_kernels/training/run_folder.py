"""What a run leaves: its configuration, the best checkpoint, the last state, and in the end its metrics."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stlora_kernels.data import ForecastData
from stlora_kernels.errors import InputError
from stlora_kernels.training.checkpoint import BEST, write_text
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.metrics import Scores
from stlora_kernels.training.report import Report, versions
from stlora_kernels.training.resume import LAST, PREVIOUS

METRICS = "metrics.json"  # written last: its presence means that the run is finished
CONFIG = "config.yaml"
RUN_FILES = (CONFIG, BEST, Path(BEST).with_suffix(".json").name, LAST, PREVIOUS, METRICS)


def check_folder(folder: Path, overwrite: bool) -> None:
    """Find out before the training whether its result can be kept.

    Raises:
        InputError: if the folder holds a run or a file of that name (without ``overwrite``) or cannot be written.
    """
    taken = [] if overwrite else [name for name in RUN_FILES if (folder / name).exists()]
    if taken:
        kind = "a finished run" if METRICS in taken else "an unfinished run"
        held = kind if BEST in taken else f"{' and '.join(taken)}, which a run would replace"
        raise InputError(f"--output: {folder} holds {held}; choose another folder or add --overwrite")
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"--output: {folder} cannot be made, because {there} is not a folder one can write to")


def is_begun(folder: Path, asked: TrainConfig) -> bool:
    """Whether the folder holds this very run, begun and not finished: killed, perhaps, before its first state."""
    config = folder / CONFIG
    return config.is_file() and not (folder / METRICS).exists() and config.read_text("utf-8") == _yaml(asked)


def start_folder(folder: Path, asked: TrainConfig) -> None:
    """Make the run folder; what an earlier run left in it no longer belongs to what follows.

    Its configuration is what was asked for: started again with another backbone, it leaves open what this one left
    open. What was made of it is in the checkpoint and in the metrics, and here for the reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUN_FILES:
        (folder / name).unlink(missing_ok=True)
    write_text(folder / CONFIG, _yaml(asked))


def _yaml(asked: TrainConfig) -> str:
    return f"{asked.to_yaml()}# null, as published: {asked.recipe()}\n"


def about_checkpoint(config: TrainConfig, data: ForecastData, validation: Scores) -> dict[str, Any]:
    """What is saved about a checkpoint, but for the epoch."""
    return {
        "config": config.as_dict(),
        "scaler": data.scaler.state_dict(),
        "nodes": data.num_nodes,
        "validation": validation.as_dict(),
        "versions": versions(),
    }


def write_metrics(
    folder: Path, config: TrainConfig, report: Report, device: torch.device, learned: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the result of a run, which makes it a finished one, and what it learned by; returns what was written."""
    metrics = {
        "model": next(iter(report.scores)),
        **report.as_dict(),
        **learned,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "config": config.as_dict(),
        "versions": versions(),
    }
    write_text(folder / METRICS, json.dumps(metrics, indent=1, allow_nan=False) + "\n")
    return metrics
