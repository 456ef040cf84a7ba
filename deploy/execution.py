"""One run on a pool of actors: composes coordinator and adversary, drives the rounds, leaves a run directory."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from adversary.controller import Controller
from adversary.success import aasr, rasr
from adversary.truth import TruthLog
from coordinator.driver import Driver, RunPlan
from coordinator.evaluation import Evaluator, Measure
from coordinator.grpc_link import GrpcLink
from coordinator.recorder import Recorder, nested_figures, write_json
from coordinator.records import Observer
from deploy.identity import environment
from deploy.pool import Member, Pool, pack
from deploy.prepared import Prepared
from deploy.traces import TraceFiles
from nodes.runtime.arrays import F32
from nodes.runtime.errors import NodeError
from nodes.runtime.telemetry import Telemetry

BEHAVIOUR = "scenario"
Benign = Mapping[int, float | None]
"""AASR of the benign reference by round."""


@dataclass
class Execution:
    """A prepared scenario, the directory that it fills, and who else listens."""

    prepared: Prepared
    directory: Path
    observers: Sequence[Observer] = ()
    benign: Benign | None = None
    reference: Mapping[str, Any] | None = None
    _seconds: dict[str, float] = field(default_factory=dict, init=False)
    _actors: int = field(default=0, init=False)
    _nodes: int = field(default=0, init=False)

    def run(self, pool: Pool) -> dict[str, Any]:
        """Run to the end; return the summary. What ends it early leaves all finished rounds and a summary too."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "trace").mkdir(exist_ok=True)
        scenario = self.prepared.scenario
        scenario.write(self.directory / "scenario.yaml")
        write_json(self.directory / "environment.json", environment(scenario.seed))
        recorder = Recorder(self.directory, self.prepared.about)
        recorder.event("run_started", **self.prepared.about)
        status, started = "failed", time.perf_counter()
        try:
            with asyncio.Runner() as runner:
                model_D = runner.run(self._run(pool, recorder))
            status = "done"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            recorder.close()
            self._seconds["total"] = time.perf_counter() - started
            summary = self._summary(recorder, status)
            if status == "done":
                summary["model_sha256"] = self._save_model(model_D)
            write_json(self.directory / "summary.json", summary)
        return summary

    async def _run(self, pool: Pool, recorder: Recorder) -> F32:
        prepared, scenario = self.prepared, self.prepared.scenario
        run = f"{scenario.name}-{scenario.digest()[:12]}"
        telemetry = Telemetry("coordinator", enabled=scenario.trace)
        gpus = scenario.participants.gpus_per_actor
        packing = pack(scenario.participants.count, scenario.participants.per_actor, pool.slots(gpus))
        self._actors = len(packing)
        traces = TraceFiles(self.directory / "trace", telemetry)
        with ExitStack() as stack:
            stack.callback(traces.flush)
            with self._phase("actors"):
                await pool.grow(len(packing), num_gpus=gpus)
                rows = pool.share(prepared, packing)
                members = await pool.assign([prepared.assignment(run)] * len(packing), rows)
            self._nodes = len({member.node for member in members})
            links = [
                GrpcLink(
                    member.name,
                    member.address,
                    ids,
                    run,
                    pool.credentials.coordinator,
                    scenario.rounds.timeout_seconds,
                    traces.add,
                )
                for member, ids in zip(members, packing, strict=True)
            ]
            try:
                await self._check(links, prepared)
                observers: list[Observer] = [recorder, traces, *self.observers]
                if scenario.adversary is not None:
                    observers.append(await self._turn(pool, run, members, packing, stack))
                driver = Driver(self._plan(run), links, observers, telemetry)
                with self._phase("rounds"):
                    return await driver.run()
            finally:
                await asyncio.gather(*(link.close() for link in links))
                with self._phase("release"):
                    await pool.assign([], [], traces.add)

    def _plan(self, run: str) -> RunPlan:
        prepared, scenario, data = self.prepared, self.prepared.scenario, self.prepared.data
        measures = () if scenario.adversary is None else (self._success(),)
        judge = Evaluator(
            prepared.networks(os.cpu_count() or 1), data.test, data.class_names, data.benign, data.task, measures
        )
        return RunPlan(
            run=run,
            rounds=scenario.rounds.count,
            participants=tuple(range(scenario.participants.count)),
            training_rows=[len(spec.shard) for spec in prepared.specs],
            initial_D=prepared.initial_D,
            rule=scenario.aggregation.build(),
            judge=judge,
            local_evaluation=scenario.evaluation.local,
            min_updates=scenario.rounds.min_updates,
        )

    async def _check(self, links: Sequence[GrpcLink], prepared: Prepared) -> None:
        """Registration: every actor must have built the layout that the coordinator has."""
        ours = prepared.network.layout.tensors
        for link, answer in zip(links, await asyncio.gather(*(link.describe() for link in links)), strict=True):
            theirs = tuple((tensor.name, tuple(tensor.shape)) for tensor in answer.layout)
            if theirs != ours:
                raise NodeError(f"{link.name} built the layout {theirs}, the coordinator {ours}")

    async def _turn(
        self, pool: Pool, run: str, members: Sequence[Member], packing: Sequence[Sequence[int]], stack: ExitStack
    ) -> Observer:
        adversary = self.prepared.scenario.adversary
        assert adversary is not None
        actors = {member.address: ids for member, ids in zip(members, packing, strict=True)}
        controller = Controller(run, actors, pool.credentials.adversary)
        await controller.takeover(BEHAVIOUR, self.prepared.members, adversary.plan())
        count = self.prepared.scenario.participants.count
        prepared, about = self.prepared, self.prepared.about
        truth = TruthLog(self.directory, count, prepared.members, adversary.attack.name, adversary.timetable, about)
        stack.callback(truth.close)
        return truth

    def _success(self) -> Measure:
        adversary = self.prepared.scenario.adversary
        assert adversary is not None
        objective = adversary.attack.objective()

        def measure(round: int, figures: Mapping[str, Any]) -> dict[str, float | None]:
            attacked = aasr(figures, objective)
            benign = None if self.benign is None else self.benign.get(round)
            return {"aasr": attacked, "aasr_benign": benign, "rasr": rasr(benign, attacked)}

        return measure

    def _summary(self, recorder: Recorder, status: str) -> dict[str, Any]:
        scenario, data = self.prepared.scenario, self.prepared.data
        rows = recorder.rounds
        phases = {name: sum(row[name] for row in rows) for name in _phases(rows)}
        self._seconds |= {name.removeprefix("seconds_"): seconds for name, seconds in phases.items()}
        return {
            "scenario": scenario.name,
            "scenario_sha256": scenario.digest(),
            "status": status,
            "seed": scenario.seed,
            "rounds": len(rows),
            "final": nested_figures(rows[-1], data.class_names) if rows else {},
            "model_sha256": None,
            "seconds": self._seconds,
            "participants": scenario.participants.count,
            "actors": self._actors,
            "nodes": self._nodes,
            "attackers": list(self.prepared.members),
            "data": {
                "source": data.source,
                "synthetic": data.synthetic,
                "fingerprint": data.fingerprint,
                "notes": list(data.notes),
            },
            "reference": self.reference,
        }

    def _save_model(self, model_D: F32) -> str:
        tensors = {
            name: np.ascontiguousarray(value) for name, value in self.prepared.network.layout.split(model_D).items()
        }
        save_file(tensors, self.directory / "model.safetensors", self.prepared.about)
        return hashlib.sha256(model_D.tobytes()).hexdigest()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - start


def _phases(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [name for name in rows[0] if name.startswith("seconds_")] if rows else []
