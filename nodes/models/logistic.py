"""Logistic regression."""

from typing import Literal

from nodes.models.base import MODELS, ModelConfig, Network, Task, head
from nodes.training.devices import perceptron
from nodes.training.settings import Device


@MODELS.register
class LogisticConfig(ModelConfig):
    """Logistic regression: one linear layer, one sigmoid or C softmax outputs."""

    name: Literal["logistic"] = "logistic"

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        """See ModelConfig."""
        num_outputs, loss = head(num_classes, task)
        return perceptron((num_features, num_outputs), loss, device=device)
