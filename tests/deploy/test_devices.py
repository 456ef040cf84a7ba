"""A device for training and the GPUs that actors reserve belong together."""

from typing import Any

import pytest

from deploy.loading import build
from deploy.prepared import make_ready
from nodes.runtime.errors import ScenarioError


def document(device: str, share: float) -> dict[str, Any]:
    return {"training": {"epochs": 1, "device": device}, "participants": {"count": 2, "gpus_per_actor": share}}


@pytest.mark.parametrize(
    ("device", "share", "text"),
    [
        ("cuda", 0, "got 0.0, expected a share of a GPU above 0 for training.device cuda"),
        ("cpu", 0.5, "got 0.5, expected 0 for training.device cpu"),
        ("cuda", 1.5, "got 1.5, expected a share of at most 1, or a whole number"),
    ],
)
def test_what_does_not_go_together_is_refused(device: str, share: float, text: str) -> None:
    with pytest.raises(ScenarioError) as error:
        make_ready(build(document(device, share)))
    assert str(error.value) == f"participants.gpus_per_actor: {text}"


@pytest.mark.parametrize("wrong", [{"device": "tpu", "share": 0}, {"device": "cpu", "share": -1}])
def test_unknown_devices_and_negative_shares_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ScenarioError):
        build(document(**wrong))


def test_the_coordinator_needs_no_gpu() -> None:
    prepared = make_ready(build(document("cuda", 0.5)))
    assert type(prepared.network).__name__ == "MLP"
