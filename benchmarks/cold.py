"""Benchmark F: a cold start, from nothing to the first round done, against what any Ray and torch user waits for.

Floor: `ray.init()` and one actor that imports torch. Both in fresh processes, in turns; medians. Target: 1.3.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.harness import options, report

TARGET = 1.3
FLOOR = """
import ray
ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
@ray.remote
class Actor:
    def ready(self):
        import torch
        return torch.__version__
ray.get(Actor.remote().ready.remote())
"""
SCENARIO = """
data: {name: synthetic-flows, rows: 20000}
participants: {count: 10, per_actor: auto}
training: {epochs: 1, batch_size: 512}
rounds: {count: 2}
"""


def floor() -> float:
    """Seconds from the start of Python to the actor's answer."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-c", FLOOR + "print('ready', flush=True)\ninput()"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # fmt: skip
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        seconds = time.perf_counter() - start
        process.communicate("\n")
    return seconds


def cold() -> float:
    """Seconds from the start of `turncoat run` to the first `round_done` in its events."""
    with tempfile.TemporaryDirectory() as folder:
        scenario, out = Path(folder) / "cold.yaml", Path(folder) / "run"
        scenario.write_text(SCENARIO)
        start = time.time()
        command = [sys.executable, "-m", "deploy", "run", str(scenario), "--quiet", "--out", str(out)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        for line in (out / "events.jsonl").read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "round_done":
                return datetime.fromisoformat(event["at"]).timestamp() - start
    raise RuntimeError("no round was done")


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, repeats=3)
    floors, colds = [], []
    for _ in range(chosen.repeats):
        floors.append(floor())
        colds.append(cold())
    ratio = statistics.median(c / f for c, f in zip(colds, floors, strict=True))
    row = {
        "first round s": statistics.median(colds),
        "ray + torch actor s": statistics.median(floors),
        "ratio": ratio,
        "target": TARGET,
    }
    report("F cold start", [row], chosen.out)


if __name__ == "__main__":
    main()
