"""What every attack offers: its configuration in a scenario, what it must know, what it does, how it is measured."""

from typing import ClassVar, Literal

from adversary.schedule import Schedule
from adversary.success import Objective
from adversary.threat import Knowledge
from nodes.behaviour import Behaviour
from nodes.models.base import Task
from nodes.runtime.components import Component, Registry


class AttackConfig(Component):
    """An attack of a scenario; a new one is one file in `adversary/attacks`, imported in actors too: numpy only."""

    needs: ClassVar[frozenset[Knowledge]]
    """What it must know."""
    kind: ClassVar[Literal["data", "update"]]
    """What it poisons: the rows trained on, or the update sent."""

    def check(self, class_names: tuple[str, ...], benign: int | None, task: Task) -> None:
        """Raise ScenarioError when the attack makes no sense on these classes. `benign` indexes class_names."""

    def build(self, schedule: Schedule) -> Behaviour:
        """Return what a participant that is taken over does; it looks its rate up by `context.round`."""
        raise NotImplementedError

    def objective(self) -> Objective:
        """Return the figure by which the attack's success is measured."""
        raise NotImplementedError


ATTACKS: Registry[AttackConfig] = Registry("attack", "adversary.attacks")
