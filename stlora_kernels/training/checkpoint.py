"""Checkpoints: tensors as safetensors, everything else as JSON, no pickle; written whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stlora_kernels.errors import InputError, MissingFileError, require
from stlora_kernels.files import replacing

KEY = "stlora_kernels"  # of the JSON in the safetensors header
DIGEST = "sha256"  # of the tensors, in the header too: safetensors itself notices no flipped bit
BEST = "best.safetensors"
ABOUT = {"config": dict, "epoch": int, "nodes": int, "scaler": dict}  # what is read back, and its types
CONFIG = {"backbone": str, "stlora": bool}


def write_text(path: Path, text: str) -> None:
    """Write a small file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write ``tensors``, the JSON-able ``about`` and a digest of the tensors to ``path``, whole or not at all.

    ``about`` stands in the header of the safetensors file, so that one rename replaces both at once.

    Raises:
        OSError: if the disk is full or the folder cannot be written; what was there before is then untouched.
    """
    safetensors = require("safetensors.torch", "train")
    # safetensors refuses tensors that share memory, which tied weights do.
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    header = {KEY: json.dumps(about, indent=1, allow_nan=False), DIGEST: _digest(whole)}
    with replacing(path) as temporary:
        # Through Python's own file, whose errors say "no space left on device".
        temporary.write_bytes(safetensors.save(whole, metadata=header))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], Any]:
    """What ``write_tensors`` wrote, the tensors on the CPU.

    Raises:
        InputError: if it is no such file, or not all of it, or changed since.
    """
    safetensors = require("safetensors", "train")
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            tensors: dict[str, torch.Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            header = opened.metadata() or {}
        about = json.loads(header[KEY])
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{file} is not a whole checkpoint of stlora_kernels: {error}") from error
    if DIGEST in header and header[DIGEST] != _digest(tensors):
        raise InputError(f"{file} is not a whole checkpoint of stlora_kernels: its tensors are not those of its digest")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of all names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """``write_tensors``, and a copy of ``about`` for readers beside it: the ``.json`` is never read back."""
    write_tensors(path, tensors, about)
    write_text(path.with_suffix(".json"), json.dumps(about, indent=1) + "\n")


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and what was saved about them.

    Args:
        path: the file, or the run folder that holds it as ``best.safetensors``.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a whole checkpoint of this package, or lacks one of the keys that are read back.
    """
    file = path / BEST if path.is_dir() else path
    if not file.is_file():
        raise MissingFileError(f"there is no checkpoint {file}; a run writes one when its first epoch is done")
    tensors, about = read_tensors(file)
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
