"""One run from its configuration to its result, and the same result again from the run folder."""

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
from stlora_kernels.nn.sharding import whole_tensors
from stlora_kernels.training.checkpoint import BEST, load_checkpoint, save_checkpoint
from stlora_kernels.training.classical import fit_baseline
from stlora_kernels.training.config import TrainConfig
from stlora_kernels.training.distributed import ALONE, Ranks, processes
from stlora_kernels.training.epoch import Epoch
from stlora_kernels.training.evaluation import evaluate, evaluate_ha
from stlora_kernels.training.interrupt import remembered_interrupts
from stlora_kernels.training.model import build_model, describe_parameters, fill, resolve_device
from stlora_kernels.training.options import config_from_dict
from stlora_kernels.training.progress import Progress
from stlora_kernels.training.report import Report
from stlora_kernels.training.resume import LAST, PREVIOUS, check_same, load_state, save_state
from stlora_kernels.training.run_folder import about_checkpoint, check_folder, is_begun, start_folder, write_metrics
from stlora_kernels.training.scalars import Scalars
from stlora_kernels.training.state import put, take
from stlora_kernels.training.trainer import NonFiniteLossError, Trainer, seed_everything


def train(
    config: TrainConfig, *, overwrite: bool = False, resume: bool = False, quiet: bool | None = None
) -> Report | None:
    """Train or fit, test the best epoch, and keep everything in ``config.run_folder``.

    Nothing is written before the first epoch is done, or ``config.save_minutes`` have passed. Then the folder holds
    ``config.yaml``, the best checkpoint so far (``best.safetensors``, its JSON beside it) and the last state, and in
    the end ``metrics.json``.

    Args:
        overwrite: replace the run that is in the folder.
        resume: go on with the run in the folder from its last state; where there is none, begin.
        quiet: no progress bar; None: none where stderr is not a terminal.

    Returns:
        The result; None in every process but the first of those that ``torchrun`` started.

    Raises:
        InputError: for anything in the configuration or the data that cannot be used, or a run in the folder
            without ``overwrite``, or of another configuration with ``resume``.
        MissingExtraError: if the extra "train" is not installed.
        NonFiniteLossError: if the training diverges, saying where, and what was kept.
        KeyboardInterrupt: on Ctrl-C, saying what was kept.
    """
    for module in ("rich", "safetensors", "yaml"):  # now rather than after hours of training
        require(module, "train")
    if config.tensorboard:
        require("tensorboard", "tensorboard")
    config.validate()
    with processes(config.device, "nodes" if config.shard_nodes else "batches") as (ranks, device):
        return _train(
            config, ranks, resolve_device(device), overwrite, resume, Progress(quiet, silent=not ranks.is_main)
        )


def _train(
    asked: TrainConfig, ranks: Ranks, device: torch.device, overwrite: bool, resume: bool, progress: Progress
) -> Report | None:
    config = asked.complete()
    folder = config.run_folder
    found = load_state(folder) if resume else None
    check_folder(folder, overwrite or found is not None or (resume and is_begun(folder, asked)))
    seed_everything(config.seed)
    data = load_data(config)
    data.place(device)
    what: dict[str, Any] = {"config": config.as_dict(), "nodes": data.num_nodes, "scaler": data.scaler.state_dict()}
    if found is not None:  # which holds the backbone too, wherever it came from
        check_same(folder, found[1], what)
    model = build_model(config if found is None else replace(config, backbone_checkpoint=None), data, device)
    progress.say(_opening(config, data, device))
    if isinstance(model, Baseline):
        if resume or ranks.size > 1:
            how = "--resume" if resume else "torchrun"
            raise InputError(f"{how}: got --backbone {config.backbone}, a baseline that is fitted at once")
        return _train_baseline(model, data, asked, device)
    progress.say(str(config.recipe()))

    def keep(epoch: Epoch) -> None:
        tensors = whole_tensors(trainer.evaluated.state_dict())
        if ranks.is_main:
            about = about_checkpoint(config, data, epoch.validation) | {"epoch": epoch.number}
            save_checkpoint(started() / BEST, tensors, about)

    def save() -> None:
        tensors, about = take(trainer)
        if ranks.is_main:
            save_state(started(), tensors, what | about)
            if scalars is not None and trainer.position.batches == 0:
                scalars.add(trainer.history[-1])

    def started() -> Path:
        if not begun:
            start_folder(folder, asked)
            begun.append(True)
        return folder

    begun = [True] if found is not None else []
    scalars = Scalars(folder / "tensorboard") if config.tensorboard and ranks.is_main else None
    trainer = Trainer(model, data, config, device, keep, progress, save, ranks)
    if found is not None:
        tensors, about, broken = found
        put(trainer, tensors, about)
        for line in broken:
            progress.say(f"{line}; going on from the state before it")
        done, batches = len(trainer.history), trainer.position.batches
        progress.say(f"going on after epoch {done}" + (f" and {batches} batches of the next" if batches else ""))
    try:
        with remembered_interrupts() as check:
            trainer.fit(check)
        ranks.wait()  # until the best epoch is on the disk
        report = measure(model, data, config, device, folder, ranks)
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; {_kept(folder, trainer)}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(folder, trainer)) from None
    if not ranks.is_main:
        return None
    metrics = write_metrics(folder, config, report, device, _training(trainer))
    (folder / PREVIOUS).unlink(missing_ok=True)
    return replace(report, notes=(*_closing(trainer, metrics), f"Run folder: {folder}"))


def _train_baseline(model: Baseline, data: ForecastData, asked: TrainConfig, device: torch.device) -> Report:
    """What ``train`` does with a model that knows no epochs."""
    config, folder = asked.complete(), asked.run_folder
    fit = fit_baseline(model, data, config, device)
    start_folder(folder, asked)
    about = about_checkpoint(config, data, fit.validation) | {"epoch": 0, "fit": fit.how}
    save_checkpoint(folder / BEST, model.state_dict(), about)
    report = measure(model, data, config, device, folder)
    learned = {"fit": fit.how, "seconds": fit.seconds, "validation": fit.validation.as_dict()}
    write_metrics(folder, config, report, device, learned)
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


def measure(
    model: nn.Module, data: ForecastData, config: TrainConfig, device: torch.device, run: Path, ranks: Ranks = ALONE
) -> Report:
    """Load the run's best checkpoint into ``model`` and measure it and HA on the test part."""
    fill(model, load_checkpoint(run)[0], run)
    name = type(model).__name__ if isinstance(model, Baseline) else config.model_name
    scores = {name: evaluate(model, data, data.test, config.recipe().batch_size, device, ranks)}
    ha = evaluate_ha(data, data.test) if ranks.is_main else {}  # which alone prints
    return Report(data, scores | ha, describe_parameters(model))


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


def _kept(folder: Path, trainer: Trainer) -> str:
    best, last = trainer.best, folder / LAST
    if best is not None:
        kept = f"kept {folder / BEST} of epoch {best.number}, validation MAE {best.validation.pooled.mae:.3f}"
        return f"{kept}; --resume goes on"
    return f"kept {last}; --resume goes on" if last.exists() else "no epoch was done, nothing was written"


def _training(trainer: Trainer) -> dict[str, Any]:
    assert trainer.best is not None  # there is a report only after training
    return {
        "best_epoch": trainer.best.number,
        "epochs": [epoch.as_dict() for epoch in trainer.history],
        "seconds_per_epoch": statistics.median(epoch.seconds for epoch in trainer.history),
    }
