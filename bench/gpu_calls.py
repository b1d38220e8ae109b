"""The calls that the tables of the GPU kernels are about: each operation, forward and backward."""

import torch

from stlora_kernels.ops import dispatch

OPERATIONS = [f"{name} {way}" for name in ("nall", "nsp_layer", "nsp_stack") for way in ("forward", "backward")]
LAYERS = {"nall": 1, "nsp_layer": 1, "nsp_stack": 4}
Sizes = tuple[int, int, int, int]  # M, N, D, rank


def call(operation: str, backend: str, dtype: torch.dtype, sizes: Sizes, p: float, device: str) -> None:
    """Launch one operation, with every gradient wanted; on "meta", tensors have shapes only."""
    M, N, D, r = sizes
    name, direction = operation.split()
    L = LAYERS[name]
    nall, nsp = (dispatch.kernels(folder, backend) for folder in ("nall", "nsp"))

    def tensor(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    x, weight, bias, A, B = tensor(M, N, D), tensor(D, D), tensor(D), tensor(N, D, r), tensor(N, r, D)
    seed = torch.tensor(7)
    if name == "nall":
        problem = (x, weight, bias, A, B, seed, None, 1.0, p, "none", 0.1)
        if direction == "forward":
            nall.forward(*problem)
        else:
            nall.backward(x, None, [True] * 5, *problem)
        return
    layers = (*([t] * L for t in (bias, weight, bias, A, B)), seed, None, 1.0, 1e-6, 0.1, p)
    if direction == "forward":
        nsp.forward(x, True, *layers)
    else:
        saved = torch.zeros(N, L - 1, M, D, device=device)
        nsp.backward(x, saved, [True] * (1 + 5 * L), x, *layers)


def least_bytes(operation: str, sizes: Sizes, size: int) -> int:
    """Every tensor moved once: x, the parameters, y; backward, the gradients; of a stack also its layers' inputs."""
    M, N, D, r = sizes
    depth = LAYERS[operation.split()[0]]
    rows, parameters = M * N * D, depth * (D * D + 2 * D + 2 * N * D * r)
    kept = 4 * (depth - 1) * rows
    return kept + size * (3 * rows + 2 * parameters if operation.endswith("backward") else 2 * rows + parameters)


def flop(operation: str, sizes: Sizes) -> int:
    """Of the products; backward asks for those of the rows and those of the parameters."""
    M, N, D, r = sizes
    return LAYERS[operation.split()[0]] * 2 * M * N * D * (D + 2 * r) * (2 if operation.endswith("backward") else 1)
