"""From a scenario to a finished run directory: prepare, reference, run. Every command that runs goes through here."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from threadpoolctl import threadpool_limits

from coordinator.records import Observer
from deploy.execution import Execution
from deploy.pool import Pool
from deploy.prepared import Prepared, make_ready
from deploy.reference import benign_reference
from deploy.scenario import Scenario
from nodes.runtime.errors import InputError


class Progress(Protocol):
    """Is told what a session does, for a person to see."""

    def stage(self, text: str) -> None:
        """Something begins that takes a while."""
        ...

    def rounds(self, title: str, total: int) -> Observer:
        """A run of `total` rounds begins; returns who listens to it."""
        ...


def default_directory(scenario: Scenario) -> Path:
    """A new directory under `runs/`, named by scenario and time."""
    return Path("runs") / f"{scenario.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"


def check_directory(directory: Path) -> None:
    """Raise InputError unless `directory` can be a new run's: absent, or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError("--out", str(directory), "a new or empty directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", str(directory), f"a directory that can be made ({error.strerror})") from error


def run_scenario(
    scenario: Scenario,
    directory: Path,
    progress: Progress,
    address: str | None = None,
    ready: Callable[[Prepared], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a scenario, and its benign reference first if it has an adversary; return the summary.

    `ready` hears of the prepared scenario before any actor starts. Raises InputError before anything starts, RunError
    after; KeyboardInterrupt leaves what was computed.
    """
    progress.stage("loading data")
    prepared = make_ready(scenario)
    check_directory(directory)
    ready(prepared)
    progress.stage("starting Ray")
    rounds = scenario.rounds.count
    # One thread, as in the actors: another number may add in another order.
    with threadpool_limits(1), Pool(address) as pool:

        def compute(execution: Execution) -> Mapping[str, Any]:
            execution.observers = _observers(progress, "benign reference", rounds)
            return execution.run(pool)

        execution = Execution(prepared, directory)
        if scenario.adversary is not None:
            execution.benign, execution.reference = benign_reference(prepared, compute)
        execution.observers = _observers(progress, scenario.name, rounds)
        return execution.run(pool)


def _observers(progress: Progress, title: str, rounds: int) -> Sequence[Observer]:
    progress.stage("starting actors")
    return (progress.rounds(title, rounds),)
