"""The end of a run in at most twelve lines of eighty columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from batchrunner.console import text

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDTH = 80
MOST_LINES, MOST_TYPES = 12, 3


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the summary object says, for people. Commands are never cut: they are to be pasted."""
    items, now = summary["items"], summary["now"]
    lines = [_head(summary), *_why(summary)]
    lines.append(
        f"items    {items['total']:,}: {items['succeeded']:,} succeeded, {items['rejected']:,} rejected, "
        f"{items['exhausted']:,} exhausted, {items['unfinished']:,} unfinished"
    )
    lines += _failures(summary["failed_by_type"])
    if items["length"]:
        lines.append(f"length   {items['length']:,} answers were cut at max_tokens")
    lines.append(f"now      {text.count(now['sent'], 'request')} sent, {now['settled_before']:,} items settled before")
    if summary["possibly_billed"]:
        new = f" ({now['possibly_billed']:,} now)" if now["possibly_billed"] != summary["possibly_billed"] else ""
        lines.append(f"billed   {summary['possibly_billed']:,} requests went out, no answer came: maybe billed{new}")
    lines.append(_used(summary))
    lines += [f"{name:<8} {summary[name]}" for name in ("pace", "latency") if summary.get(name)]
    ready = [f"{name:<8} {command}" for name, command in summary.get("commands", {}).items()]
    lines = [text.cut(text.clean(line), WIDTH) for line in lines[: MOST_LINES - len(ready)]]
    return [*lines, *ready]


def _head(summary: Mapping[str, Any]) -> str:
    state = "finished" if summary["type"] == "finished" and summary["items"]["unfinished"] == 0 else "not finished"
    return f"{summary['name']} {state} in {text.clock(summary['now']['seconds'])}, exit {summary['exit']}"


def _why(summary: Mapping[str, Any]) -> list[str]:
    """The reason of an exit that is not 0, on three lines at most."""
    if not summary["exit"]:
        return []
    first, *rest = textwrap.wrap(text.clean(summary["reason"]), WIDTH - 9) or [""]
    return [f"why      {first}", *(f"         {line}" for line in rest[:2])]


def _failures(failed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    kinds = sorted(failed.items(), key=lambda pair: -pair[1]["count"])
    lines = [
        f"failed   {kind} {facts['count']:,}, first {facts['first_id']!r} (row {facts['first_row']:,})"
        + (f": {facts['first_error']}" if facts.get("first_error") else "")
        for kind, facts in kinds[:MOST_TYPES]
    ]
    rest = sum(facts["count"] for _, facts in kinds[MOST_TYPES:])
    return [*lines, f"failed   {rest:,} of {len(kinds) - MOST_TYPES} other types"] if rest else lines


def _used(summary: Mapping[str, Any]) -> str:
    tokens = f"{summary['prompt_tokens']:,} + {summary['completion_tokens']:,} tokens"
    cost = f"{text.money(summary['now']['cost_usd'])} now, {text.money(summary['cost_usd'])} in all"
    cap = summary.get("max_cost_usd")
    return f"used     {tokens}, {cost}" + (f" of {text.money(cap)}" if cap is not None else "")
