"""`batchrunner redo`: buy chosen items again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import EXIT_STATUS

if TYPE_CHECKING:
    from batchrunner.cli.notice import Notice


@click.command("redo", short_help="Buy the matching items again.", epilog=EXIT_STATUS)
@click.argument("run")
@click.option("--where", metavar="EXPR", required=True, help="A polars SQL expression over the columns.")
@click.option("--set", "changes", metavar="KEY=VALUE", multiple=True, help="What is sent differently this time.")
@click.option("--param", "params", metavar="NAME=VALUE", multiple=True, help="Where RUN is a job file.")
@click.option("--out", metavar="DIR", help="Where RUN is a job file.")
@click.option("--runs-dir", metavar="DIR", help="Where RUN is a job file.")
@click.option("--shard", metavar="I/N", help="Where RUN is a job file.")
@click.option("--simulate", is_flag=True, help="The simulated run of a job file.")
@click.option("--env-file", metavar="FILE", help="Read variables from FILE; the environment wins.")
@click.option("--max-failed", metavar="N|P%", default="0", show_default=True, help="Failed items that still exit 0.")
@click.option("--wait-lock", metavar="TIME", help="Wait for another process on this run.")
@click.option("--grace", metavar="TIME", default="25s", show_default=True, help="After a signal, for those in flight.")
@click.option("--json", "as_json", is_flag=True, help="Events and the summary as JSON lines on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.option("--progress-every", metavar="TIME", default="30s", show_default=True, help="Between progress lines.")
@click.option("--notify", metavar="COMMAND", envvar="BATCHRUNNER_NOTIFY", help="Gets the summary on its stdin.")
@click.pass_obj
def command(notice: Notice, /, run: str, where: str, changes: tuple[str, ...], **given: Any) -> int:
    """Send the items of RUN again for which EXPR is true, settled or not.

    RUN is a run directory or its job file. What --set changes is noted in the column sent_changes and
    does not change what counts as settled: the next plain run buys none of these items again. A worse
    outcome never replaces a success.

    \b
    Examples:
      batchrunner redo runs/eval --where "finish_reason = 'length'" --set request.max_tokens=4096
      batchrunner redo jobs/eval.toml --where "error_type = 'content_filter'" --set request.model=gpt-4o
    """
    from batchrunner.cli.memory import collect_seldom, keep_small

    notice.signals.install()
    keep_small()
    from batchrunner.cli.redoing import redo

    collect_seldom()
    return redo(run, where, changes, given, notice)
