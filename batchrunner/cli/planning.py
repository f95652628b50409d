"""Printing a plan, for `plan`."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import click

from batchrunner import spec
from batchrunner.assemble import Invocation, plan
from batchrunner.cli.options import load_job, place_of
from batchrunner.console.text import brief, clean, count, money

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CHANGED = 13
MOST_SHOWN = 2_000
NAMES_SHOWN = 300


def plan_job(target: str, given: Mapping[str, Any]) -> int:
    """Print the plan of TARGET. Returns 13 when settled items would be bought again, else 0."""
    asked = load_job(target, given)
    place = place_of(asked, given)
    invocation = Invocation(
        directory=place.directory,
        address=place.address,
        shard=spec.parse_shard(given["shard"]) if given.get("shard") else None,
        limit=given.get("limit"),
        simulate=bool(given.get("simulate")),
    )
    found = plan(asked.job, invocation, environ=asked.environ, shown=given["shown"])
    if given["as_json"]:
        click.echo(json.dumps(found, ensure_ascii=False, default=str))
    else:
        lines = [*_diff(found)] if given["diff"] else [*_lines(found)]
        click.echo("\n".join(clean(line, keep_lines=True) for line in lines))
    return CHANGED if found["bought_again"] else 0


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    items = found["items"]
    yield f"{found['name']}: {found['provider']} at {found['base_url']}, {', '.join(found['keys'])}"
    yield f"run      {found['run']}"
    yield f"items    {items['total']:,}: {items['settled']:,} settled, {items['to_buy']:,} to buy{_in_turns(found)}"
    if found["where"]:
        yield f"where    {found['where']['rows']:,} of the {found['where']['looked_at']:,} rows that were looked at"
    if found["matrix"]:
        yield from _matrix(found["matrix"])
    reused, duplicates = items.get("reused", 0), items.get("duplicates", 0)
    if reused or duplicates:
        yield f"free     {reused:,} answers of earlier runs, {duplicates:,} items that ask what others ask"
    if found["bad_rows"]["unreadable"] or found["bad_rows"]["first"]:
        bad = found["bad_rows"]
        yield f"bad rows {bad['cannot_be_asked']:,} of {bad['looked_at']:,} open rows cannot be asked"
        yield from (f"         {fault}" for fault in found["bad_rows"]["first"])
    if items["to_buy"]:
        yield from _estimate(found)
    if found["renamed"]:
        yield "columns  " + ", ".join(f"{old} becomes {new}" for old, new in found["renamed"].items())
    yield from (f"warning  {warning}" for warning in found["warnings"])
    if found["changed"]:
        yield f"changed  {', '.join(change['key'] for change in found['changed'])}"
        yield f"         {found['bought_again']:,} settled items would be bought again (plan --diff shows more)"
    for request in found["requests"]:
        yield f"--- POST {request['path']}"
        yield request["body"][:MOST_SHOWN]
        yield from (f"warning  {warning}" for warning in request["warnings"])


def _matrix(matrix: Mapping[str, Any]) -> Iterator[str]:
    variants, repeats = matrix["variants"], matrix["repeats"]
    times = f", each {repeats:,} times" if repeats > 1 else ""
    names = textwrap.shorten(", ".join(variants), NAMES_SHOWN, placeholder=" ...")
    yield f"matrix   every row in {len(variants):,} variants{times}: {names}"


def _in_turns(found: Mapping[str, Any]) -> str:
    requests = found["estimate"]["requests"]
    return f" in {requests:,} requests" if requests != found["items"]["to_buy"] else ""


def _estimate(found: Mapping[str, Any]) -> Iterator[str]:
    estimate = found["estimate"]
    by = estimate["calibrated_by"]
    how = f"calibrated by {count(by, 'settled item')}" if by else "a guess until some are settled"
    if by and not estimate["calibrated_near"]:
        how = f"guessed from {count(by, 'item')} of other length"
    tokens = f"{estimate['tokens_at_least']:,} to {estimate['tokens_at_most']:,}"
    yield f"tokens   about {estimate['prompt_tokens']:,} + {estimate['completion_tokens']:,} ({tokens})"
    if estimate["cost_usd"] is None:
        yield f"         {how}"
        yield 'cost     unknown: the price is not known; give it in [prices."MODEL"]'
    else:
        cost = f"{money(estimate['cost_usd_at_least'])} to {money(estimate['cost_usd_at_most'])}"
        yield f"cost     about {money(estimate['cost_usd'])} ({cost}), {how}"
    if found["time_s"] is not None:
        yield f"time     {brief(found['time_s'])} at the limits"


def _diff(found: Mapping[str, Any]) -> Iterator[str]:
    if not found["changed"]:
        yield "the job asks what the run's settled items were asked"
    for change in found["changed"]:
        yield f"{change['key']}"
        yield f"  - {_short(change['before'])}"
        yield f"  + {_short(change['now'])}"
    if found["changed"]:
        cost = f", for about {money(found['bought_again_usd'])}" if found["bought_again_usd"] else ""
        yield f"{found['bought_again']:,} settled items would be bought again{cost}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
