"""The oracle for aggregation rules."""

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def byzfl() -> ModuleType:
    """byzfl's aggregators alone: importing the whole package needs a torchvision that fits torch to the build."""
    if "byzfl" not in sys.modules:
        spec = find_spec("byzfl")
        assert spec is not None
        package = ModuleType("byzfl")
        package.__path__ = spec.submodule_search_locations or []
        sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators.aggregators")
