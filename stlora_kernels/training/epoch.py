"""What an epoch did, and how far one is that is under way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stlora_kernels.training.metrics import Scores


@dataclass(frozen=True)
class Epoch:
    """What one epoch did."""

    number: int  # from 1
    train_loss: float  # mean over the batches, in the target's unit (plus the gate's penalty)
    validation: Scores
    learning_rate: float
    seconds: float  # of training, without validation
    counted: int  # steps of the horizon in the last batch's loss

    def as_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {
            "epoch": self.number,
            "train_loss": self.train_loss,
            "steps_counted": self.counted,
            "validation": self.validation.as_dict(),
            "learning_rate": self.learning_rate,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Epoch":
        """What ``as_dict`` made, to the digit."""
        return cls(
            number=values["epoch"],
            train_loss=values["train_loss"],
            counted=values["steps_counted"],
            validation=Scores.from_dict(values["validation"]),
            learning_rate=values["learning_rate"],
            seconds=values["seconds"],
        )


@dataclass
class Position:
    """How far the epoch is that is under way."""

    batches: int = 0  # done
    loss: float = 0.0  # their sum
    seconds: float = 0.0
