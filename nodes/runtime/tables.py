"""Parquet tables that grow while a run goes on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP = 2048


class TableWriter:
    """Appends rows to a parquet file, in row groups large enough to compress; readable once closed."""

    def __init__(self, path: Path, schema: pa.Schema, about: Mapping[str, str]) -> None:
        """`about` goes into the file's metadata."""
        schema = schema.with_metadata(dict(about))
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._pending: dict[str, list[Any]] = {name: [] for name in schema.names}

    def add(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Append rows, given as one sequence per column of the schema."""
        for name, values in self._pending.items():
            values.extend(columns[name])
        if len(next(iter(self._pending.values()))) >= ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Complete the file. Safe to call twice."""
        if self._writer.is_open:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.table(self._pending, schema=self._schema))
        for values in self._pending.values():
            values.clear()
