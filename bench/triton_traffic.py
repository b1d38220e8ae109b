"""Counts the bytes that the programs of a Triton launch load and store, in Triton's interpreter.

    python bench/triton_traffic.py [--rank 16] [--sizes 64 307 144] [--operations "nall forward"]

That is what multiprocessors ask of the L2 cache; what L2 asks of the memory is less, down to every tensor once. A graph
of two nodes is run and scaled to N, so that a minute is enough.
"""

import argparse
import json
import os
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "1"
import torch
from gpu_calls import OPERATIONS, call
from triton.runtime.interpreter import interpreter_builder

from stlora_kernels.ops import triton_launch

COUNTED_NODES = 2
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def counted(operation: str, dtype: torch.dtype, M: int, N: int, D: int, r: int, multiprocessors: int = 132) -> float:
    """Bytes of one call with dropout 0.1, at N nodes."""
    total = 0
    originals = {name: getattr(interpreter_builder, name) for name in ("create_masked_load", "create_masked_store")}

    def counting(name: str, mask_at: int):
        def count(*args):
            nonlocal total
            pointers, mask = args[0], args[mask_at]
            total += int(mask.data.sum()) * (pointers.data.size // mask.data.size) * _bytes(pointers)
            return originals[name](*args)

        return count

    with (
        patch.object(interpreter_builder, "create_masked_load", counting("create_masked_load", 1)),
        patch.object(interpreter_builder, "create_masked_store", counting("create_masked_store", 2)),
        patch.object(triton_launch, "gpu", lambda _: triton_launch.Gpu(multiprocessors, "cuda", 32, True)),
    ):
        call(operation, "triton", dtype, (M, COUNTED_NODES, D, r), 0.1, "cpu")
    return total * N / COUNTED_NODES


def _bytes(pointers) -> int:
    return pointers.get_element_ty().primitive_bitwidth // 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs=3, default=(64, 307, 144), metavar=("M", "N", "D"))
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=OPERATIONS)
    options = parser.parse_args()
    result = {
        f"{operation} {name}": counted(operation, dtype, *options.sizes, options.rank)
        for operation in options.operations
        for name, dtype in DTYPES.items()
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
