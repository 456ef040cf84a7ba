"""Logistic regression."""

from typing import Literal

from nodes.models.base import MODELS, ModelConfig, Network, Task, head
from nodes.training.mlp import MLP


@MODELS.register
class LogisticConfig(ModelConfig):
    """Logistic regression: one linear layer, one sigmoid or C softmax outputs."""

    name: Literal["logistic"] = "logistic"

    def build(self, num_features: int, num_classes: int, task: Task) -> Network:
        """See ModelConfig."""
        num_outputs, loss = head(num_classes, task)
        return MLP((num_features, num_outputs), loss)
