"""What the benchmarks share: turns, medians, tables, JSON, and scenarios without a command line."""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from coordinator.records import Observer, RoundRecord
from deploy.loading import build
from deploy.session import Session


def take_turns(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Run all in turns, so that they meet the same machine; return medians of wall and CPU seconds after a warm-up."""
    walls: dict[str, list[float]] = {name: [] for name in contestants}
    cpus: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, work in contestants.items():
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            if repeat:
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
    return {
        name: {"wall_s": statistics.median(walls[name]), "cpu_s": statistics.median(cpus[name])} for name in contestants
    }


def report(title: str, rows: Sequence[Mapping[str, Any]], out: Path | None, **facts: Any) -> None:
    """Print a table of `rows`, whose keys are the columns, and write it with the facts of this machine as JSON."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    console = Console(highlight=False)
    console.width = max(console.width, 160)
    console.print(table)
    if out is not None:
        machine = {"python": platform.python_version(), "numpy": np.__version__, "cores": os.cpu_count()}
        document = {"benchmark": title, "machine": {**machine, "platform": platform.platform()}, **facts}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({**document, "rows": list(rows)}, indent=2) + "\n")


def options(description: str | None, **defaults: int) -> argparse.Namespace:
    """Parse a benchmark's command line: `--out FILE`, and `--name N` for each default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


@dataclass
class Watch:
    """An observer and a session's progress: keeps every round's record; `between` runs after each round."""

    between: Callable[[RoundRecord], None] = lambda _: None
    records: list[RoundRecord] = field(default_factory=list)

    def stage(self, text: str) -> None:
        """Nothing to show."""

    def rounds(self, title: str, total: int) -> Observer:
        """Listen to a run."""
        return self

    def event(self, name: str, **fields: Any) -> None:
        """Nothing to keep."""

    def round_done(self, record: RoundRecord) -> None:
        """Keep the round without its participants, then do what is to be done between rounds."""
        self.records.append(replace(record, participants=()))
        self.between(record)

    def seconds(self, skip: int = 1) -> list[float]:
        """Whole seconds of each round, without the first `skip`."""
        return [sum(record.seconds.values()) for record in self.records[skip:]]


def run(document: Mapping[str, Any], watch: Watch, session: Session | None = None) -> dict[str, Any]:
    """Run a scenario into a folder that is thrown away; return its summary."""
    with tempfile.TemporaryDirectory() as folder:
        if session is not None:
            return session.run(build(document), Path(folder) / "run")
        with Session(watch) as own:
            return own.run(build(document), Path(folder) / "run")
