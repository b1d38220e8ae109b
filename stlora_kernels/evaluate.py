"""``python -m stlora_kernels.evaluate --run runs/X``: the result table of a run once more, from its checkpoint."""

import sys
from collections.abc import Sequence

from stlora_kernels.training.cli import run


def main(argv: Sequence[str]) -> None:
    """Evaluate as the arguments say."""
    from stlora_kernels.training.options import parse_evaluate

    options = parse_evaluate(argv)
    from stlora_kernels.training.experiment import evaluate_run

    evaluate_run(options.run, data_dir=options.data_dir, device=options.device).print()


if __name__ == "__main__":
    sys.exit(run(main))
