"""What a training run is made of: plain dataclasses, checked once, that become options and YAML as they are.

The text under each field is its help on the command line.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stlora_kernels.errors import InputError, require

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
    """name of a data set, or the path of a csv of one's own (first column time, then one column per sensor)"""
    data_dir: Path | None = None
    """folder of the measurements; by default the environment variable STLORA_DATA"""
    adjacency: Path | None = None
    """graph (.csv or .pkl) of a csv of one's own, or to use in place of the data set's"""
    first_step: str | None = None
    """time of the first step, such as 2016-07-01T00:00, of an .npz that is not the full set"""
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
    null_value: Literal["dataset", "none"] | float = "dataset"
    """target that means missing; dataset: the data set's own (0; of a csv of one's own none); none: only NaN is"""

    backbone: str = "lstm"
    """the forecasting model; an unknown name lists what there is"""
    stlora: bool = False
    """wrap the backbone in the ST-LoRA adapter"""
    frozen: bool = False
    """train the adapter only; the backbone comes from --backbone-checkpoint"""
    backbone_checkpoint: Path | None = None
    """trained backbone to start from: a run folder or its best.safetensors"""
    adapter: AdapterConfig = field(default_factory=AdapterConfig)

    epochs: int = 30
    """at most; early stopping may end the run before"""
    batch_size: int = 64
    """windows per step"""
    max_batches: int | None = None
    """train on at most so many batches per epoch (for quick runs); evaluation is always complete"""
    learning_rate: float = 1e-3
    """of Adam"""
    weight_decay: float = 5e-4
    """of Adam"""
    step_size: int = 10
    """epochs between two decays of the learning rate"""
    gamma: float = 0.1
    """factor of each decay, in (0, 1]"""
    clip: float = 5.0
    """largest norm of the gradient; 0: no clipping"""
    patience: int = 10
    """stop after so many epochs without a better validation MAE"""
    gate_penalty: float = 0.0
    """lambda of eq. (5), weight of the mean square of the gate"""
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
        adapter = self.adapter
        for name in ("window", "horizon", "epochs", "batch_size", "max_batches", "step_size", "patience"):
            _count(name, getattr(self, name), 1)
        for name in ("blocks", "layers", "rank", "hidden"):
            _count(f"adapter.{name}", getattr(adapter, name), 1)
        for name in ("nodes", "steps"):
            _count(f"synthetic.{name}", getattr(self.synthetic, name), 1)
        _count("seed", self.seed, 0, MAX_SEED)
        _count("synthetic.seed", self.synthetic.seed, 0, MAX_SEED)
        for name in ("weight_decay", "clip", "gate_penalty"):
            _within(name, getattr(self, name), 0, math.inf)
        _within("learning_rate", self.learning_rate, 0, math.inf, low_open=True)
        _within("gamma", self.gamma, 0, 1, low_open=True, high_open=False)
        _within("adapter.alpha", adapter.alpha, -math.inf, math.inf)
        _within("adapter.dropout", adapter.dropout, 0, 1)
        if isinstance(self.null_value, float) and not math.isfinite(self.null_value):
            raise InputError(f"--null-value: got {self.null_value}, expected a finite number, dataset or none")
        if self.frozen and not (self.stlora and self.backbone_checkpoint):
            raise InputError("--frozen trains the adapter only: it needs --stlora and --backbone-checkpoint")

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
        return Path("runs") / f"{Path(self.dataset).stem}-{self.backbone.replace(':', '.')}{adapter}-seed{self.seed}"

    def as_dict(self) -> dict[str, Any]:
        """Nested plain types, as they stand in YAML and JSON."""
        return _plain(asdict(self))

    def to_yaml(self) -> str:
        """A file for ``--config``."""
        return str(require("yaml", "train").safe_dump(self.as_dict(), sort_keys=False, allow_unicode=True))


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
