"""Which runs an experiment is made of: cells, each one training with all its options."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import stlora_kernels.baselines  # noqa: F401  (makes their names known)
from stlora_kernels.backbones import backbone_names
from stlora_kernels.data.converted import is_converted
from stlora_kernels.data.folders import data_folder, required_file
from stlora_kernels.data.own import is_own, own_paths
from stlora_kernels.data.registry import DATASETS, dataset_names
from stlora_kernels.errors import InputError
from stlora_kernels.reproduce.options import Experiment, ReproduceOptions
from stlora_kernels.training.config import AdapterConfig, TrainConfig
from stlora_kernels.training.options import parse_train

FITTED = ("var", "svr")  # at once, without epochs, seeds and adapter
DATASETS_OF_PAPER: dict[Experiment, tuple[str, ...]] = {
    "table2": ("PEMS04",),
    "table3": ("PEMS04", "PEMS08", "PEMS03", "PEMS07", "METR-LA", "PEMS-BAY"),
    "figure4": ("PEMS04",),
    "figure5": ("PEMS04",),
}
BACKBONES_OF_PAPER: dict[Experiment, tuple[str, ...]] = {
    "table2": (*FITTED, "lstm", "stgcn", "gwnet", "agcrn", "staeformer", "d2stgnn"),
    "table3": ("stgcn",),
    "figure4": ("lstm", "stgcn", "gwnet", "agcrn", "staeformer", "d2stgnn"),
    "figure5": ("stgcn",),
}
LAYERS, RANKS = (1, 2, 4, 6), (4, 8, 12, 16)
# What the grid sets, and what may differ between a run and the same run elsewhere.
SET_BY_GRID = ("dataset", "data_dir", "backbone", "stlora", "seed", "output")
PLACES = ("data_dir", "output", "device", "save_minutes", "tensorboard", "shard_nodes")


@dataclass(frozen=True)
class Cell:
    """One run of the grid.

    Args:
        config: what it trains, all but the run folder.
        train_args: the part of it that the user wrote for every run.
    """

    config: TrainConfig
    train_args: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The run folder's name: equal for equal options, whatever experiment asks for them."""
        config, default = self.config, AdapterConfig()
        parts = [Path(config.dataset).stem, config.backbone.replace(":", ".")]
        if config.stlora:
            parts.append("stlora")
            if (config.adapter.layers, config.adapter.rank) != (default.layers, default.rank):
                parts.append(f"L{config.adapter.layers}-r{config.adapter.rank}")
        if config.epochs is not None:
            parts.append(f"epochs{config.epochs}")
        named = (*SET_BY_GRID, "epochs", "adapter.layers", "adapter.rank")
        default_options = options_of(replace(TrainConfig(), stlora=config.stlora).as_dict())
        others = {
            name: value
            for name, value in options_of(config.as_dict()).items()
            if name not in named and value != default_options[name]
        }
        if others:
            parts.append(hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()[:8])
        return "-".join([*parts, f"seed{config.seed}"])

    @property
    def plain(self) -> "Cell":
        """The same without the adapter."""
        return replace(self, config=replace(self.config, stlora=False))

    @property
    def is_fitted(self) -> bool:
        """Whether it is a classical baseline."""
        return self.config.backbone in FITTED

    def arguments(self) -> list[str]:
        """Of ``python -m stlora_kernels.train``, all but the run folder."""
        config = self.config
        said = {"dataset": config.dataset, "backbone": config.backbone, "seed": config.seed}
        said |= {"data-dir": config.data_dir, "epochs": config.epochs}
        if config.stlora:
            said |= {"adapter.layers": config.adapter.layers, "adapter.rank": config.adapter.rank}
        options = [(f"--{name}", str(value)) for name, value in said.items() if value is not None]
        # Of an option that is said twice, the last one counts.
        return [*self.train_args, *itertools.chain(*options), "--stlora" if config.stlora else "--no-stlora"]


def cells_of(options: ReproduceOptions, train_args: tuple[str, ...] = ()) -> dict[Experiment, list[Cell]]:
    """The cells of every experiment that is asked for, seed by seed, each model without the adapter and then with it.

    Raises:
        InputError: for an unknown data set or backbone, an option that the grid sets itself, and whatever training
            itself refuses without looking at data.
    """
    common = _common(options, train_args)
    return {name: list(_cells(name, options, common, train_args)) for name in options.experiments}


