"""How each model was trained where it was published: a row per backbone, and per data set where they differ.

``--stlora`` changes nothing here, so that a model with the adapter and the same without differ in the adapter alone.
Every loss leaves out missing targets, which not all of the published trainings did, and is in real units.

Sources: LSTM: liuxu77/LargeST. STGCN: hazdzz/STGCN (which minimises the squared error of one step; here the absolute
error of all, as the others). Graph WaveNet: nnzhan/Graph-WaveNet. AGCRN: LeiBAI/AGCRN. STAEformer:
XDZhelheim/STAEformer. D2STGNN: GestaltCogTeam/D2STGNN, whose learning rate starts anew as the warm-up ends, and for
PEMS03 and PEMS07 the figures of GestaltCogTeam/BasicTS, where it does not. (D2STGNN's own runs on flow scale by the
least and the largest value; here every value is standardised.) Any other backbone has the learning rate, the decays and
the optimizer of the ST-LoRA paper (arXiv 2404.07919), which says nothing of epochs, patience, batch and clipping: those
are ours.
"""

from dataclasses import dataclass
from typing import Literal, cast

Optimizer = Literal["adam", "adamw"]
Loss = Literal["mae", "huber"]

# decay: after which epochs the learning rate is multiplied by gamma; /10: after every tenth.
# curriculum: epochs of warming up + epochs for each further step of the horizon that the loss counts.
# "any" is every data set without a row of its own, "other" every backbone.
_TABLE = """
backbone    data set  epochs  patience  batch  optimizer  rate  weight-decay  gamma  decay                    clip  loss   curriculum  own arguments
other       any           30        10     64  adam       1e-3  5e-4          0.1    /10                      5     mae    -
lstm        any          100        30     64  adam       1e-3  1e-4          -      -                        5     mae    -
stgcn       any         1000        10     32  adamw      1e-3  1e-3          0.95   /10                      -     mae    -
gwnet       any          100       100     64  adam       1e-3  1e-4          -      -                        5     mae    -
agcrn       any          100        15     64  adam       3e-3  0             -      -                        -     mae    -
agcrn       PEMS08       100        15     64  adam       3e-3  0             -      -                        -     mae    -           embedding=2
staeformer  any          300        20     16  adam       1e-3  5e-4          0.1    15,30,50                 -     mae    -
staeformer  METR-LA      200        30     16  adam       1e-3  3e-4          0.1    20,30                    -     mae    -
staeformer  PEMS-BAY     300        20     16  adam       1e-3  1e-4          0.1    10,30                    -     mae    -
staeformer  PEMS03       300        20     16  adam       1e-3  5e-4          0.1    15,30,40                 -     huber  -
staeformer  PEMS04       300        20     16  adam       1e-3  5e-4          0.1    15,30,50                 -     huber  -
staeformer  PEMS07       300        20     16  adam       1e-3  1e-3          0.1    15,35,50                 -     huber  -
staeformer  PEMS08       300        30     16  adam       1e-3  1.5e-3        0.1    25,45,65                 -     huber  -
d2stgnn     any           80       100     32  adam       2e-3  1e-5          0.5    1,30,38,46,54,62,70,80   5     mae    30+3
d2stgnn     METR-LA       80       100     32  adam       2e-3  1e-5          0.5    1,30,38,46,54,62,70,80   5     mae    0+6
d2stgnn     PEMS-BAY      80       100     32  adam       2e-3  1e-5          0.5    1,30,38,46,54,62,70,80   5     mae    30+3        node_embedding=12 time_embedding=12
d2stgnn     PEMS03       100       100     16  adam       2e-3  1e-5          0.5    1,30,38,46,54,150        5     mae    30+3        node_embedding=12 time_embedding=12
d2stgnn     PEMS04       300       100     32  adam       2e-3  1e-5          0.5    1,30,38,46,54,200        5     mae    30+3        node_embedding=12 time_embedding=12
d2stgnn     PEMS07       100       100      8  adam       2e-3  1e-5          0.5    1,30,38,46,54,150        5     mae    30+3
d2stgnn     PEMS08       300       100     16  adam       2e-3  1e-5          0.5    1,30,38,46,54,200        5     mae    30+3
"""  # noqa: E501  (a table wider than the code reads better than one cut in two)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: the options of the same names, whose help says what each means."""

    epochs: int
    patience: int
    batch_size: int
    optimizer: Optimizer
    learning_rate: float
    weight_decay: float
    gamma: float
    milestones: tuple[int, ...]
    step_size: int
    clip: float
    loss: Loss
    warmup: int
    curriculum: int
    backbone_args: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In words, for the reader of a log."""
        parts = [f"{self.optimizer} {self.learning_rate:g}", f"weight decay {self.weight_decay:g}"]
        if self.milestones:
            parts.append(f"x {self.gamma:g} after epochs {', '.join(map(str, self.milestones))}")
        elif self.step_size:
            parts.append(f"x {self.gamma:g} every {self.step_size} epochs")
        parts += [self.loss, f"batches of {self.batch_size}"]
        if self.clip:
            parts.append(f"gradients of at most {self.clip:g}")
        if self.curriculum:
            parts.append(f"after {self.warmup} epochs one more step of the horizon every {self.curriculum}")
        return "; ".join([*parts, f"at most {self.epochs} epochs, patience {self.patience}", *self.backbone_args])


def published(backbone: str, dataset: str) -> Recipe:
    """The table's recipe for two names in any case."""
    rows = _RECIPES.get(backbone.lower(), _RECIPES["other"])
    return rows.get(dataset.upper(), rows["ANY"])


def _recipe(row: str) -> Recipe:
    _, _, epochs, patience, batch, optimizer, rate, weight_decay, gamma, decay, clip, loss, curriculum, *own = (
        row.split()
    )
    milestones = () if decay[0] in "-/" else tuple(int(epoch) for epoch in decay.split(","))
    warmup, per_step = (0, 0) if curriculum == "-" else (int(epochs) for epochs in curriculum.split("+"))
    return Recipe(
        epochs=int(epochs),
        patience=int(patience),
        batch_size=int(batch),
        optimizer=cast(Optimizer, optimizer),
        learning_rate=float(rate),
        weight_decay=float(weight_decay),
        gamma=0.1 if gamma == "-" else float(gamma),  # of a decay that is asked for where none was published
        milestones=milestones,
        step_size=int(decay[1:]) if decay[0] == "/" else 0,
        clip=0.0 if clip == "-" else float(clip),
        loss=cast(Loss, loss),
        warmup=warmup,
        curriculum=per_step,
        backbone_args=tuple(own),
    )


_RECIPES: dict[str, dict[str, Recipe]] = {}
for _row in _TABLE.strip().splitlines()[1:]:
    _backbone, _dataset = _row.split()[:2]
    _RECIPES.setdefault(_backbone, {})[_dataset.upper()] = _recipe(_row)
