"""Everything that a training needs to go on as if it had not stopped.

The weights, the optimizer's moments, the states of all generators, the epoch and the position in it, what the epochs
did and which was the best. The schedule of the learning rate follows from the number of epochs.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stlora_kernels.nn.sharding import like, load_whole, whole_tensors
from stlora_kernels.training.epoch import Epoch, Position
from stlora_kernels.training.trainer import Trainer, seed_part


def take(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state between two batches: tensors, and what JSON holds. Where nodes are sharded all processes take part."""
    generators, drawn = _generators()
    inside = trainer.position.batches > 0
    parts: dict[str, Mapping[str, Tensor]] = {
        "model": trainer.model.state_dict(),
        "optimizer": {
            f"{name}:{moment}": value
            for name, parameter in trainer.model.named_parameters()
            for moment, value in trainer.optimizer.state.get(parameter, {}).items()
        },
        "generator": generators | {"order": trainer.order_at_start if inside else trainer.order.get_state()},
    }
    if trainer.average is not None:
        parts["average"] = trainer.average.state_dict()
    tensors = {
        f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in whole_tensors(named).items()
    }
    return tensors, {
        "generators": drawn,
        "learning_rate": trainer.optimizer.param_groups[0]["lr"],
        "steps": trainer.steps,
        "counted": trainer.counted,
        "position": asdict(trainer.position),
        "history": [epoch.as_dict() for epoch in trainer.history],
        "best": trainer.best.number if trainer.best is not None else None,
    }


def put(trainer: Trainer, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Let a new trainer, of the same configuration, take the place of the one whose state this is."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "generator": {}, "average": {}}
    for name, tensor in tensors.items():
        part, _, own = name.partition("/")
        parts[part][own] = tensor
    load_whole(trainer.model, parts["model"])
    if trainer.average is not None:
        trainer.average.load_state_dict(parts["average"])
    parameters = dict(trainer.model.named_parameters())
    # torch counts parameters in the order of the optimizer's groups, which is another where nodes are sharded.
    number = {id(p): i for i, p in enumerate(p for group in trainer.optimizer.param_groups for p in group["params"])}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        of, _, own = name.partition(":")
        moments.setdefault(number[id(parameters[of])], {})[own] = like(tensor, parameters[of])
    trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": moments})
    for group in trainer.optimizer.param_groups:
        group["lr"] = about["learning_rate"]
    trainer.order.set_state(parts["generator"].pop("order"))
    _set_generators(parts["generator"], about["generators"])
    seed_part(trainer.config.seed, trainer.ranks, about["steps"])  # not kept: another number of processes may go on
    trainer.steps, trainer.counted = about["steps"], about["counted"]
    trainer.position = Position(**about["position"])
    trainer.history = [Epoch.from_dict(epoch) for epoch in about["history"]]
    trainer.best = trainer.history[about["best"] - 1] if about["best"] is not None else None
    done = len(trainer.history)
    trainer.scheduler.load_state_dict({"last_epoch": done, "_step_count": done + 1})


def _generators() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Of Python, NumPy and torch, as tensors and as what JSON holds."""
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors |= {f"cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    kind, words, *rest = np.random.get_state()  # noqa: NPY002  (a user's own backbone may draw from it)
    return tensors, {"python": random.getstate(), "numpy": [kind, np.asarray(words).tolist(), *rest]}


def _set_generators(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Put back what ``_generators`` took."""
    torch.set_rng_state(tensors["torch"])
    for name, state in tensors.items():
        if name.startswith("cuda.") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, int(name.removeprefix("cuda.")))
    version, words, gauss = about["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(about["numpy"]))  # noqa: NPY002
