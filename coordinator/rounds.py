"""The round as a pure state machine: events in, instructions out. No I/O, no clock, no randomness of its own."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Phase = Literal["new", "collecting", "aggregating", "evaluating", "done"]


@dataclass(frozen=True, slots=True)
class Begin:
    """Start the first round."""


@dataclass(frozen=True, slots=True)
class UpdateArrived:
    """An update was admitted."""

    round: int
    participant: int


@dataclass(frozen=True, slots=True)
class ParticipantLost:
    """A participant will deliver nothing in this round: its actor is gone, it failed, or its update was refused."""

    round: int
    participant: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The round's time is over; whoever is missing is late."""

    round: int


@dataclass(frozen=True, slots=True)
class Aggregated:
    """The new global model is there."""

    round: int


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The new global model was judged and recorded."""

    round: int


Event: TypeAlias = Begin | UpdateArrived | ParticipantLost | DeadlinePassed | Aggregated | Evaluated


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send the global model to `participants`, and collect their updates."""

    round: int
    participants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Aggregate the updates of `participants`, sorted by id; give up on those still out."""

    round: int
    participants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evaluate:
    """Judge the global model, and record the round."""

    round: int


@dataclass(frozen=True, slots=True)
class Finish:
    """All rounds are done."""


@dataclass(frozen=True, slots=True)
class Abort:
    """The run cannot go on."""

    round: int
    reason: str


Instruction: TypeAlias = Dispatch | Aggregate | Evaluate | Finish | Abort


@dataclass(slots=True)
class Rounds:
    """State of a run of `num_rounds` rounds in which every one of `participants` takes part.

    >>> rounds = Rounds(num_rounds=1, participants=(0, 1))
    >>> rounds.handle(Begin())
    [Dispatch(round=1, participants=(0, 1))]
    >>> rounds.handle(UpdateArrived(round=1, participant=1)), rounds.handle(UpdateArrived(round=1, participant=0))
    ([], [Aggregate(round=1, participants=(0, 1))])
    """

    num_rounds: int
    participants: tuple[int, ...]
    min_updates: int = 1
    round: int = field(default=0, init=False)
    phase: Phase = field(default="new", init=False)
    _waiting: set[int] = field(default_factory=set, init=False)
    _arrived: set[int] = field(default_factory=set, init=False)

    def handle(self, event: Event) -> list[Instruction]:
        """Return what to do next. An event of another round or phase is out of date and changes nothing."""
        if isinstance(event, Begin):
            return self._open() if self.phase == "new" else []
        if event.round != self.round:
            return []
        if self.phase == "collecting":
            return self._collect(event)
        if self.phase == "aggregating" and isinstance(event, Aggregated):
            self.phase = "evaluating"
            return [Evaluate(self.round)]
        if self.phase == "evaluating" and isinstance(event, Evaluated):
            return self._open()
        return []

    def _open(self) -> list[Instruction]:
        if self.round == self.num_rounds:
            self.phase = "done"
            return [Finish()]
        self.round += 1
        self.phase = "collecting"
        self._waiting = set(self.participants)
        self._arrived = set()
        return [Dispatch(self.round, tuple(sorted(self.participants)))]

    def _collect(self, event: Event) -> list[Instruction]:
        if isinstance(event, UpdateArrived) and event.participant in self._waiting:
            self._waiting.discard(event.participant)
            self._arrived.add(event.participant)
        elif isinstance(event, ParticipantLost):
            self._waiting.discard(event.participant)
        elif isinstance(event, DeadlinePassed):
            self._waiting.clear()
        return [] if self._waiting else self._close()

    def _close(self) -> list[Instruction]:
        if len(self._arrived) < self.min_updates:
            self.phase = "done"
            reason = f"{len(self._arrived)} updates admitted in round {self.round}, at least {self.min_updates} needed"
            return [Abort(self.round, reason)]
        self.phase = "aggregating"
        return [Aggregate(self.round, tuple(sorted(self._arrived)))]