def in_order(grids: Iterable[list[Cell]]) -> list[Cell]:
    """All cells, each once, all with seed 0 first: what is done of a grid is balanced whenever it stops."""
    cells = {cell.name: cell for grid in grids for cell in grid}
    return sorted(cells.values(), key=lambda cell: cell.config.seed)


def options_of(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The options of a configuration in one flat mapping; those of an adapter only where there is one."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if name == "adapter" and not config["stlora"]:
            continue
        flat |= options_of(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return {name: value for name, value in flat.items() if name not in PLACES}


def missing_data(cells: Iterable[Cell]) -> dict[str, InputError]:
    """By data set, why it is not there."""
    missing = {}
    for dataset, folder in {(cell.config.dataset, cell.config.data_dir) for cell in cells}:
        info = DATASETS.get(dataset.lower())
        try:
            if info is not None:
                required_file(info, data_folder(folder), *info.values_files)
            elif is_own(dataset):
                own_paths(dataset)
        except InputError as error:
            missing[dataset] = error
    return missing


def _common(options: ReproduceOptions, train_args: tuple[str, ...]) -> TrainConfig:
    """What all runs have in common."""
    config, call = parse_train(train_args) if train_args else (TrainConfig(), {})
    said = {name: getattr(config, name) for name in SET_BY_GRID}
    said |= {name: call.get(name, False) for name in ("overwrite", "resume")} | {"frozen": config.frozen}
    usual = {name: getattr(TrainConfig(), name, False) for name in said}
    if "figure5" in options.experiments:
        said |= {"adapter.layers": config.adapter.layers, "adapter.rank": config.adapter.rank}
        usual |= {"adapter.layers": AdapterConfig().layers, "adapter.rank": AdapterConfig().rank}
    for name, value in said.items():
        if value != usual[name]:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"-- {option} {value}: the grid sets {option} itself (see --help)")
    if options.epochs is not None:
        if config.epochs is not None:
            raise InputError(f"--epochs {options.epochs} and -- --epochs {config.epochs}: got both, expected one")
        config = replace(config, epochs=options.epochs)
    return replace(config, data_dir=options.data)


def _cells(
    experiment: Experiment, options: ReproduceOptions, common: TrainConfig, train_args: tuple[str, ...]
) -> Iterator[Cell]:
    datasets = [_dataset(name) for name in options.datasets or DATASETS_OF_PAPER[experiment]]
    backbones = [_backbone(name) for name in options.backbones or BACKBONES_OF_PAPER[experiment]]
    if experiment != "table2":  # which alone shows the baselines
        trained = [name for name in backbones if name not in FITTED]
        if not trained:
            raise InputError(
                f"--backbones: got {' '.join(backbones)}, fitted at once and without an adapter, expected for "
                f"{experiment} one of {', '.join(backbone_names())}"
            )
        backbones = trained
    adapters = [common.adapter]
    if experiment == "figure5":
        pairs = itertools.product(dict.fromkeys(options.layers or LAYERS), dict.fromkeys(options.ranks or RANKS))
        adapters = [replace(common.adapter, layers=layers, rank=rank) for layers, rank in pairs]
    for seed, dataset, backbone in itertools.product(
        range(options.seeds), dict.fromkeys(datasets), dict.fromkeys(backbones)
    ):
        fitted = backbone in FITTED
        if fitted and seed:
            continue
        plain = replace(common, dataset=dataset, backbone=backbone, seed=seed)
        plain.validate()
        yield Cell(plain, train_args)
        for adapter in () if fitted else adapters:
            config = replace(plain, stlora=True, adapter=adapter)
            config.validate()
            yield Cell(config, train_args)


def _dataset(name: str) -> str:
    info = DATASETS.get(name.lower())
    if info is not None or name.lower() == "synthetic":
        return info.name if info else "synthetic"
    if not (is_own(name) or is_converted(name)):
        raise InputError(
            f"--datasets: got {name!r}, expected {', '.join(dataset_names())}, or the path of a .csv, .h5 or "
            "converted folder"
        )
    return name


def _backbone(name: str) -> str:
    known = (*backbone_names(), *FITTED)
    if ":" not in name and name.lower() not in known:
        raise InputError(
            f"--backbones: got {name!r}, expected {', '.join(known)}, or 'package.module:Class' of your own"
        )
    return name if ":" in name else name.lower()
