"""`batchrunner status`: where a run stands, live or after its death."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import find_place, run_options


@click.command("status", short_help="Where a run stands: counts, rate, time left, failures.")
@click.argument("run")
@run_options
@click.option("--json", "as_json", is_flag=True, help="The state as one JSON object.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until the run has ended.")
def command(run: str, as_json: bool, watch: bool, **given: Any) -> int:
    """Say where RUN stands, from its files alone: counts, rate, time left, failures by type.

    RUN is a run directory or its job file. A run whose process was killed is told from a live one: it is dead since
    its last heartbeat, and the same command again resumes it. The exit code is 0 whatever the state.

    \b
    Examples:
      batchrunner status runs/quickstart
      batchrunner status jobs/nightly.toml --param ds=2026-11-20 --json | jq .items
    """
    import json
    import time

    from batchrunner.assemble import state_of
    from batchrunner.console.text import clean
    from batchrunner.report import status_lines

    found = None
    while True:
        found = find_place(run, given, before=found)
        state = state_of(found.directory, alive=found.alive)
        if as_json:
            click.echo(json.dumps(state, ensure_ascii=False))
        else:
            click.echo("\n".join(clean(line) for line in status_lines(state)))
        if not watch or state["state"] != "running" or state.get("alive") is False:
            return 0
        time.sleep(2)
