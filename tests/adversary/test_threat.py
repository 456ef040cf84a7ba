import pytest

from adversary import threat
from adversary.base import ATTACKS
from nodes.runtime.errors import ScenarioError


def test_what_is_granted_may_be_more_than_is_needed() -> None:
    threat.check({"own_data"}, threat.KINDS, "label-flip")
    threat.check(frozenset(), [], "random")


def test_names_everything_that_is_missing_and_who_needs_it() -> None:
    with pytest.raises(ScenarioError) as caught:
        threat.check({"server", "colluders", "own_data"}, ["own_data"], "alie")

    assert str(caught.value) == (
        "adversary.knowledge: got ['own_data'], expected colluders and server too, which alie needs"
    )


def test_every_attack_declares_what_it_needs_and_poisons() -> None:
    for attack in ATTACKS:
        assert attack.needs <= set(threat.KINDS)
        assert attack.kind in ("data", "update")
        assert attack.summary()
