"""`batchrunner reparse`: the columns of a run derived anew, without a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.targets import run_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@click.command("reparse", short_help="Derive columns and scores anew from the answers there are.")
@click.argument("run")
@run_options
@click.option("--json", "as_json", is_flag=True, help="What came of it as one JSON object.")
def command(run: str, as_json: bool, **given: Any) -> int:
    """Hold the answers of RUN against what its job now expects, score them as it now says, and make its results anew;
    nothing is sent. What a judge's run has said since is taken in.

    An answer that was not valid and is so now succeeds. One that was taken stays so, with empty columns where it is
    not valid any more; `redo` can buy it again.

    \b
    Examples:
      batchrunner reparse runs/triage
      batchrunner reparse jobs/triage.toml --set expect.prefix=label_
    """
    import json

    from batchrunner.assemble import Invocation, reparse
    from batchrunner.cli.memory import keep_small
    from batchrunner.cli.options import load_job, place_of
    from batchrunner.cli.redoing import call_of
    from batchrunner.cli.targets import find_place
    from batchrunner.spec import parse_shard

    keep_small()
    found = find_place(run, given)
    target, options = call_of(run, found, given)
    asked = load_job(target, options)
    place = place_of(asked, options)
    invocation = Invocation(
        directory=place.directory,
        address=place.address,
        shard=parse_shard(options["shard"]) if options.get("shard") else None,
    )
    summary = reparse(asked.job, invocation, environ=asked.environ)
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
        return 0
    for line in _lines(summary):
        click.echo(line, err=True)
    click.echo(summary["results"] or summary["run"])
    return 0


def _lines(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["expects"]:
        yield f"{summary['revived']:,} answers are valid now, {summary['not_valid']:,} that were taken are not any more"
    if summary["scores"]:
        yield f"scores made anew: {', '.join(summary['scores'])}"
    yield from summary["notes"]
