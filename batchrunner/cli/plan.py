"""`batchrunner plan`: check everything, send nothing."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.options import job_options


@click.command("plan", short_help="Check everything, send nothing.")
@click.argument("target", metavar="JOB|ROWS")
@job_options
@click.option("--diff", is_flag=True, help="What the job asks now against what the run's settled items were asked.")
@click.option("--show", "shown", type=click.IntRange(min=0), default=1, show_default=True, help="First requests shown.")
@click.option("--json", "as_json", is_flag=True, help="The plan as one JSON object.")
def command(target: str, **given: Any) -> int:
    """Check JOB end to end and say what a run would do: faults, first requests, what is settled already,
    what would be bought, tokens, cost, and time at the limits. Nothing is sent or written.

    Tokens and cost are a guess until 20 items are settled, as by `run --limit 20`, and then a range by what
    these used: it is meant to hold the real cost of the rest 19 times in 20.

    \b
    Exit status:
       0  the job can start
       2  usage, job file or input not valid
      13  settled items would be bought again

    \b
    Examples:
      batchrunner plan jobs/nightly.toml --param ds=2026-11-20
      batchrunner plan jobs/eval.toml --diff
    """
    from batchrunner.cli.planning import plan_job

    return plan_job(target, given)
