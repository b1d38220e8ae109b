"""``python -m stlora_kernels.data COMMAND``: get data sets, check them, bring them into the form training reads."""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Union, get_type_hints

from stlora_kernels.errors import require
from stlora_kernels.training.cli import run


def main(argv: Sequence[str]) -> None:
    """Run the sub-command that the arguments name."""
    tyro = require("tyro", "train")
    from stlora_kernels.training.options import parse

    commands = _commands()
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in commands.items())
    how: dict[str, Any] = {"prog": "python -m stlora_kernels.data", "config": (tyro.conf.DisallowNone,)}
    one_of: Any = Union[kinds]  # noqa: UP007, a union of what is only known now
    options: Any = parse(one_of, argv or ["--help"], description=f"{__doc__}".partition(": ")[2].capitalize(), **how)
    dict(commands.values())[type(options)](options)


def _commands() -> dict[str, tuple[type, Callable[[Any], None]]]:
    """Name, options and function of every file in ``commands/``."""
    from stlora_kernels.data import commands

    found = {}
    for module in pkgutil.iter_modules(commands.__path__):
        function = importlib.import_module(f"{commands.__name__}.{module.name}").run
        found[module.name] = (get_type_hints(function)["options"], function)
    return found


if __name__ == "__main__":
    sys.exit(run(main))
