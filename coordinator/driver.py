"""Carries out what the state machine says: dispatches, collects, aggregates, evaluates, and tells the observers."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coordinator.aggregation import Diagnosis, MeanRule, Rule
from coordinator.collection import Collection
from coordinator.records import Figure, Observer, ParticipantRow, RoundRecord
from coordinator.rounds import (
    Abort,
    Aggregate,
    Aggregated,
    Begin,
    Dispatch,
    Evaluate,
    Evaluated,
    Finish,
    Instruction,
    Rounds,
)
from coordinator.sums import Sums
from coordinator.transport import Link
from nodes.runtime.arrays import F32, F64
from nodes.runtime.errors import NodeError, RunError
from nodes.runtime.sums import norms
from nodes.runtime.telemetry import Telemetry
from nodes.runtime.wire import Parcel

END_OF_STREAM_SECONDS = 5.0


@dataclass(frozen=True)
class RunPlan:
    """What the coordinator must know of a run.

    training_rows: of each participant, as registered. judge: returns the figures of a model after a round.
    """

    run: str
    rounds: int
    participants: tuple[int, ...]
    training_rows: Sequence[int]
    initial_D: F32
    rule: Rule
    judge: Callable[[int, F32], dict[str, Figure]]
    local_evaluation: bool = True
    min_updates: int = 1


@dataclass
class Driver:
    """Runs `plan` over `links`. `model_D` is the global model, new after each aggregation."""

    plan: RunPlan
    links: Sequence[Link]
    observers: Sequence[Observer]
    telemetry: Telemetry
    model_D: F32 = field(init=False)
    _seconds: dict[str, float] = field(default_factory=dict, init=False)
    _state: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.model_D = self.plan.initial_D
        self._machine = Rounds(self.plan.rounds, self.plan.participants, self.plan.min_updates)
        self._matrix_ND = np.empty((len(self.plan.participants), self.model_D.size), dtype=np.float32)
        self._parcel = Parcel(self.model_D)
        self._collection = Collection(0, (), self._matrix_ND)

    async def run(self) -> F32:
        """Run all rounds; return the final model. Raises RunError when the state machine aborts."""
        with self.telemetry.span("run", {"fl.run": self.plan.run}):
            instructions = self._machine.handle(Begin())
            while True:
                (instruction,) = instructions
                if isinstance(instruction, Finish):
                    return self.model_D
                if isinstance(instruction, Abort):
                    self._tell("aborted", round=instruction.round, reason=instruction.reason)
                    raise RunError(f"{instruction.reason}: {self._first_reason()}")
                assert isinstance(instruction, Dispatch)
                with self.telemetry.span("round", {"fl.run": self.plan.run, "fl.round": instruction.round}):
                    instructions = await self._round(instruction)

    async def _round(self, dispatch: Dispatch) -> list[Instruction]:
        self._seconds = {}
        (instruction,) = await self._collect(dispatch)
        if not isinstance(instruction, Aggregate):
            return [instruction]
        diagnosis = await self._aggregate(instruction)
        (evaluate,) = self._machine.handle(Aggregated(instruction.round))
        assert isinstance(evaluate, Evaluate)
        figures = await self._evaluate(evaluate)
        with self._phase("record"):
            self._diagnose(instruction.participants, diagnosis)
            rows = tuple(self._collection.rows.values())
        bytes_up = sum(row.bytes for row in rows)
        record = RoundRecord(dispatch.round, figures, rows, self._seconds, self._bytes_down(), bytes_up)
        for observer in self.observers:
            observer.round_done(record)
        return self._machine.handle(Evaluated(dispatch.round))

    async def _collect(self, dispatch: Dispatch) -> list[Instruction]:
        self._tell("round_started", round=dispatch.round, participants=len(dispatch.participants))
        sums = self._sums(dispatch.participants)
        self._collection = collection = Collection(dispatch.round, dispatch.participants, self._matrix_ND, sums)
        selected = frozenset(dispatch.participants)
        with self._phase("collect"):
            tasks = [
                asyncio.create_task(collection.train(link, self._parcel))
                for link in self.links
                if not selected.isdisjoint(link.participants)
            ]
            carried = {id for link in self.links for id in link.participants}
            for id in sorted(selected - carried):
                collection.turn_away(id, "lost", "no actor carries it")
            try:
                while not (instructions := self._machine.handle(await collection.events.get())):
                    pass
                await asyncio.wait(tasks, timeout=END_OF_STREAM_SECONDS)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        for row in collection.rows.values():
            if row.state in ("lost", "refused"):
                self._tell(f"participant_{row.state}", round=row.round, participant=row.participant, reason=row.reason)
        return instructions

    async def _aggregate(self, instruction: Aggregate) -> Diagnosis:
        with self._phase("aggregate"):
            aggregate_D, diagnosis = await asyncio.to_thread(self._apply, instruction.participants)
            with np.errstate(over="ignore", invalid="ignore"):  # an attack may drive the model to infinity
                self.model_D = self.model_D + aggregate_D
            self._parcel = Parcel(self.model_D)
        return diagnosis

    def _sums(self, selected: Sequence[int]) -> Sums | None:
        rule = self.plan.rule
        if not isinstance(rule, MeanRule) or not rule.partial_sums:
            return None
        return Sums(selected, rule, self.model_D.size, lambda id: self.plan.training_rows[id])

    def _apply(self, admitted: Sequence[int]) -> tuple[F32, Diagnosis]:
        collection = self._collection
        if collection.sums is not None:
            return collection.mean(admitted)
        updates_ND, weights_N = collection.stacked(admitted), collection.weights(admitted)
        aggregate_D, self._state, diagnosis = self.plan.rule.apply(updates_ND, weights_N, self._state)
        norms_N = np.array([collection.rows[id].update_norm for id in admitted])
        for id, cosine in zip(admitted, cosines(updates_ND, norms_N, aggregate_D), strict=True):
            collection.rows[id].cosine = float(cosine)
        return aggregate_D, diagnosis

    async def _evaluate(self, instruction: Evaluate) -> dict[str, Figure]:
        with self._phase("evaluate"):
            figures = await asyncio.to_thread(self.plan.judge, instruction.round, self.model_D)
        if self.plan.local_evaluation:
            with self._phase("local_evaluation"):
                await asyncio.gather(*(self._evaluate_on(link) for link in self.links))
        return figures

    async def _evaluate_on(self, link: Link) -> None:
        rows = self._collection.rows
        ids = [id for id in link.participants if rows[id].state == "admitted"]
        if not ids:
            return
        try:
            answers = await link.evaluate(ids, self._parcel)
        except NodeError as error:
            self._tell("local_evaluation_failed", actor=link.name, reason=str(error))
            return
        for id, figures in answers.items():
            rows[id].accuracy_global, rows[id].f1_global = figures.get("accuracy"), figures.get("f1")

    def _diagnose(self, admitted: Sequence[int], diagnosis: Diagnosis) -> None:
        for i, id in enumerate(admitted):
            row: ParticipantRow = self._collection.rows[id]
            row.kept = bool(diagnosis.kept_N[i])
            row.weight = None if diagnosis.weights_N is None else float(diagnosis.weights_N[i])

    def _bytes_down(self) -> int:
        reached = sum(any(id in self._collection.rows for id in link.participants) for link in self.links)
        return reached * self.model_D.nbytes * (2 if self.plan.local_evaluation else 1)

    def _first_reason(self) -> str:
        return next((row.reason for row in self._collection.rows.values() if row.reason), "no reason was given")

    def _tell(self, name: str, **fields: Any) -> None:
        for observer in self.observers:
            observer.event(name, **fields)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with self.telemetry.span(name):
            yield
        self._seconds[name] = time.perf_counter() - start


def cosines(updates_ND: F32, norms_N: F64, aggregate_D: F32) -> F64:
    """Return the cosine of each update to the aggregate, [N], given the updates' norms; nan where either is zero.

    >>> cosines(np.float32([[3, 4]]), np.array([5.0]), np.float32([3, 4]))
    array([1.])
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        dots_N = np.einsum("nd,d->n", updates_ND, aggregate_D, dtype=np.float64)
        result_N: F64 = dots_N / (norms_N * norms(aggregate_D[None])[0])
    return result_N
