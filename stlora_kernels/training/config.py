"""What a training run is made of: plain dataclasses, checked once, that become options and YAML as they are.

The text under each field is its help on the command line.
"""

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from stlora_kernels.data.missing import Fill, NullValue, null_value_of
from stlora_kernels.errors import InputError, require
from stlora_kernels.training.published import Loss, Optimizer, Recipe, published

MAX_SIZE = 10**9  # the bytes of a matrix of two such sizes still fit into 64 bits; what memory holds is less
MAX_SEED = 2**32 - 1  # numpy takes no larger one


@dataclass(frozen=True)
class SyntheticConfig:
    """The generated traffic of --dataset synthetic."""

    nodes: int | None = None
    """sensors; by default the embedded set's"""
    steps: int | None = None
    """steps of 5 minutes; by default the embedded set's"""
    seed: int | None = None
    """of the generator; by default 0"""


@dataclass(frozen=True)
class AdapterConfig:
    """The adapter that --stlora puts around the backbone."""

    blocks: int = 1
    """K, node-specific predictors in a row"""
    layers: int = 4
    """L, node-adaptive low-rank layers in each"""
    rank: int = 16
    """r, rank of each node's update"""
    hidden: int = 64
    """width of these layers"""
    alpha: float = 1.0
    """multiplier of the low-rank path"""
    dropout: float = 0.1
    """at the end of sigma in every layer of the node-specific predictors, in [0, 1)"""
    temporal: Literal["fold", "step"] = "fold"
    """fold: one convolution spans the window; step: one at every step (needs window = horizon)"""
    factor: Literal["node", "node_b", "core", "shared"] = "node"
    """what each node owns: both factors, one, a core between shared factors, or nothing (plain LoRA)"""
    history: Literal["every", "from_second"] = "every"
    """which blocks see the input window; from_second is the paper's letter"""
    phi: Literal["relu"] | None = None
    """activation on every block's input; relu is the paper's letter"""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    dataset: str = "synthetic"
    """name of a data set, path of a .csv or .h5 of one's own (a pattern joins several), or a converted folder"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA, or else ~/.cache/stlora"""
    graph: Literal["dataset", "binary", "kernel", "neighbours", "correlation", "identity"] = "dataset"
    """dataset: what the set's own files say;
    binary: the same edges, both ways, of weight 1;
    kernel: Gaussian kernel of road distances;
    neighbours: the 8 nearest sensors, by coordinates;
    correlation: the 8 most alike in the training part;
    identity: no edges"""
    adjacency: Path | None = None
    """graph (.csv, .pkl or .npy) of files of one's own, or to use in place of the data set's"""
    locations: Path | None = None
    """csv of sensor_id,latitude,longitude for --graph neighbours, if the data set has none"""
    first_step: str | None = None
    """time of the first step, such as 2016-07-01T00:00, of an .npz that is not the full set"""
    resample: int | None = None
    """minutes of a longer step, to which the measured values of one's own files are averaged"""
    snap: int | None = None
    """seconds by which the clock of one's own files may be early or late; such times are moved to the even step"""
    target: str | None = None
    """the channel of one's own files to be forecast, where there are several"""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    output: Path | None = None
    """run folder; by default runs/<dataset>-<backbone>[-stlora[-frozen]]-seed<k>"""

    window: int = 12
    """input steps T"""
    horizon: int = 12
    """forecast steps H"""
    split: tuple[float, float, float] | None = None
    """shares of training, validation and test; by default the data set's own"""
    split_by: Literal["windows", "steps"] = "windows"
    """what the shares count"""
    null_value: NullValue = "dataset"
    """target that means missing; dataset: the data set's own (0; of files of one's own none); none: only NaN is"""
    fill: Fill = "none"
    """missing inputs, from their own window: last measurement, linear, or none (NaN is the mean, 0 stays)"""
    inputs: Literal["data", "target", "all"] = "data"
    """channels that are inputs; data: all of one's own files, the target of published sets"""

    backbone: str = "lstm"
    """the forecasting model; an unknown name lists what there is"""
    backbone_args: tuple[str, ...] = ()
    """arguments of the backbone's own, such as embedding=4 dropout=0.2; others as published"""
    stlora: bool = False
    """wrap the backbone in the ST-LoRA adapter"""
    frozen: bool = False
    """train the adapter only; the backbone comes from --backbone-checkpoint"""
    backbone_checkpoint: Path | None = None
    """trained backbone to start from: a run folder or its best.safetensors"""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)

    # Down to the curriculum, None is what was published for the backbone and the data set (published.py).
    epochs: int | None = None
    """at most; early stopping may end the run before. By default as published, as all down to --curriculum"""
    patience: int | None = None
    """stop after so many epochs without a better validation MAE"""
    batch_size: int | None = None
    """windows per step"""
    optimizer: Optimizer | None = None
    """adam (weight decay as part of the gradient) or adamw (beside it)"""
    learning_rate: float | None = None
    """of the optimizer"""
    weight_decay: float | None = None
    """of the optimizer"""
    gamma: float | None = None
    """factor of each decay of the learning rate, in (0, 1]"""
    milestones: tuple[int, ...] | None = None
    """epochs after which the learning rate decays"""
    step_size: int | None = None
    """in place of milestones: epochs between two decays; 0: none"""
    clip: float | None = None
    """largest norm of the gradient; 0: no clipping"""
    loss: Loss | None = None
    """mae, or huber (squared below an error of 1 unit), over the targets that are not missing"""
    warmup: int | None = None
    """epochs of training before the curriculum"""
    curriculum: int | None = None
    """epochs until the loss counts one more step of the horizon, from the first on; 0: all steps, always"""

    max_batches: int | None = None
    """train on at most so many batches per epoch (for quick runs); evaluation is always complete"""
    gate_penalty: float = 0.0
    """lambda of eq. (5), weight of the mean square of the gate"""
    shard_nodes: bool = False
    """under torchrun: share the nodes' adapters among the processes, for graphs too large for one; else the batches"""
    accumulate: int = 1
    """pieces in which a batch is computed, to save memory; the gradient is that of the whole batch"""
    amp: Literal["none", "bf16"] = "none"
    """bf16: forward and backward in mixed precision; validation and test never are"""
    compile: bool = False
    """run the model under torch.compile"""
    tensorboard: bool = False
    """write the scalars of every epoch for TensorBoard into the run folder"""
    ema: float = 0.0
    """factor by which an average of the weights forgets at every step; it is what is validated and tested; 0: none"""
    save_minutes: float = 10.0
    """minutes between two savings inside an epoch of all that --resume needs; 0: after every batch"""
    seed: int = 0
    """of the weights, the order of the batches and dropout"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto: a GPU where there is one"""
    backend: str | None = None
    """backend of the fused layers; by default the fastest that runs here"""

    def validate(self) -> None:
        """Check every value that needs no data to be judged.

        Raises:
            InputError: naming the option, what was given and what was expected.
        """
        adapter, recipe = self.adapter, self.recipe()
        for name in ("window", "horizon", "max_batches", "resample", "snap", "accumulate"):
            _count(name, getattr(self, name), 1)
        for name, least in (("epochs", 1), ("patience", 1), ("batch_size", 1), ("step_size", 0), ("warmup", 0)):
            _count(name, getattr(recipe, name), least)
        _count("curriculum", recipe.curriculum, 0)
        for epoch in recipe.milestones:
            _count("milestones", epoch, 1)
        if recipe.milestones and recipe.step_size:
            raise InputError("--milestones and --step-size: got both, expected one")
        for name in ("blocks", "layers", "rank", "hidden"):
            _count(f"adapter.{name}", getattr(adapter, name), 1)
        for name in ("nodes", "steps"):
            _count(f"synthetic.{name}", getattr(self.synthetic, name), 1)
        _count("seed", self.seed, 0, MAX_SEED)
        _count("synthetic.seed", self.synthetic.seed, 0, MAX_SEED)
        for name in ("weight_decay", "clip"):
            _within(name, getattr(recipe, name), 0, math.inf)
        _within("gate_penalty", self.gate_penalty, 0, math.inf)
        _within("save_minutes", self.save_minutes, 0, math.inf)
        _within("ema", self.ema, 0, 1)
        _within("learning_rate", recipe.learning_rate, 0, math.inf, low_open=True)
        _within("gamma", recipe.gamma, 0, 1, low_open=True, high_open=False)
        _within("adapter.alpha", adapter.alpha, -math.inf, math.inf)
        _within("adapter.dropout", adapter.dropout, 0, 1)
        null_value_of(self.null_value, None, "--null-value")
        if self.shard_nodes and (self.ema or self.compile or not self.stlora or adapter.factor == "shared"):
            other = (
                "--ema" if self.ema else "--compile" if self.compile else "a model without adapters of the nodes' own"
            )
            raise InputError(f"--shard-nodes divides the nodes' adapters: it does not go with {other}")
        if self.frozen and not (self.stlora and self.backbone_checkpoint):
            raise InputError("--frozen trains the adapter only: it needs --stlora and --backbone-checkpoint")

    def recipe(self) -> Recipe:
        """How to train: what this configuration says, and what it leaves open as published.

        Raises:
            InputError: for a text in ``backbone_args`` that is not ``name=value``.
        """
        there = published(self.backbone, self.dataset)
        said = {f.name: getattr(self, f.name) for f in fields(Recipe) if getattr(self, f.name) is not None}
        if said.get("milestones"):
            said.setdefault("step_size", 0)
        if said.get("step_size"):
            said.setdefault("milestones", ())
        own = arguments_of(there.backbone_args) | arguments_of(self.backbone_args)
        said["backbone_args"] = tuple(f"{name}={json.dumps(value)}" for name, value in own.items())
        return replace(there, **said)

    def complete(self) -> "TrainConfig":
        """The same with nothing left open: what a model is built and kept with."""
        return replace(self, **vars(self.recipe()))

    @property
    def model_name(self) -> str:
        """Such as "lstm + ST-LoRA (frozen backbone)"."""
        return self.backbone + (" + ST-LoRA" if self.stlora else "") + (" (frozen backbone)" if self.frozen else "")

    @property
    def run_folder(self) -> Path:
        """Where the run is kept."""
        if self.output is not None:
            return self.output
        adapter = ("-stlora" if self.stlora else "") + ("-frozen" if self.frozen else "")
        name = re.sub(r"[*?[\]]", "", Path(self.dataset).stem)  # of a pattern that joins files
        return Path("runs") / f"{name}-{self.backbone.replace(':', '.')}{adapter}-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """Nested plain types, as they stand in YAML and JSON."""
        return _plain(asdict(self))

    def to_yaml(self) -> str:
        """A file for ``--config``."""
        return str(require("yaml", "train").safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True))


def arguments_of(texts: tuple[str, ...]) -> dict[str, Any]:
    """``("embedding=4", "channels=[8, 4]")`` as keyword arguments; values are JSON, or else plain text.

    Raises:
        InputError: for a text that is not ``name=value``, and for Python's spelling of JSON's constants.
    """
    arguments = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or value in ("True", "False", "None"):
            raise InputError(f"--backbone-args: got {text!r}, expected name=value, such as embedding=4 or bias=true")
        try:
            arguments[name] = json.loads(value)
        except json.JSONDecodeError:
            arguments[name] = value
    return arguments


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _count(name: str, value: int | None, least: int, most: int = MAX_SIZE) -> None:
    if value is not None and value < least:
        raise InputError(f"{_option(name)}: got {value}, expected an integer of at least {least}")
    if value is not None and value > most:
        raise InputError(f"{_option(name)}: got {value}, which is too large, expected an integer of at most {most}")


def _within(
    name: str, value: float, low: float, high: float, *, low_open: bool = False, high_open: bool = True
) -> None:
    if not (low < value if low_open else low <= value) or not (value < high if high_open else value <= high):
        interval = f"{'(' if low_open or math.isinf(low) else '['}{low:g}, {high:g}{')' if high_open else ']'}"
        raise InputError(f"{_option(name)}: got {value:g}, expected a number in {interval}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
