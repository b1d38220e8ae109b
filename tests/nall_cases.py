"""The cases every NALL backend must pass, and the rule by which it is compared with the fp64 reference."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

import stlora_kernels as sk

GRADIENTS = ("x", "weight", "bias", "A", "B")


@dataclass(frozen=True)
class Case:
    M: int
    N: int
    I: int  # noqa: E741
    O: int  # noqa: E741
    r: int
    bias: bool = True
    dropout_p: float = 0.0
    activation: str | None = None
    adapters: int | None = None  # with a node_index into so many adapters: repeats, any order, some unused
    alpha: float = 0.7
    leading: tuple[int, ...] | None = field(default=None)  # leading dims other than [M]

    def __str__(self) -> str:
        parts = [f"M{self.M}-N{self.N}-I{self.I}-O{self.O}-r{self.r}"]
        parts += ["nobias"] * (not self.bias) + [f"p{self.dropout_p}"] * bool(self.dropout_p)
        parts += [self.activation] * bool(self.activation) + [f"adapters{self.adapters}"] * bool(self.adapters)
        return "-".join(str(p) for p in parts)

    def tensors(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor | None]:
        """The inputs, the same values (rounded) in every dtype."""
        generator = torch.Generator().manual_seed(0)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        adapters = self.adapters or self.N
        leading = (self.M,) if self.leading is None else self.leading
        index = torch.randint(0, adapters, (self.N,), generator=generator) if self.adapters else None
        return {
            "x": randn(*leading, self.N, self.I),
            "weight": randn(self.O, self.I) / self.I**0.5,
            "bias": randn(self.O) if self.bias else None,
            "A": randn(adapters, self.O, self.r),
            "B": randn(adapters, self.r, self.I) / self.I**0.5,
            "node_index": index,
            "grad": randn(*leading, self.N, self.O),
        }

    def call(self, backend: str | None, tensors: dict[str, Tensor | None]) -> Tensor:
        return sk.nall(
            *(tensors[name] for name in GRADIENTS),
            self.alpha,
            dropout_p=self.dropout_p,
            seed=torch.tensor(2**40 + 7),
            activation=self.activation,
            node_index=tensors["node_index"],
            backend=backend,
        )

    def run(self, backend: str, tensors: dict[str, Tensor | None]) -> dict[str, Tensor]:
        """The output and every gradient under the gradient ``tensors["grad"]``."""
        leaves = {
            name: None if tensors[name] is None else tensors[name].detach().clone().requires_grad_()
            for name in GRADIENTS
        }
        y = self.call(backend, tensors | leaves)
        y.backward(tensors["grad"])
        return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items() if leaf is not None}

    def reference64(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """The reference in fp64 on the values that ``dtype`` can hold."""
        rounded = {
            name: t.double() if t is not None and t.is_floating_point() else t
            for name, t in self.tensors(dtype).items()
        }
        return self.run("reference", rounded)


def error(got: Tensor, truth: Tensor) -> float:
    """Largest deviation, relative to the largest true value (absolute where all are below 1)."""
    if truth.numel() == 0:
        return 0.0
    return ((got.double() - truth).abs().max() / truth.abs().max().clamp(min=1.0)).item()


# Sizes cross every tile edge: rows around the row block, columns around the vectors, one of everything.
CASES = [
    Case(1, 1, 1, 1, 1),
    Case(5, 3, 7, 9, 2),
    Case(64, 5, 16, 16, 4, bias=False),
    Case(65, 4, 33, 17, 5, activation="relu"),
    Case(63, 6, 12, 25, 16, activation="leaky_relu"),
    Case(130, 2, 48, 96, 16),
    Case(3, 40, 64, 64, 16, activation="leaky_relu"),
    Case(200, 1, 24, 13, 3),
    Case(17, 9, 129, 5, 64),
    Case(2, 3, 257, 31, 20, alpha=-1.5),
    Case(70, 4, 33, 17, 5, dropout_p=0.3, activation="relu"),
    Case(10, 7, 18, 8, 4, dropout_p=0.5, bias=False),
    Case(4, 3, 10, 6, 2, dropout_p=1.0),
    Case(100, 11, 20, 12, 4, adapters=3),
    Case(9, 6, 15, 21, 3, adapters=20, dropout_p=0.2),
    Case(150, 3, 8, 40, 2, adapters=2, activation="relu"),
    Case(0, 3, 4, 5, 2),
    Case(0, 3, 4, 5, 2, leading=(2, 0)),
    Case(12, 4, 6, 5, 2, leading=(3, 2, 2)),
    Case(1, 4, 6, 5, 2, leading=()),
    Case(4, 0, 6, 5, 2, leading=(2, 2)),
]
