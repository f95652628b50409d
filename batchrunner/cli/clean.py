"""`batchrunner clean`: drop what no longer counts."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import locate, run_options


@click.command("clean", short_help="Drop outcomes that no longer count, and raw replies.")
@click.argument("run")
@run_options
@click.option("--drop-responses", is_flag=True, help="Also the raw replies, in the results too; answers stay.")
@click.option("--json", "as_json", is_flag=True, help="What was dropped as one JSON object.")
def command(run: str, drop_responses: bool, as_json: bool, **given: Any) -> int:
    """Drop from RUN what no longer counts: superseded outcomes, those of rows that left the input (as the last
    run saw it) with their replies, old commits, and files that --salvage has set aside.

    Nothing settled is lost, and what was spent stays in the books: budgets and costs are as before. Killed in
    the middle, the run is as it was, or clean.

    \b
    Examples:
      batchrunner clean runs/quickstart
      batchrunner clean jobs/nightly.toml --param ds=2026-11-20 --drop-responses
    """
    import json
    from dataclasses import asdict

    from batchrunner.assemble import clean_run

    located = locate(run, given)
    place = located.place
    cleaned, notes = clean_run(place, storage=located.storage, environ=located.environ, drop_responses=drop_responses)
    for note in notes:
        click.echo(f"batchrunner: {note}", err=True)
    if as_json:
        click.echo(json.dumps({"type": "clean", "run": str(place), **asdict(cleaned)}))
        return 0
    click.echo(
        f"{place}: dropped {cleaned.outcomes:,} outcomes and {cleaned.files:,} files; "
        f"parts {cleaned.bytes_before / 1e6:,.1f} MB before, {cleaned.bytes_after / 1e6:,.1f} MB now"
    )
    return 0
