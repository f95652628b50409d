"""`batchrunner report`: what came of a run, for a terminal or as one page."""

from __future__ import annotations

from typing import Any

import click

from batchrunner.cli.targets import find_place, run_options


@click.command("report", short_help="What came of a run: outcomes, pace, latency, tokens, cost; as a page too.")
@click.argument("run")
@run_options
@click.option("--by", metavar="COLUMN", help="Also what the items of each value of COLUMN came to and scored.")
@click.option("--html", "page", metavar="FILE", help="Write one self-contained page to FILE instead.")
def command(run: str, by: str | None, page: str | None, **given: Any) -> int:
    """Say what came of RUN, from its files: outcomes, failures by type, throughput against the limit, latency and time
    to the first token, tokens and cost, the slowest and some failed items, what the pacing decided.

    RUN is a run directory or its job file, at work, finished or dead. The page says the same with charts and with the
    prompts and replies of those items; it has no script, loads nothing, and needs pip install 'batchrunner[report]'.

    \b
    Examples:
      batchrunner report runs/quickstart
      batchrunner report runs/quickstart --by variant
      batchrunner report runs/quickstart --html quickstart.html
      batchrunner report jobs/nightly.toml --param ds=2026-11-20 --html /srv/www/nightly.html
    """
    from batchrunner.cli.memory import keep_small

    keep_small()
    from batchrunner.assemble import open_table, state_of
    from batchrunner.cli.pages import Target
    from batchrunner.console.text import clean
    from batchrunner.report import Artist, Compared, default_by, document, gather, grouped, report_lines

    found = find_place(run, given)
    # What keeps the page from being written is said before a large run is read.
    target, artist = (Target.checked(page), Artist()) if page is not None else (None, None)
    state = {**state_of(found.directory, alive=found.alive), "run": str(found)}
    table = open_table(found.directory)
    alone = Compared(name=str(state["name"]), place=str(found), table=table)
    settled = sum(state["items"][name] for name in ("succeeded", "rejected", "exhausted"))
    by = by or (default_by([alone]) if "scores" in table.schema.names else None)
    scored = by is not None or "scores" in table.schema.names
    groups = grouped([alone], by=by) if scored and settled else None
    told = document(gather(table, state, found.directory / "log.jsonl", texts=page is not None), groups)
    if artist is None or target is None:
        click.echo("\n".join(report_lines(told, clean)))
        return 0
    target.write(told, artist, mode=(state.get("job") or {}).get("output", {}).get("mode"))
    click.echo(page)
    return 0
