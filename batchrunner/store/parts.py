"""Parts: immutable Parquet files of outcomes, made from the journal's payloads."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from batchrunner.errors import RunError
from batchrunner.schema import PART, RECORD
from batchrunner.store import files
from batchrunner.store.commits import Part
from batchrunner.store.framing import WAY_OUT
from batchrunner.store.ledger import BAD_ROW, SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchrunner.records import Outcome
    from batchrunner.store.commits import Commit

_TIMES = [field.name for field in RECORD if pa.types.is_timestamp(field.type)]
_JSON = pa.schema([(field.name, pa.int64() if field.name in _TIMES else field.type) for field in RECORD])
"""How a payload spells an outcome: times as microseconds since 1970."""

_FEW_VALUES = [
    "input_file",
    "status",
    "finish_reason",
    "provider",
    "agent_id",
    "model",
    "origin",
    "error_type",
    "epoch",
]
"""Columns worth a dictionary."""

_NAMES = RECORD.names
_values = attrgetter(*_NAMES)


def encode(outcome: Outcome) -> bytes:
    """The journal's payload for an outcome: a JSON object without what is unknown."""
    known = {name: value for name, value in zip(_NAMES, _values(outcome), strict=True) if value is not None}
    try:
        return orjson.dumps(known)
    except orjson.JSONEncodeError:
        # Paid for, so kept: what UTF-8 or 64 bits cannot hold is replaced, not refused.
        return orjson.dumps({name: _encodable(value) for name, value in known.items()})


def to_table(payloads: Sequence[bytes | memoryview], *, after: int, epoch: int) -> pa.Table:
    """Outcomes `after` + 1 and on as a table of `schema.PART`."""
    table = _from_json(payloads)
    for name in _TIMES:
        index = RECORD.get_field_index(name)
        table = table.set_column(index, RECORD.field(index), table[name].cast(RECORD.field(index).type))
    sequence = pa.array(range(after + 1, after + 1 + len(payloads)), pa.int64())
    table = table.append_column("sequence", sequence)
    return table.append_column("epoch", pa.repeat(pa.scalar(epoch, pa.int32()), len(payloads))).cast(PART)


def write(directory: Path, table: pa.Table, mode: int, *, prefix: str = "") -> Part:
    """Make a part of a table of one epoch, sorted by row."""
    numbers = pc.min_max(table["sequence"]).as_py()
    name = f"{prefix}{numbers['min']:012d}-{numbers['max']:012d}.parquet"
    order = pc.sort_indices(table, [("row", "ascending"), ("sequence", "ascending")])
    return _part(name, table, write_table(directory / name, table.take(order), mode))


def _part(name: str, table: pa.Table, size_bytes: int) -> Part:
    numbers = pc.min_max(table["sequence"]).as_py()
    return Part(
        name=name,
        rows=table.num_rows,
        first_sequence=numbers["min"],
        last_sequence=numbers["max"],
        epoch=pc.max(table["epoch"]).as_py(),
        size_bytes=size_bytes,
    )


def write_table(path: Path, table: pa.Table, mode: int) -> int:
    """Put a table under a name that nobody has taken: whole, read back, durable; give its size in bytes."""
    data = _to_parquet(table)
    beside = files.put_beside(path, data, mode)
    _check_rows(beside, table.num_rows)
    files.publish(beside, path)
    return len(data)


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A part's columns, in the order asked for. Raises RunError when the file is missing or damaged."""
    with _opened(path) as file:
        table = file.read(columns=columns, use_threads=False)
    if columns is None:
        return table
    for name in set(columns) - set(table.column_names):  # A part from before there was such a column.
        table = table.append_column(name, pa.nulls(table.num_rows, PART.field(name).type))
    return table.select(columns)


def describe(path: Path) -> Part:
    """A part by its file alone. Raises RunError unless it is a part, and whole."""
    part = _part(path.name, read(path, ["sequence", "epoch"]), path.stat().st_size)
    check(path.parent, part)
    return part


