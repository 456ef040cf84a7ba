"""From scenarios to finished run directories: prepare, reference, run. Every command that runs goes through here."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

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


def make_directory(directory: Path) -> None:
    """Make a new run's directory. Raises InputError when it is in use or cannot be made."""
    check_directory(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", str(directory), f"a directory that can be made ({error.strerror})") from error


class Session:
    """Runs scenarios one after the other on one pool of actors, which starts with the first run.

    `address` is a Ray cluster's; None starts one in this process. Leaving the session ends the actors.
    """

    def __init__(self, progress: Progress, address: str | None = None) -> None:
        self._progress = progress
        self._address = address
        self._stack = ExitStack()
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._pool = None

    def run(
        self, scenario: Scenario, directory: Path, ready: Callable[[Prepared], None] = lambda _: None
    ) -> dict[str, Any]:
        """Run a scenario, and its benign reference first if it has an adversary; return the summary.

        `ready` hears of the prepared scenario before any actor starts. Raises InputError before anything starts,
        RunError after; KeyboardInterrupt leaves what was computed.
        """
        self._progress.stage("loading data")
        prepared = make_ready(scenario)
        make_directory(directory)
        ready(prepared)
        execution = Execution(prepared, directory)
        # One thread, as in the actors: another number may add in another order.
        with threadpool_limits(1):
            if scenario.adversary is not None:
                execution.benign, execution.reference = benign_reference(prepared, self._reference)
            return self._execute(execution, scenario.name)

    def _reference(self, execution: Execution) -> Mapping[str, Any]:
        return self._execute(execution, "benign reference")

    def _execute(self, execution: Execution, title: str) -> dict[str, Any]:
        if self._pool is None:
            self._progress.stage("starting Ray")
            self._pool = self._stack.enter_context(Pool(self._address))
        self._progress.stage("starting actors")
        execution.observers = (self._progress.rounds(title, execution.prepared.scenario.rounds.count),)
        return execution.run(self._pool)


def run_scenario(
    scenario: Scenario,
    directory: Path,
    progress: Progress,
    address: str | None = None,
    ready: Callable[[Prepared], None] = lambda _: None,
) -> dict[str, Any]:
    """Run one scenario in a session of its own; see `Session.run`."""
    with Session(progress, address) as session:
        return session.run(scenario, directory, ready)
