"""Which trainer serves which device."""

from collections.abc import Sequence

from nodes.models.base import Loss, Network
from nodes.runtime.errors import ScenarioError
from nodes.training.mlp import MLP, Initial
from nodes.training.settings import Device


def perceptron(
    widths: Sequence[int], loss: Loss, weights: Initial = "kaiming-uniform", device: Device = "cpu"
) -> Network:
    """Return a multilayer perceptron: NumPy, one participant at a time, on the CPU; stacked in torch on a GPU.

    Raises ScenarioError for a device that this machine lacks.
    """
    if device == "cpu":
        return MLP(widths, loss, weights)
    check_device(device)
    from nodes.training.stacked import StackedMLP

    return StackedMLP(widths, loss, weights, device=device)


def check_device(device: Device) -> None:
    """Raise ScenarioError unless torch can use `device` in this process."""
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        expected = f"'cpu', or actors that see a CUDA device (torch {torch.__version__} sees none here)"
        raise ScenarioError("training.device", device, expected)
