"""Behaviours that tests install; named to `Assume` as `fake_behaviours:make`."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nodes.behaviour import Behaviour, Context
from nodes.data.shard import Shard
from nodes.runtime.arrays import F32

ENTERED = threading.Event()
GO_ON = threading.Event()


@dataclass
class Fake:
    """flip: swaps the labels. scale: multiplies the update. raise: fails. wait: holds training until GO_ON."""

    parameters: Mapping[str, Any]

    def transform_data(self, shard: Shard, context: Context) -> Shard:
        if "raise" in self.parameters:
            raise RuntimeError(self.parameters["raise"])
        if self.parameters.get("wait"):
            ENTERED.set()
            GO_ON.wait(20)
        return replace(shard, labels_B=1 - shard.labels_B) if self.parameters.get("flip") else shard

    def transform_update(self, update_D: F32, context: Context) -> F32:
        if "scale" in self.parameters:
            update_D *= self.parameters["scale"]
        return update_D


def make(parameters: Mapping[str, Any]) -> Behaviour:
    """Raises ValueError for a parameter that it does not know."""
    if unknown := set(parameters) - {"flip", "scale", "raise", "wait"}:
        raise ValueError(f"unknown {sorted(unknown)}")
    return Fake(parameters)
