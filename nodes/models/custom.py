"""A model of the user's own: any torch.nn.Module."""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nodes.models.base import MODELS, ModelConfig, Network, Task, head
from nodes.runtime.errors import ScenarioError
from nodes.training.devices import check_device
from nodes.training.settings import Device

if TYPE_CHECKING:
    from torch import nn

KEY = "model.factory"


@MODELS.register
class CustomConfig(ModelConfig):
    """Any torch.nn.Module: `factory: "module:callable"` is called with (num_features, num_outputs)."""

    name: Literal["custom"] = "custom"
    factory: Annotated[str, Field(pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$")]
    """Where the callable is; its module must be importable on every machine of the run."""

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        """See ModelConfig. Raises ScenarioError when the factory cannot be found, fails, or gives no fitting module."""
        check_device(device)
        from nodes.training.autograd import TorchNetwork

        num_outputs, loss = head(num_classes, task)
        factory = self._find()

        def module() -> "nn.Module":
            return self._module(factory, num_features, num_outputs)

        try:
            return TorchNetwork(module, num_features, num_outputs, loss, device)
        except ValueError as error:
            raise ScenarioError(KEY, self.factory, str(error)) from error

    def _find(self) -> Callable[..., Any]:
        module_name, _, path = self.factory.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
        except Exception as error:  # importing runs a user's code
            text = f"an importable module; {module_name} raised {type(error).__name__}: {error}"
            raise ScenarioError(KEY, self.factory, text) from error
        for part in path.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise ScenarioError(KEY, self.factory, f"a callable named {path} in the module {module_name}")
        return found  # type: ignore[no-any-return]

    def _module(self, factory: Callable[..., Any], num_features: int, num_outputs: int) -> "nn.Module":
        from torch import nn

        try:
            made = factory(num_features, num_outputs)
        except Exception as error:  # whatever a user's code raises is about this key
            text = f"a callable that takes ({num_features}, {num_outputs}); it raised {type(error).__name__}: {error}"
            raise ScenarioError(KEY, self.factory, text) from error
        if not isinstance(made, nn.Module):
            raise ScenarioError(
                KEY, self.factory, f"a callable that returns a torch.nn.Module, not {type(made).__name__}"
            )
        return made
