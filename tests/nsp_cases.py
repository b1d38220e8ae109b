"""The cases every backend of the NSP stack must pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

import stlora_kernels as sk

PARAMETERS = ("norm_weight", "weight", "bias", "A", "B")


@dataclass(frozen=True)
class Stack:
    M: int
    N: int
    D: int
    r: int
    L: int
    bias: bool = True
    dropout_p: float = 0.0
    adapters: int | None = None
    leading: tuple[int, ...] | None = None

    def __str__(self) -> str:
        text = f"M{self.M}-N{self.N}-D{self.D}-r{self.r}-L{self.L}"
        return (
            text
            + ("" if self.bias else "-nobias")
            + (f"-p{self.dropout_p}" if self.dropout_p else "")
            + (f"-adapters{self.adapters}" if self.adapters else "")
        )

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """h, grad, node_index and every layer's parameters ("A1" is A of layer 1)."""
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        adapters, D, r = self.adapters or self.N, self.D, self.r
        leading = (self.M,) if self.leading is None else self.leading
        tensors = {"h": randn(*leading, self.N, D), "grad": randn(*leading, self.N, D)}
        if self.adapters:
            tensors["node_index"] = torch.randint(0, adapters, (self.N,), generator=generator)
        for layer in range(self.L):
            tensors[f"norm_weight{layer}"] = 1 + 0.3 * randn(D)
            tensors[f"weight{layer}"] = randn(D, D) / D**0.5
            if self.bias:
                tensors[f"bias{layer}"] = randn(D)
            tensors[f"A{layer}"] = randn(adapters, D, r + layer) / (r + layer) ** 0.5  # ranks may differ
            tensors[f"B{layer}"] = randn(adapters, r + layer, D) / D**0.5
        return tensors

    def leaves(self) -> list[str]:
        return [name for name in self.tensors() if name not in ("grad", "node_index")]

    def call(self, backend: str | None, tensors: dict[str, Tensor], **options) -> Tensor:
        by_parameter = [
            [tensors[f"{name}{layer}"] for layer in range(self.L)] if f"{name}0" in tensors else None
            for name in PARAMETERS
        ]
        options = {"dropout_p": self.dropout_p, "seed": torch.tensor(2**40 + 7)} | options
        return sk.nsp_stack(
            tensors["h"], *by_parameter, 0.7, node_index=tensors.get("node_index"), backend=backend, **options
        )

    def run(self, backend: str | None, tensors: dict[str, Tensor], **options) -> dict[str, Tensor]:
        """The output and every gradient under the gradient ``tensors["grad"]``."""
        leaves = {name: tensors[name].detach().clone().requires_grad_() for name in self.leaves()}
        y = self.call(backend, tensors | leaves, **options)
        y.backward(tensors["grad"])
        return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}

    def reference64(self, dtype: torch.dtype, **options) -> dict[str, Tensor]:
        """The reference in fp64 on the values that ``dtype`` can hold."""
        rounded = {k: t.double() if t.is_floating_point() else t for k, t in self.tensors(dtype).items()}
        return self.run("reference", rounded, **options)


STACKS = [
    Stack(1, 1, 1, 1, 1),
    Stack(5, 3, 7, 2, 1),
    Stack(64, 4, 16, 4, 2, bias=False),
    Stack(65, 4, 33, 5, 3, dropout_p=0.3),
    Stack(3, 20, 64, 16, 4, dropout_p=0.1),
    Stack(700, 1, 24, 3, 2, dropout_p=0.2),
    Stack(1100, 2, 129, 4, 2),
    Stack(40, 9, 20, 4, 2, adapters=3),
    Stack(9, 6, 15, 3, 2, adapters=20, dropout_p=0.5),
    Stack(0, 3, 4, 2, 2),
    Stack(12, 4, 6, 2, 2, leading=(3, 4)),
    Stack(1, 4, 6, 2, 3, leading=()),
]
