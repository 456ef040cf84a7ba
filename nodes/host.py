"""What an actor carries: participants, one network that they take turns with, and who is taken over. No I/O."""

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from opentelemetry.context import Context

from nodes.behaviour import Behaviour
from nodes.participant import Assignment, Participant, Trained
from nodes.runtime.arrays import F32
from nodes.runtime.errors import InputError, RunError
from nodes.runtime.telemetry import Telemetry


class UnknownParticipantError(RunError):
    """A participant that this actor does not carry, or a run that is not assigned to it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A participant whose training raised; the others go on."""

    participant: int
    reason: str


class Host:
    """The participants of one run on one actor. One thread at a time trains or evaluates."""

    def __init__(self, assignment: Assignment, telemetry: Telemetry) -> None:
        self.assignment = assignment
        self.network = assignment.network()
        self.participants = {spec.id: Participant(spec, assignment) for spec in assignment.participants}
        self.size = self.network.layout.size
        self._scratch_D = np.empty(self.size, dtype=np.float32)
        self._telemetry = telemetry

    def find(self, ids: Sequence[int]) -> list[Participant]:
        """Return the participants called `ids`. Raises UnknownParticipantError naming those not carried here."""
        unknown = sorted(set(ids) - self.participants.keys())
        if unknown:
            raise UnknownParticipantError(f"participants {unknown} are not carried by this actor")
        return [self.participants[id] for id in ids]

    def train(
        self,
        round: int,
        ids: Sequence[int],
        model_D: F32,
        should_stop: Callable[[], bool] = lambda: False,
        parent: Context | None = None,
    ) -> Iterator[Trained | Failed]:
        """Train the named participants one after the other; a `Trained` is valid until the next is asked for.

        Ends early, after the participant in hand, once `should_stop` says so. `parent` is the caller's span.
        """
        for participant in self.find(ids):
            attributes: dict[str, str | int | float] = {"fl.round": round, "fl.participant": participant.spec.id}
            with self._telemetry.span("participant", attributes, parent):
                result = self._train_one(participant, round, model_D, should_stop)
            if should_stop():
                return
            yield result

    def _train_one(
        self, participant: Participant, round: int, model_D: F32, should_stop: Callable[[], bool]
    ) -> Trained | Failed:
        try:
            return participant.train(self.network, model_D, self._scratch_D, round, should_stop)
        except Exception as error:  # noqa: BLE001 - whatever a behaviour or model raises is that participant's failure
            return Failed(participant.spec.id, f"{type(error).__name__}: {error}")

    def evaluate(self, ids: Sequence[int], model_D: F32) -> dict[int, dict[str, float]]:
        """Figures of `model_D` on each named participant's own test rows."""
        return {p.spec.id: p.figures(self.network, model_D) for p in self.find(ids)}

    def assume(self, name: str, ids: Sequence[int], factory: str, parameters: str) -> None:
        """Install behaviour `name` on the named participants.

        `factory` is `module:callable`, `parameters` its JSON. Raises InputError when it cannot be built or the name is
        taken.
        """
        participants = self.find(ids)
        if any(name in p.behaviours for p in participants):
            raise InputError("behaviour", name, "a name that is not installed yet")
        behaviours = [_build(factory, parameters) for _ in participants]
        for participant, behaviour in zip(participants, behaviours, strict=True):
            participant.behaviours[name] = behaviour

    def release(self, name: str) -> None:
        """Remove behaviour `name` from every participant. Raises InputError when nobody has it."""
        holders = [p for p in self.participants.values() if name in p.behaviours]
        if not holders:
            raise InputError("behaviour", name, "an installed behaviour")
        for participant in holders:
            del participant.behaviours[name]


def _build(factory: str, parameters: str) -> Behaviour:
    module, _, attribute = factory.partition(":")
    try:
        make: Callable[[Mapping[str, Any]], Behaviour] = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs somebody's code
        raise InputError("factory", factory, f"an importable module:callable ({error})") from error
    try:
        return make(json.loads(parameters))
    except ValueError as error:
        raise InputError("parameters", parameters, f"what {factory} takes ({error})") from error
    except TypeError as error:
        raise InputError("factory", factory, f"a callable that takes the parameters ({error})") from error
