"""What a run leaves behind, as values: one record per round, one row per round and participant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

State = Literal["waiting", "admitted", "refused", "lost", "late"]
Figure: TypeAlias = float | dict[str, float | None] | None


@dataclass(slots=True)
class ParticipantRow:
    """One participant in one round. Seconds by phase as its actor measured them; bytes of its update.

    accuracy_local, f1_local: its trained model on its own test rows, before aggregation; accuracy_global, f1_global:
    the new global model on the same rows. weight: its share of the aggregate; cosine: of its update to the aggregate.
    """

    round: int
    participant: int
    state: State = "waiting"
    reason: str = ""
    rows: int = 0
    steps: int = 0
    first_loss: float | None = None
    last_loss: float | None = None
    bytes: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    update_norm: float | None = None
    cosine: float | None = None
    kept: bool = False
    weight: float | None = None
    accuracy_local: float | None = None
    f1_local: float | None = None
    accuracy_global: float | None = None
    f1_global: float | None = None


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One finished round: figures of the new global model, how many took part, seconds by phase, bytes moved."""

    round: int
    figures: Mapping[str, Figure]
    participants: tuple[ParticipantRow, ...]
    seconds: Mapping[str, float]
    bytes_down: int
    bytes_up: int

    def count(self, state: State) -> int:
        """Participants that ended the round in `state`."""
        return sum(row.state == state for row in self.participants)


class Observer(Protocol):
    """Is told what happens in a run, in order; must not change it."""

    def event(self, name: str, **fields: Any) -> None:
        """Something happened, such as `round_started` or `participant_lost`."""
        ...

    def round_done(self, record: RoundRecord) -> None:
        """A round was aggregated and judged."""
        ...
