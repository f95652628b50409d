"""Comparing runs, for `compare` and `report --by`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchrunner.assemble import Table, open_table
from batchrunner.cli.memory import keep_small
from batchrunner.cli.pages import Target
from batchrunner.cli.targets import Found, find_place
from batchrunner.console.text import clean
from batchrunner.evaluate import Comparison, Run, compare, gather_cases
from batchrunner.report import Artist, contrast, report_lines, texts_of
from batchrunner.store import read_manifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.report import Texts

VARIANT = "variant"


def compare_runs(named: Sequence[str], given: Mapping[str, Any]) -> int:
    """Compare and print, or write the page. Raises JobError, RunError, StoreError."""
    keep_small()
    # What keeps the page from being written is said before a large run is read.
    target, artist = (Target.checked(given["page"]), Artist()) if given["page"] else (None, None)
    found = [find_place(name, given) for name in named]
    names = short_names([str(place) for place in found])
    tables = [open_table(place.directory) for place in found]
    by = given["by"] or _own_groups(tables)
    comparison = compare(gather_cases(runs_of(tables, names), by), baseline=given["baseline"])
    if given["as_json"]:
        click.echo(json.dumps(_object(comparison, [str(place) for place in found]), ensure_ascii=False))
        return 0
    warnings = [warning for table in tables for warning in table.warnings]
    if target is None or artist is None:
        document = contrast(comparison, names=names, texts={}, warnings=warnings)
        click.echo("\n".join(report_lines(document, clean)))
        return 0
    document = contrast(comparison, names=names, texts=_texts(tables, comparison), warnings=warnings)
    target.write(document, artist, mode=_mode(found))
    click.echo(given["page"])
    return 0


def compare_groups(table: Table, by: str) -> Comparison:
    """The groups of one run. Raises JobError."""
    return compare(gather_cases(runs_of([table], ["the run"]), by))


def runs_of(tables: Sequence[Table], names: Sequence[str]) -> list[Run]:
    return [
        Run(name=name, columns=table.schema.names, batches=table.batches())
        for name, table in zip(names, tables, strict=True)
    ]


def short_names(places: Sequence[str]) -> list[str]:
    """The last step of each path, or the whole paths where that does not tell them apart."""
    names = [Path(place).name or place for place in places]
    return names if len(set(names)) == len(names) else list(places)


def _own_groups(tables: Sequence[Table]) -> str | None:
    """What groups the items where nobody says it: the variants of a single run. Raises a usage error."""
    if len(tables) > 1:
        return None
    if VARIANT in tables[0].schema.names:
        return VARIANT
    raise click.UsageError("one run without variants: give another RUN to compare it with, or --by COLUMN")


def _mode(found: Sequence[Found]) -> str | None:
    """As private as the most private of the results."""
    manifests = (read_manifest(place.directory / "run.json") or {} for place in found)
    modes = [(manifest.get("job") or {}).get("output", {}).get("mode") for manifest in manifests]
    return min((mode for mode in modes if mode), default=None)


def _texts(tables: Sequence[Table], comparison: Comparison) -> dict[tuple[int, int], Texts]:
    wanted = {item for case in comparison.differing for item in case.items.values()}
    return {
        (number, row): told
        for number, table in enumerate(tables)
        for row, told in texts_of(table, [row for run, row in wanted if run == number]).items()
    }


def _object(comparison: Comparison, runs: Sequence[str]) -> dict[str, Any]:
    return {"type": "comparison", "runs": list(runs), **dataclasses.asdict(comparison)}
