"""`batchrunner run`: start or resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.options import EXIT_STATUS, OWN_CODES, job_options


def _free_code(context: click.Context, parameter: click.Parameter, code: int | None) -> int | None:
    """A code that says nothing else: a scheduler has to be able to tell it from all others."""
    if code in OWN_CODES:
        raise click.BadParameter(f"{code} has a meaning already; choose one that --help does not list, such as 99")
    return code


if TYPE_CHECKING:
    from batchrunner.cli.notice import Notice


@click.command("run", short_help="Start or resume a job.", epilog=EXIT_STATUS)
@click.argument("target", metavar="JOB|ROWS")
@job_options
@click.option("--deadline", metavar="TIME", help="Drain after 90s, 30m, 2h ...")
@click.option("--max-failed", metavar="N|P%", default="0", show_default=True, help="Failed items that still exit 0.")
@click.option(
    "--skip-exit-code",
    metavar="N",
    type=click.IntRange(1, 255),
    callback=_free_code,
    help="Exit N, not 0, when the whole input has no rows.",
)
@click.option("--strict", is_flag=True, help="A bad row is a fault of the input: exit 2, nothing sent.")
@click.option("--fresh", is_flag=True, help="Rename the old run to DIR.1 and start anew; nothing is deleted.")
@click.option("--accept-change", is_flag=True, help="Buy settled items again where the job now asks something else.")
@click.option("--salvage", is_flag=True, help="Go on with a damaged run: ask again what cannot be read.")
@click.option("--overwrite", is_flag=True, help="Let results.parquet replace a file that is not this run's.")
@click.option(
    "--state-dir", metavar="DIR", envvar="BATCHRUNNER_STATE_DIR", help="A new run's lock and journal, on a local disk."
)
@click.option(
    "--lease", metavar="FILE", envvar="BATCHRUNNER_LEASE", help="Share the rates with this host's other runs on FILE."
)
@click.option(
    "--disk-wait",
    metavar="TIME",
    default="60s",
    show_default=True,
    help="For room on a full disk, or a bucket's answer.",
)
@click.option("--flush-every", metavar="TIME", help="A part for outcomes so old.  [default: 30s on a bucket]")
@click.option("--wait-lock", metavar="TIME", help="Wait for another process on this run.")
@click.option("--grace", metavar="TIME", default="25s", show_default=True, help="After a signal, for those in flight.")
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Where the work is done."
)
@click.option("--workers", metavar="N", type=click.IntRange(1, 1000), help="With ray: as many shards, an actor each.")
@click.option(
    "--ray-address",
    metavar="HOST:PORT",
    envvar="BATCHRUNNER_RAY_ADDRESS",
    help="A cluster's; else one is started here.",
)
@click.option("--json", "as_json", is_flag=True, help="Events and the summary as JSON lines on stdout.")
@click.option("--quiet", is_flag=True, help="No progress and no summary.")
@click.option(
    "--progress-every",
    metavar="TIME",
    default="30s",
    show_default=True,
    envvar="BATCHRUNNER_PROGRESS_EVERY",
    help="Between two progress lines where there is no terminal.",
)
@click.option(
    "--metrics-file", metavar="FILE", envvar="BATCHRUNNER_METRICS_FILE", help="For Prometheus's textfile collector."
)
@click.option("--notify", metavar="COMMAND", envvar="BATCHRUNNER_NOTIFY", help="Gets the summary on its stdin.")
@click.pass_obj
def command(notice: Notice, /, target: str, **given: Any) -> int:
    """Start JOB, or resume it: the same command line again buys only what is missing.

    JOB is a .toml job file; ROWS a .jsonl, .parquet or .csv file whose every row is a request, or -
    for standard input. The last line on stdout is the path of results.parquet, or of the run's
    directory while it is not finished.

    \b
    Examples:
      batchrunner run jobs/quickstart.toml --simulate
      batchrunner run prompts.jsonl --provider tess --agent-id 8794 --rpm 60
      batchrunner run jobs/nightly.toml --param ds=2026-11-20 --deadline 6h --max-failed 1%
    """
    from batchrunner.cli.memory import collect_seldom, keep_small

    notice.signals.install()
    keep_small()
    from batchrunner.cli.running import run_job

    collect_seldom()
    return run_job(target, given, notice)
