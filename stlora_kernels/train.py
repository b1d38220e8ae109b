"""``python -m stlora_kernels.train``: train a model on a data set and print its test errors beside HA's."""

import sys
from collections.abc import Sequence

from stlora_kernels.training.cli import run


def main(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    from stlora_kernels.training.options import parse_train

    config, overwrite, quiet = parse_train(argv)
    from stlora_kernels.training.experiment import train

    train(config, overwrite=overwrite, quiet=quiet).print()


if __name__ == "__main__":
    sys.exit(run(main))
