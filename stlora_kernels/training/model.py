"""From a configuration and its data to a model."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stlora_kernels.backbones import build_backbone
from stlora_kernels.baselines import Baseline
from stlora_kernels.data import ForecastData
from stlora_kernels.errors import InputError
from stlora_kernels.nn.sharding import load_whole
from stlora_kernels.nn.stlora import STLoRA
from stlora_kernels.ops.dispatch import available_backends
from stlora_kernels.training.checkpoint import load_checkpoint
from stlora_kernels.training.config import TrainConfig, arguments_of

DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto": a GPU where there is one.

    Raises:
        InputError: if there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Before torch sees it: torch knows more types, most of them without kernels or without numbers.
    if name.partition(":")[0] not in DEVICE_TYPES:
        raise InputError(f"--device: got {name!r}, expected auto or one of {', '.join(DEVICE_TYPES)}")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: got {name!r}, which cannot be used here: {reason}") from error
    return device


def build_model(config: TrainConfig, data: ForecastData, device: torch.device) -> nn.Module:
    """The backbone, alone or in :class:`STLoRA`, on ``device``.

    The backbone is drawn first, so that one seed gives it the same weights with and without the adapter.

    Args:
        config: complete (``TrainConfig.complete``); where it names no argument, the backbone has its own default.

    Raises:
        InputError: for an unknown backbone or sizes, graph, checkpoint or kernel backend that do not fit.
    """
    if config.backend is not None and config.backend not in available_backends(device):
        there = ", ".join(available_backends(device))
        raise InputError(f"--backend: got {config.backend!r}, expected one of those that run here: {there}")
    shapes: dict[str, Any] = {
        "num_nodes": data.num_nodes,
        "in_features": data.in_features,
        "out_features": data.out_features,
        "window": data.window,
        "horizon": data.horizon,
    }
    own = arguments_of(config.backbone_args)
    if taken := own.keys() & {*shapes, "adjacency", "steps_per_day"}:
        raise InputError(f"--backbone-args: got {min(taken)}, which the data decide")
    backbone = build_backbone(
        config.backbone,
        **shapes,
        adjacency=torch.from_numpy(data.data.adjacency),
        steps_per_day=data.data.steps_per_day,
        **own,
    )
    if isinstance(backbone, Baseline):
        refuse_adaptation(config)
    if config.backbone_checkpoint is not None:
        load_backbone(backbone, config.backbone_checkpoint, config)
    if not config.stlora:
        return backbone.to(device)
    return STLoRA(backbone, **shapes, **asdict(config.adapter), frozen=config.frozen, backend=config.backend).to(device)


def refuse_adaptation(config: TrainConfig) -> None:
    """Refuse the options that make no sense with a baseline.

    Raises:
        InputError: for an adapter or a checkpoint to start from.
    """
    given = {"--stlora": config.stlora, "--backbone-checkpoint": config.backbone_checkpoint is not None}
    for option, is_given in given.items():
        if is_given:
            raise InputError(
                f"{option}: got --backbone {config.backbone}, a baseline that is fitted at once, "
                "expected a backbone that is trained"
            )


def load_backbone(backbone: nn.Module, path: Path, config: TrainConfig) -> None:
    """Fill ``backbone`` from the checkpoint of a plain run, or of the backbone inside an adapted one.

    Raises:
        InputError: if the checkpoint is of another backbone, of other arguments (not all of which change a size) or of
            other sizes.
    """
    tensors, about = load_checkpoint(path)
    saved = about["config"]
    if saved["backbone"].lower() != config.backbone.lower():
        raise InputError(f"--backbone-checkpoint: {path} holds a {saved['backbone']!r}, expected a {config.backbone!r}")
    there, here = (arguments_of(tuple(args)) for args in (saved.get("backbone_args", ()), config.backbone_args))
    if there != here:
        words = [
            " ".join(f"{name}={json.dumps(value)}" for name, value in own.items()) or "none" for own in (there, here)
        ]
        raise InputError(
            f"--backbone-checkpoint: {path} has --backbone-args {words[0]}, this run {words[1]}: give the same"
        )
    if saved["stlora"]:
        prefix = "backbone."
        tensors = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    fill(backbone, tensors, path)


def fill(model: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Load exactly the model's own tensors.

    Raises:
        InputError: naming the first tensor that is missing, left over or of another shape.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        here, there = (list(t[name].shape) if name in t else "nothing" for t in (own, tensors))
        if here != there:
            raise InputError(f"{path}: {name} is {there} in the checkpoint and {here} in the model")
    load_whole(model, tensors)


def describe_parameters(model: nn.Module) -> dict[str, float | int]:
    """How many parameters the model has, and of an adapted one how they divide."""
    total = sum(parameter.numel() for parameter in model.parameters())
    if not isinstance(model, STLoRA):
        return {"total": total}
    return {
        "total": total,
        "backbone": model.num_backbone_parameters,
        "adapter": model.num_adapter_parameters,
        "overhead_percent": 100 * model.overhead,
    }
