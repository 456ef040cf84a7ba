"""What one contestant of benchmark K does: a process tree that is timed, and whose processor time is counted."""

import json
import os
import secrets
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file

from nodes.models.base import Layout
from nodes.runtime.arrays import F32

SCRIPTS = Path(__file__).parent / "peers"

MARK = "TURNCOAT_BENCHMARK"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
SAMPLE_SECONDS = 0.1
LIMIT_SECONDS = 1800.0


@dataclass(frozen=True)
class Outcome:
    """One run: when it began, when each round ended (seconds since 1970), the tree's CPU seconds, the final model."""

    began: float
    ends: Sequence[float]
    cpu_s: float
    model_D: F32

    @property
    def first_s(self) -> float:
        """Seconds from nothing to the end of the first round."""
        return self.ends[0] - self.began

    @property
    def later_s(self) -> float:
        """Median seconds of a round after the first, from end to end."""
        return statistics.median(end - start for start, end in zip(self.ends, self.ends[1:], strict=False))


@dataclass
class Meter:
    """Counts user and system seconds of every process whose environment has the mark, until `stop`.

    A parent's own account (RUSAGE_CHILDREN) lacks Ray's workers, half of it all in a short run. So `/proc` is read ten
    times a second, and what a process used after its last reading is not counted.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    _ticks: dict[str, int] = field(default_factory=dict)
    _strangers: set[str] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read; processes that are there already are never the contestant's."""
        self._strangers = _names()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop reading; return the CPU seconds of all."""
        self._done.set()
        assert self._thread is not None
        self._thread.join()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._read()

    def _read(self) -> None:
        mark = f"{MARK}={self.token}".encode()
        for pid in _names() - self._strangers:
            try:
                if pid not in self._ticks and mark not in Path("/proc", pid, "environ").read_bytes():
                    self._strangers.add(pid)
                    continue
                fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
                self._ticks[pid] = int(fields[11]) + int(fields[12])
            except OSError:  # it has ended meanwhile
                continue


def _names() -> set[str]:
    return {path.name for path in Path("/proc").iterdir()}


def timed(command: Sequence[str], home: Path) -> tuple[float, float]:
    """Run a command; return when it began (seconds since 1970) and the CPU seconds of all its processes.

    Flower leaves its files in `home`. Raises RuntimeError with the end of its output when it fails.
    """
    meter = Meter()
    environment = {**os.environ, **QUIET, "FLWR_HOME": str(home), MARK: meter.token}
    meter.start()
    began = time.time()
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECONDS
    )
    cpu_s = meter.stop()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return began, cpu_s


def turncoat(document: Mapping[str, Any], layout: Layout) -> Outcome:
    """Run a scenario with `turncoat run`; the model is put together by `layout`."""
    with TemporaryDirectory() as folder:
        scenario, out = Path(folder) / "contest.yaml", Path(folder) / "run"
        scenario.write_text(yaml.safe_dump(document))
        command = [sys.executable, "-m", "deploy", "run", str(scenario), "--quiet", "--out", str(out)]
        began, cpu_s = timed(command, Path(folder))
        events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
        ends = [datetime.fromisoformat(e["at"]).timestamp() for e in events if e["event"] == "round_done"]
        tensors = load_file(out / "model.safetensors")
        return Outcome(began, ends, cpu_s, np.concatenate([tensors[name].ravel() for name, _ in layout.tensors]))


def peer(python: Path, script: str, rows: Path, sizes: Mapping[str, int]) -> Outcome:
    """Run a script of `peers/` on the exported rows."""
    name, *options = script.split()
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.npz"
        options += [text for key, value in sizes.items() for text in (f"--{key}", str(value))]
        began, cpu_s = timed([str(python), str(SCRIPTS / name), str(rows), str(out), *options], Path(folder))
        with np.load(out) as left:
            return Outcome(began, left["ends"].tolist(), cpu_s, left["model"])
