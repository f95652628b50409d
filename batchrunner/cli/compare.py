"""`batchrunner compare`: runs, or the variants of one, held against each other."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import run_options


@click.command("compare", short_help="Runs, or variants of one, against each other: scores, cost, what differs.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@run_options
@click.option("--by", metavar="COLUMN", help="Group the items by a column of the results, such as variant or model.")
@click.option("--baseline", metavar="NAME", help="What the others are held against; the first one unless told.")
@click.option("--html", "page", metavar="FILE", help="Write one self-contained page to FILE instead.")
@click.option("--json", "as_json", is_flag=True, help="All figures as one JSON object.")
def command(runs: tuple[str, ...], by: str | None, page: str | None, as_json: bool, **given: Any) -> int:
    """Hold RUNs against each other, or the groups of one by a column: outcomes, mean scores with 95 % bootstrap
    intervals, cases won, lost and tied against the baseline, cost, tokens and latency, and the cases that differ.

    RUN is a run directory or its job file, at work, finished or dead. Cases are paired by `case_id`, else by
    `item_id`; repeats of a case count as one, by their mean. Without --by the variants of a single run with a
    matrix are compared.

    \b
    Examples:
      batchrunner compare runs/prompt-matrix
      batchrunner compare runs/prompt-matrix --by agent_id --baseline 8794
      batchrunner compare runs/monday runs/tuesday --html week.html
    """
    from batchrunner.cli.comparing import compare_runs

    return compare_runs(runs, {**given, "by": by, "page": page, "as_json": as_json})
