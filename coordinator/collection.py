"""One round's collection: rows for the updates, admission, and the news for the state machine."""

import asyncio
from collections.abc import Sequence

import numpy as np

from coordinator.admission import Admission
from coordinator.records import ParticipantRow
from coordinator.rounds import Event, ParticipantLost, UpdateArrived
from coordinator.transport import Arrival, Inbox, Link
from nodes.runtime.arrays import F32, F64
from nodes.runtime.errors import NodeError, WireError


class Collection:
    """Collects the updates of `participants` (sorted) in one round into the first rows of `matrix_ND`."""

    def __init__(self, round: int, participants: Sequence[int], matrix_ND: F32) -> None:
        self.round = round
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.rows = {id: ParticipantRow(round, id) for id in participants}
        self._matrix_ND = matrix_ND
        self._position = {id: i for i, id in enumerate(participants)}
        self._admission = Admission(round, participants, matrix_ND.shape[1])

    async def train(self, link: Link, ids: Sequence[int], model_D: F32) -> None:
        """Have one actor train `ids`; whoever of them delivers nothing is reported lost."""
        reason = "its actor delivered no update"
        try:
            await link.train(self.round, ids, model_D, _ActorInbox(self, frozenset(ids)))
        except (NodeError, WireError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a fault in one link must not pass for an actor's silence
            reason = f"{link.name}: {type(error).__name__}: {error}"
        finally:
            for id in ids:
                if self.rows[id].state == "waiting":
                    self._turn_away(id, "lost", reason)

    def row_for(self, arrival: Arrival, actors_own: frozenset[int]) -> F32 | None:
        """See `Inbox.row_for`; an actor may deliver for its own participants only."""
        if arrival.participant not in actors_own:
            return None
        reason = self._admission.open(arrival)
        if reason is None:
            view: F32 = self._matrix_ND[self._position[arrival.participant]]
            return view
        if self.rows[arrival.participant].state == "waiting":
            self._turn_away(arrival.participant, "lost" if arrival.failure else "refused", reason)
        return None

    def received(self, arrival: Arrival) -> None:
        """See `Inbox.received`."""
        row = self.rows[arrival.participant]
        row.rows, row.steps, row.seconds = arrival.rows, arrival.steps, arrival.seconds
        row.first_loss, row.last_loss = arrival.first_loss, arrival.last_loss
        row.bytes = arrival.length * 4
        row.accuracy_local, row.f1_local = arrival.figures.get("accuracy"), arrival.figures.get("f1")
        reason = self._admission.close(self._matrix_ND[self._position[arrival.participant]])
        if reason is not None:
            self._turn_away(arrival.participant, "refused", reason)
            return
        row.state = "admitted"
        self.events.put_nowait(UpdateArrived(self.round, arrival.participant))

    def stacked(self, admitted: Sequence[int]) -> tuple[F32, F64]:
        """Return the updates [N, D] and training rows [N] of `admitted` (sorted)."""
        positions = [self._position[id] for id in admitted]
        weights_N = np.array([self.rows[id].rows for id in admitted], dtype=np.float64)
        if positions == list(range(len(positions))):
            return self._matrix_ND[: len(positions)], weights_N
        return self._matrix_ND[positions], weights_N

    def _turn_away(self, id: int, state: str, reason: str) -> None:
        row = self.rows[id]
        row.state = "refused" if state == "refused" else "lost"
        row.reason = reason
        self.events.put_nowait(ParticipantLost(self.round, id))


class _ActorInbox(Inbox):
    """The part of a collection that one actor may write to."""

    def __init__(self, collection: Collection, own: frozenset[int]) -> None:
        self._collection = collection
        self._own = own

    def row_for(self, arrival: Arrival) -> F32 | None:
        return self._collection.row_for(arrival, self._own)

    def received(self, arrival: Arrival) -> None:
        self._collection.received(arrival)
