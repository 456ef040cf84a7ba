"""One round's collection: rows for the updates, admission, and the news for the state machine."""

import asyncio
from collections.abc import Sequence

import numpy as np

from coordinator.admission import Admission
from coordinator.aggregation import Diagnosis
from coordinator.records import ParticipantRow, State
from coordinator.rounds import Event, ParticipantLost, UpdateArrived
from coordinator.sums import Sums
from coordinator.transport import Arrival, Inbox, Link, Order
from nodes.runtime.arrays import F32, F64
from nodes.runtime.errors import NodeError, WireError
from nodes.runtime.sums import norms, not_finite
from nodes.runtime.wire import Parcel


class Collection:
    """Collects one round's updates of `participants` (sorted) into rows of `matrix_ND`, or their sums into `sums`."""

    def __init__(self, round: int, participants: Sequence[int], matrix_ND: F32, sums: Sums | None = None) -> None:
        self.round = round
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.rows = {id: ParticipantRow(round, id) for id in participants}
        self.sums = sums
        self._matrix_ND = matrix_ND
        self._position = {id: i for i, id in enumerate(participants)}
        self._admission = Admission(round, participants, matrix_ND.shape[1])

    async def train(self, link: Link, model: Parcel) -> None:
        """Have one actor train its part; whoever of it delivers nothing is reported lost."""
        selected = tuple(id for id in link.participants if id in self.rows)
        order = Order(self.round, selected) if self.sums is None else self.sums.order(self.round, link)
        reason = "its actor delivered no update"
        try:
            await link.train(order, model, _ActorInbox(self, order))
        except (NodeError, WireError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 - a fault in one link must not pass for an actor's silence
            reason = f"{link.name}: {type(error).__name__}: {error}"
        finally:
            for id in selected:
                if self.rows[id].state == "waiting":
                    self.turn_away(id, "lost", reason)

    def open(self, arrival: Arrival, *, summed: bool) -> bool:
        """Look at an announced update; return whether it may come, or count in a sum if `summed`."""
        row = self.rows[arrival.participant]
        reason = self._admission.open(arrival, summed=summed)
        if reason is not None:
            if row.state == "waiting":
                self.turn_away(arrival.participant, arrival.turned_away, reason)
            return False
        row.rows, row.steps, row.seconds = arrival.rows, arrival.steps, arrival.seconds
        row.first_loss, row.last_loss = arrival.first_loss, arrival.last_loss
        row.accuracy_local, row.f1_local = arrival.figures.get("accuracy"), arrival.figures.get("f1")
        row.update_norm = arrival.norm
        return True

    def row_for(self, participant: int) -> F32:
        """The matrix row of a participant."""
        view: F32 = self._matrix_ND[self._position[participant]]
        return view

    def close(self, participant: int) -> None:
        """Look at a complete update: admit it, or refuse it."""
        update_D = self.row_for(participant)
        row = self.rows[participant]
        row.bytes = update_D.nbytes
        reason = self._admission.close(update_D)
        if reason is None:
            row.update_norm = float(norms(update_D[None])[0])
            self._admit(participant)
        else:
            self.turn_away(participant, "refused", reason)

    def close_sum(self, participants: Sequence[int], sum_D: F32) -> None:
        """Look at a complete sum: admit those who are in it, or refuse them."""
        reason = not_finite(sum_D)
        for id in participants:
            self.rows[id].bytes = sum_D.nbytes // len(participants)
            if reason is None:
                self._admit(id)
            else:
                self.turn_away(id, "refused", f"the sum that it is in is {reason}")

    def stacked(self, admitted: Sequence[int]) -> F32:
        """Return the updates [N, D] of `admitted` (sorted); a view where they fill the first rows."""
        positions = [self._position[id] for id in admitted]
        if positions == list(range(len(positions))):
            return self._matrix_ND[: len(positions)]
        return self._matrix_ND[positions]

    def weights(self, admitted: Sequence[int]) -> F64:
        """Return the training rows [N] of `admitted`."""
        return np.array([self.rows[id].rows for id in admitted], dtype=np.float64)

    def mean(self, admitted: Sequence[int]) -> tuple[F32, Diagnosis]:
        """Return the mean over `admitted` (sorted) from partial sums."""
        assert self.sums is not None
        weights = {id: self.sums.weight(self.rows[id].rows) for id in admitted}
        weights_N = np.array(list(weights.values()))
        return self.sums.mean(self.stacked, weights), Diagnosis(weights_N > 0, weights_N / weights_N.sum())

    def turn_away(self, id: int, state: State, reason: str) -> None:
        """A participant will not count in this round, as `refused` or `lost`."""
        row = self.rows[id]
        row.state, row.reason = state, reason
        self.events.put_nowait(ParticipantLost(self.round, id))

    def _admit(self, id: int) -> None:
        self.rows[id].state = "admitted"
        self.events.put_nowait(UpdateArrived(self.round, id))


class _ActorInbox(Inbox):
    """The part of a collection that one actor may write to; what it sends for others is thrown away."""

    def __init__(self, collection: Collection, order: Order) -> None:
        self._collection = collection
        self._alone = frozenset(order.participants)
        self._summed = frozenset(order.everyone) - self._alone
        self._in_sums: set[int] = set()

    def row_for(self, arrival: Arrival) -> F32 | None:
        if arrival.participant in self._summed:
            if self._collection.open(arrival, summed=True):
                self._in_sums.add(arrival.participant)
        elif arrival.participant in self._alone and self._collection.open(arrival, summed=False):
            return self._collection.row_for(arrival.participant)
        return None

    def received(self, arrival: Arrival) -> None:
        self._collection.close(arrival.participant)

    def row_for_sum(self, block: int, participants: Sequence[int], size: int) -> F32 | None:
        sums = self._collection.sums
        if sums is None or not participants or not self._in_sums.issuperset(participants):
            return None
        row_D = sums.row_for(block, participants)
        return row_D if row_D is not None and size == row_D.size else None

    def received_sum(self, block: int, participants: Sequence[int]) -> None:
        assert self._collection.sums is not None
        self._collection.close_sum(participants, self._collection.sums.received(block, participants))
