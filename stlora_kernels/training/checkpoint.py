"""Checkpoints: tensors as safetensors, everything else as JSON, no pickle; written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.errors import InputError, MissingFileError, require
from stlora_kernels.files import replacing

KEY = "stlora_kernels"  # of the JSON in the safetensors header
BEST = "best.safetensors"
ABOUT = {"config": dict, "epoch": int, "nodes": int, "scaler": dict}  # what is read back, and its types
CONFIG = {"backbone": str, "stlora": bool}


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-able ``about`` to ``path``, and a copy of ``about`` for readers beside it.

    ``about`` stands in the header of the safetensors file, so that one rename replaces both at once; the ``.json``
    is never read back.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the previous checkpoint is then untouched.
    """
    safetensors = require("safetensors.torch", "train")
    text = json.dumps(about, indent=1, allow_nan=False)
    # safetensors refuses tensors that share memory, which tied weights do.
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        # Through Python's own file, whose errors say "no space left on device".
        temporary.write_bytes(safetensors.save(whole, metadata={KEY: text}))
    write_text(path.with_suffix(".json"), text + "\n")


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and what was saved about them.

    Args:
        path: the file, or the run folder that holds it as ``best.safetensors``.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a whole checkpoint of this package, or lacks one of the keys that are read back.
    """
    safetensors = require("safetensors", "train")
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise MissingFileError(f"there is no checkpoint {file}; a run writes one when its first epoch is done")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            tensors: dict[str, torch.Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            about = json.loads((opened.metadata() or {})[KEY])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{file} is not a whole checkpoint of stlora_kernels: {error}") from error
    _check_keys(about, ABOUT, f"{file}: the JSON about the checkpoint")
    _check_keys(about["config"], CONFIG, f"{file}: the config of the checkpoint")
    return tensors, about


def _check_keys(values: Any, kinds: Mapping[str, type], what: str) -> None:
    if not isinstance(values, dict):
        raise InputError(f"{what} is {type(values).__name__}, expected a mapping")
    for key, kind in kinds.items():
        if key not in values:
            raise InputError(f"{what} has no {key!r}")
        if not isinstance(values[key], kind):
            raise InputError(f"{what} has {key!r} of type {type(values[key]).__name__}, expected {kind.__name__}")
