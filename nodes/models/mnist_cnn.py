"""The small convolutional network of the fake-client study on MNIST (MPAF, Cao and Gong 2022)."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from nodes.models.base import MODELS, ModelConfig, Network, Task, head
from nodes.runtime.errors import ScenarioError
from nodes.training.devices import check_device
from nodes.training.settings import Device

if TYPE_CHECKING:
    from torch import nn

PIXELS = 28


@MODELS.register
class MnistCnnConfig(ModelConfig):
    """Two 5x5 convolutions of one channel, a 2x2 pool between them, three linear layers; inputs are 28x28 images.

    1x28x28, conv 1x1x5 -> 1x24x24, ReLU, max pool 2x2 -> 1x12x12, conv 1x1x5 -> 1x8x8, ReLU, linear 64-120-84-n.
    "1x1x5" is read as one input channel, one output channel, a kernel of 5. The text gives no widths for the linear
    layers: 120 and 84 are those of LeNet-5 (LeCun et al. 1998).
    """

    name: Literal["mnist-cnn"] = "mnist-cnn"
    channels: Annotated[int, Field(ge=1)] = 1
    """Channels of both convolutions."""
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]], Field(strict=False)] = (120, 84)
    """Widths of the first two linear layers."""

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        """See ModelConfig. Raises ScenarioError unless there are 784 features."""
        if num_features != PIXELS**2:
            expected = f"data with {PIXELS**2} features ({PIXELS}x{PIXELS} images) for the model mnist-cnn"
            raise ScenarioError("model", f"mnist-cnn for {num_features} features", expected)
        check_device(device)
        from nodes.training.autograd import TorchNetwork

        num_outputs, loss = head(num_classes, task)
        return TorchNetwork(lambda: self._module(num_outputs), num_features, num_outputs, loss, device)

    def _module(self, num_outputs: int) -> "nn.Module":
        from torch import nn

        flat = self.channels * 8 * 8
        return nn.Sequential(
            nn.Unflatten(1, (1, PIXELS, PIXELS)),
            nn.Conv2d(1, self.channels, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(self.channels, self.channels, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(flat, self.hidden[0]),
            nn.ReLU(),
            nn.Linear(self.hidden[0], self.hidden[1]),
            nn.ReLU(),
            nn.Linear(self.hidden[1], num_outputs),
        )
