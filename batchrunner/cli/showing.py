"""Choosing items and printing them, for `show`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from batchrunner.assemble import open_table
from batchrunner.console.text import clean
from batchrunner.report import item_lines, matching

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST = 10
MOST = 1_000


def show(directory: Path, ids: tuple[str, ...], given: Mapping[str, Any]) -> int:
    """Print the chosen items of the run in `directory`. Exit code 0, or 2 when an ID is not in it."""
    table = open_table(directory)
    for warning in table.warnings:
        click.echo(f"batchrunner: {warning}", err=True)
    chosen = _chosen(table, ids, given)
    for row in chosen:
        sent = table.sent(row["row"])
        if given["as_json"]:
            click.echo(json.dumps({**row, "sent": sent}, default=str, ensure_ascii=False))
        else:
            click.echo("\n".join(item_lines(row, sent, full=given["full"], clean=clean)))
    missing = set(ids) - {row["item_id"] for row in chosen}
    for item_id in sorted(missing):
        click.echo(f"batchrunner: no item {item_id!r} in {directory}", err=True)
    if not chosen and not ids:
        click.echo("no such items")
    return 2 if missing else 0


def _chosen(table: Any, ids: tuple[str, ...], given: Mapping[str, Any]) -> list[dict[str, Any]]:
    conditions = []
    if ids:
        conditions.append("item_id in (" + ", ".join(_quoted(item_id) for item_id in ids) + ")")
    if given["failed"]:
        conditions.append("status in ('rejected', 'exhausted')")
    if given["where"]:
        conditions.append(f"({given['where']})")
    if not conditions:
        conditions.append("status is not null")
    whole = bool(given["sample"]) or bool(ids) or given["failed"] or bool(given["where"])
    most = MOST if whole else FIRST
    rows: list[dict[str, Any]] = []
    for frame in matching(table.batches(), " and ".join(conditions)):
        rows += frame.head(most - len(rows)).to_dicts() if not given["sample"] else frame.to_dicts()
        if len(rows) >= most and not given["sample"]:
            break
    return _spread(rows, given["sample"]) if given["sample"] else rows


def _spread(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """`number` of the rows, evenly spread over their order."""
    if len(rows) <= number:
        return rows
    step = len(rows) / number
    return [rows[int(index * step)] for index in range(number)]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
