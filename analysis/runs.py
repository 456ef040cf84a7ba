"""Run directories, read back as pandas frames."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nodes.runtime.errors import InputError


@dataclass(frozen=True)
class Run:
    """A run directory, finished or interrupted."""

    directory: Path

    @property
    def summary(self) -> dict[str, Any]:
        """Final figures, digests and seconds, as in `summary.json`."""
        document: dict[str, Any] = json.loads((self.directory / "summary.json").read_text())
        return document

    def rounds(self) -> pd.DataFrame:
        """A row per round."""
        return pd.read_parquet(self.directory / "rounds.parquet")

    def participants(self) -> pd.DataFrame:
        """A row per round and participant."""
        return pd.read_parquet(self.directory / "participants.parquet")

    def truth(self) -> pd.DataFrame | None:
        """A row per round and participant, as the adversary knows it; None for a run without an adversary."""
        path = self.directory / "truth.parquet"
        return pd.read_parquet(path) if path.exists() else None

    def spans(self) -> pd.DataFrame:
        """A row per span: process, name, ids, start and end in nanoseconds since 1970, attributes as columns."""
        rows = [row for path in sorted((self.directory / "trace").glob("*.jsonl")) for row in _spans(path)]
        return pd.DataFrame(rows)


def open_run(directory: Path | str) -> Run:
    """Return the run in `directory`. Raises InputError when it holds none."""
    path = Path(directory)
    if not (path / "summary.json").exists():
        raise InputError("run", str(directory), "a run directory, which holds a summary.json")
    return Run(path)


def _spans(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            process = _attributes(resource["resource"]["attributes"]).get("service.name")
            for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                yield {
                    "process": process,
                    "name": span["name"],
                    "trace": span["traceId"],
                    "span": span["spanId"],
                    "parent": span.get("parentSpanId"),
                    "start": int(span["startTimeUnixNano"]),
                    "end": int(span["endTimeUnixNano"]),
                    **_attributes(span["attributes"]),
                }


def _attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    def plain(value: dict[str, Any]) -> Any:
        ((kind, content),) = value.items()
        return int(content) if kind == "intValue" else content

    return {pair["key"]: plain(pair["value"]) for pair in pairs}
