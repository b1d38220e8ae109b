"""One run from its configuration to its result, and the same result again from the run folder."""

import json
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stlora_kernels.baselines import Baseline
from stlora_kernels.data import ForecastData, load_dataset
from stlora_kernels.data.graph import correlation_graph
from stlora_kernels.data.graph_facts import graph_facts
from stlora_kernels.errors import InputError, require
from stlora_kernels.training.checkpoint import BEST, load_checkpoint, save_checkpoint, write_text
from stlora_kernels.training.classical import fit_baseline
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.evaluation import evaluate, evaluate_ha
from stlora_kernels.training.interrupt import remembered_interrupts
from stlora_kernels.training.metrics import Scores
from stlora_kernels.training.model import build_model, describe_parameters, fill, resolve_device
from stlora_kernels.training.options import config_from_dict
from stlora_kernels.training.progress import Progress
from stlora_kernels.training.report import Report, versions
from stlora_kernels.training.trainer import Epoch, NonFiniteLossError, Trainer, seed_everything

METRICS = "metrics.json"  # written last: its presence means that the run is finished
CONFIG = "config.yaml"
RUN_FILES = (CONFIG, BEST, Path(BEST).with_suffix(".json").name, METRICS)


def train(config: TrainConfig, *, overwrite: bool = False, quiet: bool | None = None) -> Report:
    """Train or fit, test the best epoch, and keep everything in ``config.run_folder``.

    Nothing is written before the first epoch is done. Then the folder holds ``config.yaml`` and the best checkpoint
    so far (``best.safetensors``, its JSON beside it), and in the end ``metrics.json``.

    Raises:
        InputError: for anything in the configuration or the data that cannot be used, or a run in the folder
            without ``overwrite``.
        MissingExtraError: if the extra "train" is not installed.
        NonFiniteLossError: if the training diverges, saying where, and what was kept.
        KeyboardInterrupt: on Ctrl-C, saying what was kept.
    """
    for module in ("rich", "safetensors", "yaml"):  # now rather than after hours of training
        require(module, "train")
    config.validate()
    asked, config = config, config.complete()
    folder = config.run_folder
    check_folder(folder, overwrite)
    device = resolve_device(config.device)
    seed_everything(config.seed)
    data = load_data(config)
    data.place(device)
    model = build_model(config, data, device)
    progress = Progress(quiet)
    progress.say(_opening(config, data, device))
    if isinstance(model, Baseline):
        return _train_baseline(model, data, asked, device)
    progress.say(str(config.recipe()))

    def keep(epoch: Epoch) -> None:
        if trainer.best is None:
            start_folder(folder, asked)
        about = _about(config, data, epoch.validation) | {"epoch": epoch.number}
        save_checkpoint(folder / BEST, model.state_dict(), about)

    trainer = Trainer(model, data, config, device, keep, progress)
    try:
        with remembered_interrupts() as check:
            trainer.fit(check)
        report = measure(model, data, config, device, folder)
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; {_kept(folder, trainer.best)}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(folder, trainer.best)) from None
    metrics = _write_metrics(folder, config, report, device, _training(trainer))
    return replace(report, notes=(*_closing(trainer, metrics), f"Run folder: {folder}"))


def _train_baseline(model: Baseline, data: ForecastData, asked: TrainConfig, device: torch.device) -> Report:
    """What ``train`` does with a model that knows no epochs."""
    config, folder = asked.complete(), asked.run_folder
    fit = fit_baseline(model, data, config, device)
    start_folder(folder, asked)
    about = _about(config, data, fit.validation) | {"epoch": 0, "fit": fit.how}
    save_checkpoint(folder / BEST, model.state_dict(), about)
    report = measure(model, data, config, device, folder)
    learned = {"fit": fit.how, "seconds": fit.seconds, "validation": fit.validation.as_dict()}
    _write_metrics(folder, config, report, device, learned)
    return replace(report, notes=(fit.line(), f"Run folder: {folder}"))


def evaluate_run(run: Path, *, data_dir: Path | None = None, device: str | None = None) -> Report:
    """Test the best checkpoint of a run again, on the data that its configuration names.

    Args:
        run: the run folder, finished or not, or its ``best.safetensors``.
        data_dir: where the data are now, if not where they were.
        device: where to compute, if not where the run did.

    Raises:
        InputError: if the run, its data or the device cannot be used, or the data are not those of the run.
    """
    _, about = load_checkpoint(run)
    try:
        config = config_from_dict(about["config"])
        config.validate()
    except InputError as error:
        raise InputError(f"{run}: {error}") from error
    config = replace(config, data_dir=data_dir or config.data_dir, device=device or config.device)
    where = resolve_device(config.device)
    data = load_data(config)
    if (data.num_nodes, data.scaler.state_dict()) != (about["nodes"], about["scaler"]):
        raise InputError(
            f"{run} was trained on other data: {about['nodes']} sensors, scaler {about['scaler']}; "
            f"{data.data.name} has {data.num_nodes} sensors, scaler {data.scaler.state_dict()}"
        )
    data.place(where)
    # The checkpoint holds the backbone too; the one it may have started from is not needed any more.
    model = build_model(replace(config, backbone_checkpoint=None), data, where)
    report = measure(model, data, config, where, run)
    learned = about.get("fit", f"epoch {about['epoch']}")
    return replace(report, notes=(f"Checkpoint: {run}, {learned}",))


