"""``python -m stlora_kernels.train``: train a model on a data set and print its test errors beside HA's."""

from collections.abc import Sequence

from stlora_kernels.training.cli import leave, run


def main(argv: Sequence[str]) -> None:
    """Train as the arguments say."""
    from stlora_kernels.training.options import parse_train

    config, call = parse_train(argv)
    from stlora_kernels.training.experiment import train

    report = train(config, **call)
    if report is not None:
        report.print()


if __name__ == "__main__":
    leave(run(main))
