"""Writes a run directory while the run goes on; whatever ends it, what was computed is on disk and readable."""

import json
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from coordinator.records import ParticipantRow, RoundRecord
from nodes import participant
from nodes.runtime.tables import TableWriter

ROUNDS = "rounds.parquet"
PARTICIPANTS = "participants.parquet"
EVENTS = "events.jsonl"
FIGURES = ("accuracy", "f1", "precision", "recall", "fallout", "aasr", "aasr_benign", "rasr")
REWRITE_SHARE = 20
"""`rounds.parquet` is written anew when the last writing took less than one part in this many of the time since."""
PHASES = (*participant.PHASES, "encode")

_ARROW: dict[Any, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.string(),
    float | None: pa.float64(),
}
_PLAIN = [field for field in fields(ParticipantRow) if field.name != "seconds"]
PARTICIPANT_SCHEMA = pa.schema(
    [(field.name, _ARROW.get(field.type, pa.string())) for field in _PLAIN]
    + [(f"seconds_{phase}", pa.float64()) for phase in PHASES]
)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, indent=2) + "\n")
    part.replace(path)


class Recorder:
    """An observer that writes `rounds.parquet`, `participants.parquet` and `events.jsonl` into `directory`."""

    def __init__(self, directory: Path, about: Mapping[str, str] | None = None) -> None:
        """`directory` exists; `about`, such as the source of the data, goes into the metadata of every table."""
        self._directory = directory
        self._about = dict(about or {})
        self._rounds: list[dict[str, Any]] = []
        self._written = 0
        self._next_write = 0.0
        self._participants = TableWriter(directory / PARTICIPANTS, PARTICIPANT_SCHEMA, self._about)
        self._events = (directory / EVENTS).open("w")

    def event(self, name: str, **details: Any) -> None:
        """Append a line to `events.jsonl`."""
        record = {"at": datetime.now(UTC).isoformat(), "event": name, **details}
        self._events.write(json.dumps(record) + "\n")
        self._events.flush()

    def round_done(self, record: RoundRecord) -> None:
        """Append the round to both tables, and all of its figures to the events.

        `rounds.parquet` is readable all the time and whole after `close`; where rounds are so quick, or so many, that
        writing it anew after each would take a notable part of the run, it lags behind for a moment.
        """
        row = round_row(record)
        self._rounds.append(row)
        if time.perf_counter() >= self._next_write:
            self._write_rounds()
        self._participants.add(_participant_columns(record.participants))
        self.event("round_done", **row)

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """The rows of `rounds.parquet` so far."""
        return list(self._rounds)

    def close(self) -> None:
        """Complete the files. Safe to call twice."""
        if self._written < len(self._rounds):
            self._write_rounds()
        self._participants.close()
        if not self._events.closed:
            self._events.flush()
            os.fsync(self._events.fileno())
            self._events.close()

    def _write_rounds(self) -> None:
        start = time.perf_counter()
        part = self._directory / f"{ROUNDS}.part"
        table = _rounds_table(self._rounds).replace_schema_metadata(self._about)
        pq.write_table(table, part, compression="zstd")
        part.replace(self._directory / ROUNDS)
        self._written = len(self._rounds)
        end = time.perf_counter()
        self._next_write = end + REWRITE_SHARE * (end - start)


def class_column(stem: str, class_name: str) -> str:
    """Return the column of a figure per class: `recall_Brute_Force`."""
    return f"{stem}_{class_name.replace(' ', '_')}"


def round_row(record: RoundRecord) -> dict[str, Any]:
    """Return a round as one flat row: `recall_<class>` per class, `seconds_<phase>` per phase, counts by state."""
    row: dict[str, Any] = {"round": record.round}
    for name, value in record.figures.items():
        if isinstance(value, dict):
            stem = name.removesuffix("_per_class")
            row |= {class_column(stem, key): figure for key, figure in value.items()}
        else:
            row[name] = value
    states = ("admitted", "refused", "lost", "late")
    row["selected"] = len(record.participants)
    row |= {state: record.count(state) for state in states}  # type: ignore[arg-type]
    row |= {"bytes_down": record.bytes_down, "bytes_up": record.bytes_up}
    row |= {f"seconds_{phase}": seconds for phase, seconds in record.seconds.items()}
    row["seconds"] = sum(record.seconds.values())
    return row


def nested_figures(row: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a row of `rounds.parquet` as `summary.json` nests them; None where there is none."""

    def figure(column: str) -> float | None:
        value = row.get(column)
        return None if value is None or math.isnan(value) else value

    figures: dict[str, Any] = {name: figure(name) for name in FIGURES}
    figures["recall_per_class"] = {name: figure(class_column("recall", name)) for name in class_names}
    return figures


def _rounds_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    columns = {
        name: pa.array([row[name] for row in rows], pa.int64() if isinstance(value, int) else pa.float64())
        for name, value in rows[0].items()
    }
    return pa.table(columns)


def _participant_columns(rows: Iterable[ParticipantRow]) -> dict[str, list[Any]]:
    ordered = sorted(rows, key=lambda row: row.participant)
    columns: dict[str, list[Any]] = {field.name: [getattr(row, field.name) for row in ordered] for field in _PLAIN}
    for phase in PHASES:
        columns[f"seconds_{phase}"] = [row.seconds.get(phase) for row in ordered]
    return columns
