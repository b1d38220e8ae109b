"""The adjacency pickles of METR-LA and PEMS-BAY, opened without letting the file call anything.

A pickle is a program: it names functions and calls them. The unpickler here knows the five names an array needs and
answers each with a stand-in of its own, so a file can neither run code nor hand numpy a forged internal state.
"""

import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from stlora_kernels.data.readers.files import reading
from stlora_kernels.errors import InputError


def read_graph_pickle(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Adjacency ``[M, M]`` float32 and the ``M`` sensor ids of a pickled ``[ids, id_to_index, matrix]``.

    Lists, dicts, text and numpy arrays of numbers are read, from Python 2 (as latin1) or 3.

    Raises:
        InputError: if the pickle asks for anything else, is broken, or holds something else, or its index and its
            list do not agree.
    """
    with reading(path, "an adjacency pickle"), path.open("rb") as file:
        content = _ArrayUnpickler(file, path).load()
    match content:
        case [list(ids), index, _Array(values=matrix)] if all(isinstance(sensor, str | bytes | int) for sensor in ids):
            for i, sensor in enumerate(ids):
                place = index.get(sensor, i) if isinstance(index, dict) else i
                if place != i:
                    raise InputError(
                        f"{path}: sensor {sensor!r} is number {i} of the list, and {place!r} in id_to_index"
                    )
            named = tuple(sensor.decode("latin1") if isinstance(sensor, bytes) else str(sensor) for sensor in ids)
            return matrix.astype(np.float32), named
    raise InputError(f"{path}: expected a pickled [ids, id_to_index, matrix]")


class _DType:
    """Stands in for ``numpy.dtype``: numbers only."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[<>|=]?[fiub][1248]", code):
            raise ValueError(f"array of type {code!r}, expected numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands in for ``numpy.ndarray`` and for the function that makes an empty one to be filled."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, number, fortran_order, raw = state
        # Python 2 wrote bytes as text, which the unpickler has read as latin1.
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        self.values = np.frombuffer(raw, number.dtype).reshape(shape, order="F" if fortran_order else "C")


def _array_from_buffer(raw: bytes, number: _DType, shape: tuple, order: str) -> _Array:
    """Stands in for what numpy's pickles of protocol 5 call."""
    array = _Array()
    array.__setstate__((1, shape, number, order == "F", raw))
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """Stands in for ``codecs.encode``, with which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes encoded as {encoding!r}, expected latin1")
    return text.encode("latin1")


class _ArrayUnpickler(pickle._Unpickler):
    """The unpickler written in Python: the one in C reserves whatever memory a few broken bytes ask it for."""

    STAND_INS: ClassVar = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _DType,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy.core.numeric", "_frombuffer"): _array_from_buffer,
        ("numpy._core.numeric", "_frombuffer"): _array_from_buffer,
        ("_codecs", "encode"): _latin1,
    }

    append: Any  # set by load(): push onto the stack,
    read: Any  # and read so many bytes of the file

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def load_bytes(self) -> None:
        """Opcode of protocol 5: a length and as many bytes, which are read before any room is made for them."""
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytes}

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self.STAND_INS.get((module, name))
        if stand_in is None:
            raise InputError(
                f"{self.path} asks for {f'{module}.{name}'!r}, which no adjacency needs and which could run code; "
                "it was not opened"
            )
        return stand_in
