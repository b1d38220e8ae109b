"""What lies in a run folder so that ``--resume`` can go on: the last state of the training, and the one before it.

The one before is used where the last one turns out to be broken.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stlora_kernels.errors import InputError
from stlora_kernels.training.checkpoint import read_tensors, write_tensors

LAST, PREVIOUS = "last.safetensors", "last.previous.safetensors"
# What may be another when a run goes on: it changes where and how long, not what is computed.
FREE = (
    "epochs",
    "patience",
    "save_minutes",
    "data_dir",
    "output",
    "device",
    "backbone_checkpoint",
    "tensorboard",
    "shard_nodes",
)


def save_state(folder: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Keep a state; the one that was the last becomes the previous one.

    Raises:
        OSError: if it cannot be written; the last one is then untouched.
    """
    new = folder / f"new.{LAST}"
    write_tensors(new, tensors, about)
    last = folder / LAST
    if last.exists():
        last.replace(folder / PREVIOUS)
    new.replace(last)


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], tuple[str, ...]] | None:
    """The last state that is whole, and a line about each one that is not; None where there is none at all.

    Raises:
        InputError: if there are states and all of them are broken.
    """
    broken = []
    for name in (f"new.{LAST}", LAST, PREVIOUS):
        if not (folder / name).is_file():
            continue
        try:
            tensors, about = read_tensors(folder / name)
        except InputError as error:
            broken.append(str(error))
        else:
            return tensors, about, tuple(broken)
    if broken:
        raise InputError(f"--resume: {'; '.join(broken)}; --overwrite starts anew")
    return None


def check_same(folder: Path, about: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with what another configuration or other data left.

    Args:
        about: of the state. now: the same keys of the run that wants to go on; "config" and whatever else has to match.

    Raises:
        InputError: naming the first thing that differs, with both values.
    """
    there, here = _flat(about["config"]), _flat(now["config"])
    pairs = {_option(name): (there.get(name), here.get(name)) for name in here if name not in FREE}
    pairs |= {name: (about[name], value) for name, value in now.items() if name != "config"}
    for name, (before, after) in pairs.items():
        if before != after:
            raise InputError(
                f"--resume: {folder / LAST} has {name} {before}, this run {after}: give the same, or --overwrite"
            )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
