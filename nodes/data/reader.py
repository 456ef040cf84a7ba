"""Reading csv, csv.gz and parquet, in one place, with errors that say what to do.

A file's format is told by its first bytes, not by its name. Column names lose surrounding spaces and the byte-order
mark; a name that occurs twice gets `.1`, `.2`, … as pandas does. Rows are counted from 1, without the header line.
"""

import csv
import gzip
import io
import json
import warnings
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nodes.runtime.errors import DataError

MISSING = ("", "NaN", "nan", "NA", "N/A", "null", "NULL")
_RAGGED = (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError, csv.Error)
_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowInvalid, pa.ArrowIOError, json.JSONDecodeError)


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file that can be read as a table. originals: column names as stored; columns: the same, cleaned."""

    path: str
    parquet: bool
    columns: tuple[str, ...]
    originals: tuple[str, ...]
    has_header: bool = True


def open_table(path: str, *, header: Sequence[str] = (), wanted: str = "", key: str = "data.path") -> TableFile:
    """Look at a file's columns.

    header: names of the columns of a csv that may come without a header line (of its first fields if it has fewer); a
    first line that shares no more than half of them is a row.
    wanted: what to say about a missing file: what to download, from where, and where to put it. key:
    the key of the scenario that names the file.
    Raises DataError if the file is missing, empty, truncated or of another format.
    """
    place = Path(path)
    if not place.is_file():
        raise DataError(key, path, wanted or "an existing csv, csv.gz or parquet file")
    start = first_bytes(path)
    if not start:
        raise DataError(path, "an empty file", "a csv, csv.gz or parquet file with rows")
    if start == b"PK\x03\x04":
        raise DataError(path, "a zip archive", "the csv or parquet file inside it")
    parquet = start.startswith(b"PAR1")
    if place.suffix == ".parquet" and not parquet:
        raise DataError(path, start[:4], "a parquet file, which begins with b'PAR1'")
    with _readable(path):
        originals = _parquet_columns(path) if parquet else _first_fields(path)
    names = _clean(originals)
    if parquet or not header or 2 * len(set(names) & set(header)) > len(names):
        return TableFile(path, parquet, names, originals)
    if len(names) > len(header):
        raise DataError(path, f"{len(names)} columns without header line", f"at most {len(header)} columns")
    return TableFile(path, parquet, tuple(header[: len(names)]), tuple(header[: len(names)]), has_header=False)


def first_bytes(path: str, count: int = 4) -> bytes:
    """The first bytes of a file, unpacked if it is gzipped. Raises DataError if it is corrupt."""
    with _readable(path), _open(path) as stream:
        return stream.read(count)


def read_all(path: str) -> bytes:
    """A whole file, unpacked if it is gzipped. Raises DataError if it is truncated or corrupt."""
    with _readable(path), _open(path) as stream:
        return stream.read()


def read_table(file: TableFile, columns: Sequence[str], *, text: Collection[str] = ()) -> pd.DataFrame:
    """Read only `columns`, in that order; those in `text` keep their cells as they are written.

    Raises DataError if the file is truncated, corrupt, ragged or has no rows.
    """
    with _readable(file.path):
        frame = _parquet(file, columns) if file.parquet else _csv(file, columns, text)
    if frame.empty:
        raise DataError(file.path, "no rows", "at least one row after the column names")
    return frame


def numbers(cells: "pd.Series[Any]", path: str, column: str) -> npt.NDArray[np.int64] | npt.NDArray[np.float64]:
    """Return a column as int64 or float64, missing cells as NaN. Raises DataError naming the first cell of text."""
    if pd.api.types.is_bool_dtype(cells.dtype) or pd.api.types.is_signed_integer_dtype(cells.dtype):
        if not cells.hasnans:
            return np.asarray(cells.to_numpy(), np.int64)
    elif pd.api.types.is_datetime64_any_dtype(cells.dtype):
        raise DataError(f"{path}: column {column!r}", f"times, such as {cells.iloc[0]}", "numbers (or data.drop)")
    elif not pd.api.types.is_numeric_dtype(cells.dtype):
        parsed = pd.to_numeric(cells, errors="coerce")
        bad = np.flatnonzero((parsed.isna() & cells.notna()).to_numpy())
        if len(bad):
            raise DataError(f"{path}: row {bad[0] + 1}, column {column!r}", cells.iloc[bad[0]], "a number")
        cells = parsed
    return np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan), np.float64)


def strings(cells: "pd.Series[Any]", missing: str) -> npt.NDArray[np.object_]:
    """Return a column as stripped text: whole numbers without decimals, `missing` for cells without a value."""
    if pd.api.types.is_float_dtype(cells.dtype) and (cells.dropna() % 1 == 0).all():
        cells = cells.astype("Int64")
    codes, found = pd.factorize(cells)
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in found]
    return np.array([*(name.strip() for name in names), missing], object)[codes]


def _parquet(file: TableFile, columns: Sequence[str]) -> pd.DataFrame:
    stored = dict(zip(file.columns, file.originals, strict=True))
    table = pq.read_table(file.path, columns=[stored[name] for name in columns])
    if nested := [field.name for field in table.schema if pa.types.is_nested(field.type)]:
        raise DataError(f"{file.path}: column {nested[0]!r}", "lists or records", "a single value in each cell")
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    frame.columns = pd.Index(list(columns))
    return frame


def _parquet_columns(path: str) -> tuple[str, ...]:
    """Stored names, without the index that pandas may have saved beside the columns."""
    return tuple(name for name in pq.read_schema(path).names if not name.startswith("__index_level_"))


def _csv(file: TableFile, columns: Sequence[str], text: Collection[str]) -> pd.DataFrame:
    # All columns are parsed: with `usecols` pandas would let rows with too many cells pass.
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(
            io.BytesIO(_utf8(file.path)),
            names=list(file.columns),
            header=0 if file.has_header else None,
            index_col=False,
            dtype={name: "str" for name in columns if name in text},
            keep_default_na=False,
            na_values={name: list(MISSING) for name in file.columns if name not in text},
            skipinitialspace=True,
            low_memory=False,
        )
    return frame[list(columns)]


def _utf8(path: str) -> bytes:
    """The whole text; older files (CIC-IDS2017) are in cp1252."""
    with _open(path) as stream:
        content = stream.read()
    try:
        content.decode()
    except UnicodeDecodeError:
        return content.decode("cp1252").encode()
    return content


def _first_fields(path: str) -> tuple[str, ...]:
    with _open(path) as stream:
        line = stream.readline().decode("utf-8-sig", errors="replace")
    return tuple(next(csv.reader([line]), []))


def _clean(names: Sequence[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    cleaned = []
    for name in (raw.removeprefix("\ufeff").strip() for raw in names):
        count = seen.get(name, 0)
        seen[name] = count + 1
        cleaned.append(f"{name}.{count}" if count else name)
    return tuple(cleaned)


def _open(path: str) -> IO[bytes]:
    with Path(path).open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else Path(path).open("rb")  # type: ignore[return-value]


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise DataError(path, _line(error), "a complete, intact file: it is truncated or corrupt") from error
    except UnicodeDecodeError as error:
        raise DataError(path, _line(error), "text in UTF-8 or cp1252") from error
    except _RAGGED as error:
        raise DataError(path, _line(error), "comma-separated rows, all with as many cells as the first") from error
    except OSError as error:
        raise DataError(path, _line(error), "a file that can be read") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
