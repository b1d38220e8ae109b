"""From the command line and YAML to a configuration."""

import io
import json
import re
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from stlora_kernels.errors import InputError, MissingFileError, require
from stlora_kernels.training.config import TrainConfig

T = TypeVar("T")

# What no argument at all means: minutes on two cores, enough to leave HA far behind, and done again whenever asked.
DEMO = "--dataset synthetic --backbone lstm --stlora --epochs 5 --output runs/demo --overwrite"

TRAIN_HELP = f"""Train a forecasting model, with or without the ST-LoRA adapter, and compare it with HA.

Without any argument: {DEMO}"""


def parse_train(argv: Sequence[str]) -> tuple[TrainConfig, dict[str, bool]]:
    """The configuration, and what is of this call alone: the arguments overwrite, resume and quiet of ``train``.

    The command line wins over the YAML file of ``--config``, which wins over the defaults.

    Raises:
        InputError: for unknown options or keys, and values of a wrong type or range.
    """
    tyro = require("tyro", "train")

    @dataclass(frozen=True)
    class Options:
        config: Path | None = None
        """YAML file with any of the options below that are not said here"""
        overwrite: bool = False
        """replace the run that is in the run folder"""
        resume: bool = False
        """go on with the run in the run folder where it stopped; where there is none, begin"""
        quiet: bool = False
        """no progress bar, only one line per epoch (as when stderr is not a terminal)"""
        run: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)

    prog = "python -m stlora_kernels.train"
    argv = argv or DEMO.split()
    # Without None, which YAML spells null: an option that is left open is one that is not written.
    how: dict[str, Any] = {"prog": prog, "config": (tyro.conf.DisallowNone,)}
    options = parse(Options, argv, description=TRAIN_HELP, **how)
    if options.config is not None:
        said = options.run
        options = parse(Options, argv, default=Options(run=load_yaml(options.config)), **how)
        if said.step_size is not None and said.milestones is None:  # two ways to say one thing
            options = replace(options, run=replace(options.run, milestones=None))
        if said.milestones is not None and said.step_size is None:
            options = replace(options, run=replace(options.run, step_size=None))
    options.run.validate()
    if options.resume and options.overwrite:
        raise InputError("--resume and --overwrite: got both, expected one: to go on with a run, or to replace it")
    call = {name: getattr(options, name) for name in ("overwrite", "resume", "quiet")}
    return options.run, call


@dataclass(frozen=True)
class EvaluateOptions:
    """Test the best checkpoint of a run again and print its result table."""

    run: Path
    """run folder, or the best.safetensors in it"""
    data_dir: Path | None = None
    """folder of the measurements, if not where the run had them"""
    device: str | None = None
    """cpu, cuda, ..., if not what the run used"""


def parse_evaluate(argv: Sequence[str]) -> EvaluateOptions:
    """What to evaluate.

    Raises:
        InputError: for unknown options and values of a wrong type.
    """
    return parse(EvaluateOptions, argv, prog="python -m stlora_kernels.evaluate")


def load_yaml(path: Path) -> TrainConfig:
    """The configuration in a YAML file; what it does not say has its default.

    Raises:
        MissingFileError: if there is no such file.
        InputError: if it is not a mapping of option names to values of their types.
    """
    yaml = require("yaml", "train")
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingFileError(f"--config: there is no file {path}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config: {path} cannot be read as YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise InputError(
            f"--config: {path} holds {type(loaded).__name__}, expected a mapping of option names to values"
        )
    try:
        return config_from_dict(loaded)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def config_from_dict(values: dict[str, Any]) -> TrainConfig:
    """The configuration that ``TrainConfig.as_dict`` wrote, or part of one; the rest has its defaults.

    Raises:
        InputError: for unknown names and values of a wrong type.
    """
    tyro = require("tyro", "train")
    # As arguments, so that one parser judges names and types wherever they come from.
    return parse(TrainConfig, _as_arguments(values), config=(tyro.conf.FlagConversionOff,))


def parse(
    kind: type[T],
    argv: Sequence[str],
    *,
    prog: str | None = None,
    description: str | None = None,
    default: T | None = None,
    config: tuple[Any, ...] = (),
) -> T:
    """A dataclass from command-line arguments, with tyro's boxed errors turned into an InputError of one line."""
    tyro = require("tyro", "train")
    given = {} if default is None else {"default": default}
    boxed = io.StringIO()
    try:
        with redirect_stderr(boxed):
            return tyro.cli(kind, args=list(argv), prog=prog, description=description, config=config, **given)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        raise InputError(_unboxed(boxed.getvalue())) from None


def _as_arguments(values: dict[Any, Any], prefix: str = "") -> list[str]:
    arguments: list[str] = []
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', '-')}"
        if name in ("help", "h") or name.startswith("tyro-"):  # the parser's own options, which end the program
            raise InputError(f"--{name} is no key of a configuration (see --help)")
        if name == "backbone-args" and isinstance(value, dict):  # as one would write it in YAML
            value = [f"{own}={json.dumps(argument)}" for own, argument in value.items()]
        if isinstance(value, dict):
            arguments += _as_arguments(value, f"{name}.")
        else:
            items = value if isinstance(value, list) else [value]
            arguments += [f"--{name}", *map(str, items)]
    return arguments


def _unboxed(text: str) -> str:
    """The message in one of tyro's boxes, which are a title, the message, the argument's help and a footer."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("{None}|", "")  # None: an option that is left open
    rows = [row.strip("│| ") for row in text.splitlines()]
    sections: list[list[str]] = [[]]
    for row in filter(None, rows):
        if row[0] in "╭╰" or set(row) <= set("─-"):
            sections.append([])
        else:
            sections[-1].append(row)
    # The title stands in the frame, or, where the terminal cannot show frames, above the first ruler.
    message, *details = [section for section in sections[1:] if section] or [[text]]
    words = " ".join(message).partition(" Got errors:")[0].rstrip(".")
    words = re.sub(r"^Error parsing (--\S+): ", r"\1: ", words)
    match details:
        case [["Argument helptext:", usage, *_], *_]:
            words += f"; expected {usage}"
        case [["Perhaps you meant:", usage, *_], *_]:
            words += f"; perhaps you meant {usage}"
    return words + " (see --help)"
