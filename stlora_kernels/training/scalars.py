"""Every epoch's scalars for TensorBoard."""

from pathlib import Path
from typing import Any

from stlora_kernels.errors import require
from stlora_kernels.training.epoch import Epoch


class Scalars:
    """Writes to a folder that ``tensorboard --logdir`` shows.

    Args:
        folder: where to; made when the first epoch is written.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "tensorboard")
        self.folder = folder
        self.writer: Any = None

    def add(self, epoch: Epoch) -> None:
        """Write one epoch."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What an earlier run wrote of this epoch and later ones is taken back.
            self.writer = SummaryWriter(str(self.folder), purge_step=epoch.number)
        pooled = epoch.validation.pooled
        values = {
            "train/loss": epoch.train_loss,
            "train/learning_rate": epoch.learning_rate,
            "train/seconds": epoch.seconds,
            "validation/mae": pooled.mae,
            "validation/rmse": pooled.rmse,
            "validation/mape": pooled.mape,
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, epoch.number)
        self.writer.flush()
