"""Tables of a run folder that may come from anybody: sizes are looked at before anything is unpacked.

The bounds lie far above what this program writes. Without them a file of a few kilobytes could fill the memory.
Plain files and JSON are `experiments.foreign`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from experiments.foreign import ForeignFileError, open_plain

MAX_ROWS, MAX_COLUMNS = 2_000_000, 1_000  # of a table, or lines of a file
MAX_PARQUET_BYTES = 2**29  # of one file, unpacked
MAX_TEXT_BYTES = 2**20  # of one text in a table
BATCH_ROWS = 4_000  # unpacked at once to measure them
MAX_REASON_LENGTH = 200  # characters of another program's error message
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value


def require_plain_rows(rows: Sequence[Any]) -> None:
    """Raises ForeignFileError if rows of JSON are too many, too wide, or hold more than numbers and texts."""
    names: set[str] = set()
    for row in rows:
        if not isinstance(row, dict) or any(isinstance(value, dict | list) for value in row.values()):
            raise ForeignFileError("a row is no object of numbers and texts")
        names.update(row)
    if len(rows) > MAX_ROWS or len(names) > MAX_COLUMNS:
        raise ForeignFileError(f"it has more than {MAX_ROWS:,} rows or {MAX_COLUMNS:,} columns")


def read_rows(path: Path) -> pd.DataFrame:
    """The rows of a Parquet file, after its footer and then the rows themselves were measured.

    Raises:
        ForeignFileError: it cannot be read as Parquet, or unpacks to more than is allowed.
    """
    try:
        with open_plain(path) as stream:
            _require_small(pq.ParquetFile(stream).metadata)
            stream.seek(0)
            _measure(stream)
            stream.seek(0)
            return pd.read_parquet(stream)
    except ForeignFileError as error:
        raise ForeignFileError(f"{path} is not read: {error}") from None
    except Exception as error:  # of a damaged file, pyarrow raises errors of many kinds, and not all are ValueErrors
        reason = " ".join(str(error).split())[:MAX_REASON_LENGTH]
        raise ForeignFileError(f"{path} cannot be read as Parquet: {type(error).__name__}: {reason}") from None


# ------------------------------------------------------------------------------------------------------------ Parquet
def _require_small(footer: Any) -> None:
    """By what the footer says; it may lie, so this only spares the reading of what is openly too large."""
    if footer.num_rows > MAX_ROWS:
        raise ForeignFileError(f"it has {footer.num_rows:,} rows, more than {MAX_ROWS:,}")
    if footer.num_columns > MAX_COLUMNS:
        raise ForeignFileError(f"it has {footer.num_columns:,} columns, more than {MAX_COLUMNS:,}")
    _require_bytes(
        sum(
            _unpacked_chunk(footer.row_group(group).column(column), footer.schema.column(column).length)
            for group in range(footer.num_row_groups)
            for column in range(footer.num_columns)
        )
    )


def _unpacked_chunk(chunk: Any, fixed_length: int) -> int:
    """Bytes of one column's values, which may be packed far below their width."""
    width = WIDTHS.get(chunk.physical_type, max(0, fixed_length))
    return max(0, int(chunk.total_uncompressed_size), int(chunk.num_values) * width)


def _measure(stream: BufferedReader) -> None:
    """By unpacking a few rows at a time, texts as numbers that stand for them: one text may be repeated many times."""
    schema = pq.ParquetFile(stream).schema
    leaves = [schema.column(number) for number in range(len(schema))]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    stream.seek(0)
    file, total = pq.ParquetFile(stream, read_dictionary=texts), 0
    for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        total += sum(_unpacked(column) for column in batch.columns)
        _require_bytes(total)


def _unpacked(column: pa.Array) -> int:
    """Bytes of a column's values as they will lie in memory."""
    if types.is_dictionary(column.type):
        return _repeated(column)
    if types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
        return int(column.nbytes) + _unpacked(column.flatten())
    if types.is_nested(column.type):
        raise ForeignFileError(f"a column holds {str(column.type)[:MAX_REASON_LENGTH]}")
    return int(column.nbytes)


def _repeated(column: pa.DictionaryArray) -> int:
    if not _is_text(column.dictionary.type):
        return len(column) * 16 + int(column.dictionary.nbytes)
    lengths = pc.binary_length(column.dictionary)
    longest = pc.max(lengths).as_py() or 0
    if longest > MAX_TEXT_BYTES:
        raise ForeignFileError(f"a text has {longest:,} bytes, more than {MAX_TEXT_BYTES:,}")
    return len(column) * 8 + (pc.sum(lengths.take(column.indices)).as_py() or 0)


def _is_text(kind: pa.DataType) -> bool:
    return any(
        is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    )


def _require_bytes(unpacked: int) -> None:
    if unpacked > MAX_PARQUET_BYTES:
        raise ForeignFileError(f"it unpacks to more than {MAX_PARQUET_BYTES:,} bytes")