def measure(model: nn.Module, data: ForecastData, config: TrainConfig, device: torch.device, run: Path) -> Report:
    """Load the run's best checkpoint into ``model`` and measure it and HA on the test part."""
    fill(model, load_checkpoint(run)[0], run)
    name = type(model).__name__ if isinstance(model, Baseline) else config.model_name
    scores = {name: evaluate(model, data, data.test, config.recipe().batch_size, device)}
    return Report(data, scores | evaluate_ha(data, data.test), describe_parameters(model))


def load_data(config: TrainConfig) -> ForecastData:
    """The configured data set, cut into windows.

    Raises:
        InputError: see ``load_dataset`` and ``ForecastData``.
    """
    by_correlation = config.graph == "correlation"  # the only graph made of measurements: it waits for the split
    if by_correlation and (config.adjacency or config.locations):
        given = "--adjacency" if config.adjacency else "--locations"
        raise InputError(f"{given} is not an option of --graph correlation, which is made of the measurements")
    sensors = load_dataset(
        config.dataset,
        config.data_dir,
        graph="identity" if config.graph == "correlation" else config.graph,
        adjacency=config.adjacency,
        locations=config.locations,
        first_step=config.first_step,
        resample=config.resample,
        snap=config.snap,
        target=config.target,
        null_value=config.null_value,
        nodes=config.synthetic.nodes,
        steps=config.synthetic.steps,
        seed=config.synthetic.seed,
    )
    data = ForecastData(
        sensors,
        window=config.window,
        horizon=config.horizon,
        split=config.split,
        split_by=config.split_by,
        fill=config.fill,
        inputs=config.inputs,
    )
    if by_correlation:
        inputs = len(data.train) + data.window - 1  # the steps that the scaler knows too
        data.data = replace(sensors, adjacency=correlation_graph(sensors.values[:inputs, :, 0], data.null_value))
    return data


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


def start_folder(folder: Path, asked: TrainConfig) -> None:
    """Make the run folder; what an earlier run left in it no longer belongs to what follows.

    Its configuration is what was asked for: started again with another backbone, it leaves open what this one left
    open. What was made of it is in the checkpoint and in the metrics, and here for the reader.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).unlink(missing_ok=True)
    write_text(folder / CONFIG, f"{asked.to_yaml()}# null, as published: {asked.recipe()}\n")


def _opening(config: TrainConfig, data: ForecastData, device: torch.device) -> str:
    parts = "/".join(str(len(part)) for part in (data.train, data.val, data.test))
    origin = "synthetic data" if data.data.synthetic else data.data.name
    minutes = 1440 / data.data.steps_per_day
    return (
        f"{config.model_name} on {origin}: {data.num_nodes} sensors, {data.data.num_steps} steps of {minutes:g} min, "
        f"graph ({config.graph}) of {graph_facts(data.data.adjacency)}, "
        f"{parts} windows for training/validation/test, seed {config.seed}, {device}"
    )


def _closing(trainer: Trainer, metrics: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"Best epoch: {metrics['best_epoch']} of {len(metrics['epochs'])}, "
        f"{metrics['seconds_per_epoch']:.1f} s of training per epoch"
    )
    whole = trainer.data.train.num_batches(trainer.recipe.batch_size)
    if trainer.batches_per_epoch < whole:
        yield f"Quick run: {trainer.batches_per_epoch} of {whole} training batches per epoch (--max-batches)"
    last, horizon = trainer.history[-1].counted, trainer.data.horizon
    if last < horizon:
        yield f"Ended inside its curriculum: the loss counted {last} of {horizon} steps of the horizon at last"


def _kept(folder: Path, best: Epoch | None) -> str:
    if best is None:
        return "no epoch was done, nothing was written"
    return f"kept {folder / BEST} of epoch {best.number}, validation MAE {best.validation.pooled.mae:.3f}"


def _about(config: TrainConfig, data: ForecastData, validation: Scores) -> dict[str, Any]:
    return {
        "config": config.as_dict(),
        "scaler": data.scaler.state_dict(),
        "nodes": data.num_nodes,
        "validation": validation.as_dict(),
        "versions": versions(),
    }


def _training(trainer: Trainer) -> dict[str, Any]:
    assert trainer.best is not None  # there is a report only after training
    return {
        "best_epoch": trainer.best.number,
        "epochs": [
            {
                "epoch": epoch.number,
                "train_loss": epoch.train_loss,
                "steps_counted": epoch.counted,
                "validation": epoch.validation.as_dict(),
                "learning_rate": epoch.learning_rate,
                "seconds": epoch.seconds,
            }
            for epoch in trainer.history
        ],
        "seconds_per_epoch": statistics.median(epoch.seconds for epoch in trainer.history),
    }


def _write_metrics(
    folder: Path, config: TrainConfig, report: Report, device: torch.device, learned: Mapping[str, Any]
) -> dict[str, Any]:
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
