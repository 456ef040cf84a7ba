"""The rows that a participant, or the coordinator's test, holds."""

from dataclasses import dataclass

from nodes.runtime.arrays import F32, I64


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows ready for training. Arrays may be read-only views; a transform returns a new shard.

    features_BF: float32, C-contiguous, scaled. labels_B: int64, what the model is trained on, 0 benign and 1 attack for
    the task `binary`, the class index for `multiclass`. classes_B: int64, the true class index whatever the task; an
    attack that changes labels leaves it alone.
    """

    features_BF: F32
    labels_B: I64
    classes_B: I64

    def __len__(self) -> int:
        return len(self.labels_B)
