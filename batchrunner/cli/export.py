"""`batchrunner export`: the table as it stands, in a format of choice."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from batchrunner.cli.targets import find_run, run_options
from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Collection

FORMATS = "parquet, jsonl, csv or openai-batch."


@click.command("export", short_help="The table as it stands, in another format.")
@click.argument("run")
@run_options
@click.option(
    "--format",
    "kind",
    metavar="FORMAT",
    default="jsonl",
    show_default=True,
    help="parquet, jsonl, csv or openai-batch.",
)
@click.option("--to", metavar="FILE", help="Write to FILE instead of stdout; for openai-batch a directory.")
@click.option("--where", metavar="EXPR", help="Only rows for which a polars SQL expression is true.")
def command(run: str, kind: str, to: str | None, where: str | None, **given: Any) -> int:
    """Write the table of RUN as it stands, one row per input row, live or after its death.

    \b
    Examples:
      batchrunner export runs/quickstart --format csv --to answers.csv
      batchrunner export runs/quickstart --where "status = 'succeeded'" | jq .text
      batchrunner export runs/quickstart --format openai-batch --to batch
    """
    from batchrunner.cli.memory import keep_small

    keep_small()
    from batchrunner import exports
    from batchrunner.assemble import open_table
    from batchrunner.report import matching

    if kind not in exports.available():
        raise JobError(f"--format: expected one of {', '.join(exports.available())}, got {kind!r}")
    if kind == "parquet" and to is None and sys.stdout.isatty():
        raise JobError("parquet is no text for a terminal; give --to FILE")
    if kind in exports.FOLDERS and to is None:
        raise JobError(f"--format {kind}: several files; give --to DIRECTORY")
    table = open_table(find_run(run, given))
    for warning in table.warnings:
        click.echo(f"batchrunner: {warning}", err=True)
    batches = table.batches()
    if where is not None:
        batches = (
            batch for frame in matching(batches, where) for batch in frame.to_arrow().cast(table.schema).to_batches()
        )
    if kind in exports.FOLDERS and to is not None:
        rows = _write_folder(exports.load(kind), batches, table.asked(), to)
        click.echo(f"{rows:,} rows", err=True)
        click.echo(to)
        return 0
    if to is not None:
        _refuse_ours(to, table.inputs)
    with _output(to) as file:
        rows = exports.load(kind).write(batches, table.schema, file)
    if to is not None:
        click.echo(f"{rows:,} rows", err=True)
        click.echo(to)
    return 0


def _write_folder(kind: Any, batches: Any, asked: Any, to: str) -> int:
    from batchrunner.errors import StoreError

    try:
        rows: int = kind.write_folder(batches, asked, Path(to))
    except OSError as error:
        where = error.filename or to
        raise StoreError(f"{where}: {error.strerror}; name a directory with room that can be written") from error
    return rows


def _refuse_ours(to: str, inputs: Collection[Path]) -> None:
    """Raises JobError where an export would replace what a run is made of or reads."""
    target = Path(to).resolve()
    if not target.is_file():
        return
    inside = next((parent for parent in target.parents if (parent / "commits").is_dir()), None)
    if inside is not None:
        raise JobError(f"--to {to}: a file of the run in {inside}; name one elsewhere")
    if target in inputs or target.suffix == ".toml":
        what = "the run reads it" if target in inputs else "that is a job file"
        raise JobError(f"--to {to}: {what}; name another file")


@contextlib.contextmanager
def _output(to: str | None) -> Any:
    """Standard output, or a file that appears once it is whole."""
    import os

    from batchrunner.errors import StoreError

    file: BinaryIO
    if to is None:
        yield sys.stdout.buffer
        return
    target = Path(to).resolve()  # A link stays a link.
    if target.exists() and not target.is_file():
        with target.open("wb") as file:  # A device or a pipe is written to, never replaced.
            yield file
        return
    beside = target.with_name(f".{target.name}.partial")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError as error:
        raise StoreError(f"{to}: {error.strerror}; name a file in a directory with room that can be written") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()
