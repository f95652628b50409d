"""`batchrunner show`: items in full: what was sent, what came back."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import find_run, run_options


@click.command("show", short_help="Items: prompt as sent, answer, error, attempts.")
@click.argument("run")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@run_options
@click.option("--failed", is_flag=True, help="Items that did not succeed.")
@click.option("--where", metavar="EXPR", help="Items for which a polars SQL expression over the columns is true.")
@click.option("--sample", metavar="N", type=click.IntRange(min=1), help="N items, spread over the chosen ones.")
@click.option("--full", is_flag=True, help="Whole texts, and the raw reply.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per item.")
def command(run: str, ids: tuple[str, ...], **given: Any) -> int:
    """Show items of RUN: the prompt as it was sent, the answer, the error, the attempts.

    Without ID, --failed, --where or --sample: the first ten items that have an outcome.

    \b
    Examples:
      batchrunner show runs/quickstart --failed
      batchrunner show runs/quickstart pt-003 --full
      batchrunner show runs/quickstart --where "completion_tokens > 500" --sample 5
    """
    from batchrunner.cli.showing import show

    return show(find_run(run, given), ids, given)
