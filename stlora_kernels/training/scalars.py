"""Every epoch's scalars for TensorBoard."""

from pathlib import Path

from stlora_kernels.errors import require
from stlora_kernels.training.epoch import Epoch


class Scalars:
    """Writes to a folder that ``tensorboard --logdir`` shows.

    Args:
        folder: where to; made when the first epoch is written.
        first: the first epoch to be written; what an earlier run wrote of it and those after it is taken back.
    """

    def __init__(self, folder: Path, first: int = 1) -> None:
        require("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first)

    def add(self, epoch: Epoch) -> None:
        """Write one epoch."""
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
