"""`batchrunner fsck`: check a run directory end to end."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import find_place, run_options


@click.command("fsck", short_help="Check a run directory end to end.")
@click.argument("run")
@run_options
@click.option("--json", "as_json", is_flag=True, help="What was found as one JSON object.")
def command(run: str, as_json: bool, **given: Any) -> int:
    """Read everything that RUN holds and hold it against itself; nothing is changed.

    Commits, journal and parts with their checksums and counts, every outcome that counts, and the results
    against the outcomes, value by value. Also for a run that is alive. Exit 0: sound; 10: damaged, with a
    line for each damage that says where, what, and what to do.

    \b
    Examples:
      batchrunner fsck runs/quickstart
      batchrunner fsck jobs/nightly.toml --param ds=2026-11-20 --json | jq .faults
    """
    import json
    from dataclasses import asdict

    from batchrunner.errors import RunError
    from batchrunner.report import sound_line
    from batchrunner.store import check_run

    found = find_place(run, given, results=True)
    report = check_run(found.directory)
    if as_json:
        click.echo(json.dumps({"type": "fsck", "run": str(found), "sound": not report.faults, **asdict(report)}))
        return RunError.exit_code if report.faults else 0
    for note in report.notes:
        click.echo(f"batchrunner: {note}", err=True)
    if report.faults:
        raise RunError("\n".join(report.faults))
    click.echo(sound_line(found, report))
    return 0
