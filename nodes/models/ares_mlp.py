"""The detector of the label-flipping study (Lavaur, Busnel and Autrel, ARES 2024)."""

from typing import Literal

from nodes.models.base import MODELS, ModelConfig, Network, Task
from nodes.runtime.errors import ScenarioError
from nodes.training.devices import perceptron
from nodes.training.settings import Device

WIDTHS = (39, 128, 128, 1)


@MODELS.register
class AresConfig(ModelConfig):
    """The label-flipping study's 39-128-128-1 perceptron (ARES 2024), for NetFlow v2 features and the task binary.

    The study ran on Keras: initial weights are Glorot-uniform, biases zero. Its Adam has eps 1e-7.
    """

    name: Literal["ares-mlp"] = "ares-mlp"

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        """See ModelConfig. Raises ScenarioError unless there are 39 features and the task is `binary`."""
        if task != "binary":
            raise ScenarioError("data.task", task, "'binary' for the model ares-mlp (mlp serves both tasks)")
        if num_features != WIDTHS[0]:
            expected = f"data with {WIDTHS[0]} features for the model ares-mlp (mlp takes any number)"
            raise ScenarioError("model", f"ares-mlp for {num_features} features", expected)
        return perceptron(WIDTHS, "sigmoid", "glorot-uniform", device=device)
