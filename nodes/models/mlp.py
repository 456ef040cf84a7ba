"""Multilayer perceptron of any hidden widths."""

from typing import Annotated, Literal

from pydantic import Field

from nodes.models.base import MODELS, ModelConfig, Network, Task, head
from nodes.training.devices import perceptron
from nodes.training.mlp import Initial
from nodes.training.settings import Device


@MODELS.register
class MLPConfig(ModelConfig):
    """Multilayer perceptron: linear layers of the `hidden` widths with ReLU, one sigmoid or C softmax outputs."""

    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)] = (128, 128)
    """Widths of the hidden layers."""
    initial: Initial = "kaiming-uniform"
    """Distribution of the initial parameters: PyTorch's default, or `glorot-uniform`, which is Keras's."""

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        """See ModelConfig."""
        num_outputs, loss = head(num_classes, task)
        return perceptron((num_features, *self.hidden, num_outputs), loss, self.initial, device=device)