def check(folder: Path, part: Part) -> None:
    """Read a part whole. Raises RunError unless it is what its commit says."""
    path = folder / part.name
    table = read(path, PART.names)
    numbers = pc.min_max(table["sequence"]).as_py()
    said = (part.size_bytes, part.rows, part.first_sequence, part.last_sequence)
    found = (path.stat().st_size, table.num_rows, numbers["min"], numbers["max"])
    for what, one, other in zip(("bytes", "outcomes", "as first number", "as last number"), said, found, strict=True):
        if one != other:
            raise RunError(f"{path}: {other} {what}, its commit says {one}; {WAY_OUT}")
    if len(pc.unique(table["sequence"])) != table.num_rows:
        raise RunError(f"{path}: outcomes with the same number; {WAY_OUT}")
    if pc.unique(table["epoch"]).to_pylist() != [part.epoch]:
        raise RunError(f"{path}: outcomes of another epoch than {part.epoch}; {WAY_OUT}")


def unnamed(folder: Path, commit: Commit) -> list[Path]:
    """Our files beside those that the commit names: leftovers, or those of a commit that was lost."""
    named = {commit.carried, *(part.name for part in commit.parts)}
    patterns = ("[0-9]*-[0-9]*.parquet", "carried-[0-9]*.parquet", "cleaned-[0-9]*.parquet")
    ours = [path for pattern in patterns for path in folder.glob(pattern)]
    return sorted(path for path in ours if path.name not in named)


def plain_bytes(path: Path) -> int:
    """How large a part's columns are before they are compressed."""
    with _opened(path) as file:
        footer = file.metadata
    return sum(footer.row_group(number).total_byte_size for number in range(footer.num_row_groups))


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path}: {reason(error)}; {WAY_OUT}") from error


def codes(table: pa.Table) -> pa.Array:
    """The ledger's code of each outcome, from `status`, `error_type` and `attempts`."""
    status = table["status"]
    if not status.null_count and pc.all(pc.equal(status, "succeeded")).as_py():
        return pa.repeat(pa.scalar(SUCCEEDED, pa.uint8()), table.num_rows)
    known = pc.add(pc.index_in(status, pa.array(["succeeded", "rejected", "exhausted"])), 1)
    unsent = pc.or_kleene(pc.equal(table["error_type"], "bad_row"), pc.equal(table["attempts"], 0))
    bad_row = pc.and_(pc.equal(status, "rejected"), pc.fill_null(unsent, False))
    chosen = pc.if_else(bad_row, pa.scalar(BAD_ROW, pa.int32()), known)
    return pc.fill_null(chosen, 0).combine_chunks().cast(pa.uint8())


def _from_json(payloads: Sequence[bytes | memoryview]) -> pa.Table:
    if not payloads:
        return _JSON.empty_table()
    data = b"\n".join(payloads)
    try:
        # In one block: an object may not span more than two of them.
        return pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(data) + 1),
            parse_options=pj.ParseOptions(explicit_schema=_JSON, unexpected_field_behavior="error"),
        )
    except pa.ArrowInvalid:
        return _value_by_value([orjson.loads(payload) for payload in payloads])


def _value_by_value(outcomes: Sequence[dict[str, Any]]) -> pa.Table:
    # One value that does not fit its column must not keep all the others from their part.
    columns = [_column([outcome.get(field.name) for outcome in outcomes], field.type) for field in _JSON]
    return pa.Table.from_arrays(columns, schema=_JSON)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return pa.array([_fitting(value, kind) for value in values], kind)


def _fitting(value: Any, kind: pa.DataType) -> Any:
    if pa.types.is_string(kind):
        return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    try:
        return pa.scalar(value, kind).as_py()
    except (pa.ArrowException, OverflowError):
        return None


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return None
    return value


def _to_parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=[name for name in _FEW_VALUES if name in table.column_names],
        write_page_checksum=True,
    )
    return sink.getvalue()


def _check_rows(path: Path, rows: int) -> None:
    try:
        found = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        files.discard(path)
        raise OSError(errno.EIO, f"written, but cannot be read back ({reason(error)})", str(path)) from error
    if found != rows:
        files.discard(path)
        raise OSError(errno.EIO, f"{rows} outcomes written, {found} read back", str(path))


def reason(error: Exception) -> str:
    """What went wrong with a file, in one line."""
    if isinstance(error, FileNotFoundError):
        return "missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0].rstrip(".") if str(error) else "damaged"
