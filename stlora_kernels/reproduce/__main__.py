"""``python -m stlora_kernels.reproduce EXPERIMENT``: run a table or a figure of the paper, and print what there is."""

import sys
from collections.abc import Sequence
from typing import Any

from stlora_kernels.errors import require
from stlora_kernels.training.cli import run

HELP = """Run the grid of a table or a figure of the paper (arXiv 2404.07919), and print and write what came out.

Done runs are kept and never run again: the same command goes on where it stopped, whatever stopped it.
What stands after -- goes to every training as it is: reproduce table2 --epochs 20 -- --max-batches 50"""


def main(argv: Sequence[str]) -> None:
    """Reproduce what the arguments say."""
    tyro = require("tyro", "train")
    from stlora_kernels.reproduce.options import ReproduceOptions
    from stlora_kernels.training.options import parse

    own, train_args = list(argv), []
    if "--" in own:
        cut = own.index("--")
        own, train_args = own[:cut], own[cut + 1 :]
    how: dict[str, Any] = {"prog": "python -m stlora_kernels.reproduce", "config": (tyro.conf.DisallowNone,)}
    options = parse(ReproduceOptions, own or ["--help"], description=HELP, **how)
    options.validate()
    from stlora_kernels.reproduce.reproduce import reproduce

    reproduce(options, tuple(train_args))


if __name__ == "__main__":
    sys.exit(run(main))
