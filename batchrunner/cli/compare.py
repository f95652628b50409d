"""`batchrunner compare`: which of several runs, or of the variants of one, is ahead, and how sure that is."""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

import click

from batchrunner.cli.targets import find_place, run_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.report import Compared, Contrast

TERMINAL_CASES, ALL_CASES = 10, 50


@click.command("compare", short_help="Which run or variant is ahead: scores with intervals, cost, what differs.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@run_options
@click.option("--by", metavar="COLUMN", help="Compare the values of COLUMN: variant, model, agent_id, a kept column.")
@click.option("--baseline", metavar="NAME", help="What the others are held against; else the first.")
@click.option("--html", "page", metavar="FILE", help="Write one self-contained page to FILE instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all figures.")
def command(
    runs: tuple[str, ...], by: str | None, baseline: str | None, page: str | None, as_json: bool, **given: Any
) -> int:
    """Hold several runs against each other, or with --by the groups of items in one, from their files.

    Says which is ahead in each score and whether the interval of the difference leaves out zero, cases won, lost and
    tied, what the items of each cost and took, and the cases that differ most. A case is known by its case_id, else by
    its item_id; its repeats count as one, by their mean. Without scores, outcomes and answers are compared.

    RUN is a run directory or its job file, at work, finished or dead. One RUN without --by is compared by its column
    variant. The page needs pip install 'batchrunner[report]'.

    \b
    Exit status:
       0  compared, whatever came of it
       2  no such column or group, or the page cannot be written
      10  no run there, or a damaged one

    \b
    Examples:
      batchrunner compare runs/short runs/long
      batchrunner compare runs/triage --by variant --baseline short+8794
      batchrunner compare runs/triage --by model --html models.html
      batchrunner compare runs/monday runs/tuesday --json | jq .verdict[0]
    """
    from batchrunner.cli.memory import keep_small

    keep_small()
    from batchrunner.cli.pages import Target
    from batchrunner.console.text import clean
    from batchrunner.report import Artist, comparison_document, contrast, report_lines

    # What keeps the page from being written is said before large runs are read.
    target, artist = (Target.checked(page), Artist()) if page is not None else (None, None)
    found, mode = _open(runs, given)
    found_by = by or _grouping(found)
    most = TERMINAL_CASES if page is None and not as_json else ALL_CASES
    told = contrast(found, by=found_by, baseline=baseline, most_differing=most, texts=page is not None)
    if target is not None and artist is not None:
        target.write(comparison_document(told), artist, mode=mode)
    if as_json:
        _echo_json(told)
    else:
        click.echo(page or "\n".join(report_lines(comparison_document(told), clean)))
    return 0


def _open(targets: Sequence[str], given: Any) -> tuple[list[Compared], str | None]:
    """The runs to compare, and as private a mode for what is written as any of theirs."""
    from batchrunner.assemble import open_table, state_of
    from batchrunner.report import Compared, named

    found = [find_place(target, given) for target in targets]
    places = [str(each) for each in found]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise click.UsageError(f"{twice} is given twice; give another run, or one with --by COLUMN")
    states = [state_of(each.directory, alive=each.alive) for each in found]
    names = named([str(state["name"]) for state in states], places)
    runs = [
        Compared(name=name, place=place, table=open_table(each.directory))
        for name, place, each in zip(names, places, found, strict=True)
    ]
    modes = [(state.get("job") or {}).get("output", {}).get("mode") for state in states]
    octal = [int(mode, 8) for mode in modes if mode]
    return runs, f"{reduce(and_, octal):o}" if octal else None


def _grouping(runs: Sequence[Compared]) -> str | None:
    from batchrunner.report import default_by

    by = default_by(runs)
    if by is None and len(runs) == 1:
        hint = " ".join(runs[0].table.warnings)
        raise click.UsageError(
            "one run without a column variant: give another RUN, or --by COLUMN such as model" + (hint and f"; {hint}")
        )
    return by


def _echo_json(told: Contrast) -> None:
    import json
    from dataclasses import asdict

    from batchrunner.report import verdict

    runs = [{"name": run.name, "run": run.place} for run in told.runs]
    per_item = [{"cost_per_item_usd": group.cost_per_item_usd} for group in told.comparison.groups]
    figures = asdict(told.comparison)
    figures["groups"] = [{**group, **more} for group, more in zip(figures["groups"], per_item, strict=True)]
    first = {"type": "comparison", "runs": runs, "verdict": verdict(told.comparison)}
    click.echo(json.dumps({**first, **figures, "warnings": told.warnings}))
