"""`batchrunner merge`: the shards of a run as one table."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import job_file_options


@click.command("merge", short_help="Join finished shard runs into one results.parquet.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--out", metavar="FILE", help="Write to FILE instead of results.parquet beside the shards.")
@click.option("--overwrite", is_flag=True, help="Let it replace a file that was not merged of this job.")
@job_file_options
@click.option("--json", "as_json", is_flag=True, help="What was merged as one JSON object.")
def command(runs: tuple[str, ...], out: str | None, overwrite: bool, as_json: bool, **given: Any) -> int:
    """Join the shards of a run, made by `run --shard I/N`, into one results.parquet in input order.

    RUN is the directory that holds all shard-I-of-N, or their job file, or each shard's directory. Every shard
    has to be there once and finished, every row of the input in one of them: else exit 10 says what to
    do, or 11 while one is at work. Failed items are merged like others: each shard's exit code judged them.

    \b
    Examples:
      batchrunner merge runs/nightly
      batchrunner merge jobs/nightly.toml --param ds=2026-11-20 --json
      batchrunner merge /mnt/a/shard-0-of-2 /mnt/b/shard-1-of-2 --out nightly.parquet
    """
    import json

    from batchrunner.assemble import merge_runs
    from batchrunner.cli.memory import keep_small
    from batchrunner.cli.targets import locate_shards

    keep_small()
    located = [locate_shards(run, given) for run in runs]
    places, first = [one.place for one in located], located[0]
    summary = merge_runs(places, out=out, overwrite=overwrite, storage=first.storage, environ=first.environ)
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
        return 0
    items = summary["items"]
    click.echo(
        f"{summary['rows']:,} rows of {summary['shards']:,} shards: {items['succeeded']:,} succeeded, "
        f"{items['rejected']:,} rejected, {items['exhausted']:,} exhausted",
        err=True,
    )
    click.echo(summary["results"])
    return 0
