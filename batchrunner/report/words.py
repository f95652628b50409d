"""A run and its items, written for people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batchrunner.store import Report

BRIEF = 400
"""Characters of a text that are shown unless all are asked for."""
STILL_S = 30.0
"""A live run's heartbeat is hardly older."""


def status_lines(state: Mapping[str, Any]) -> Iterator[str]:
    """What `status` prints of the summary object with its manifest fields."""
    items, now = state["items"], state["now"]
    done = items["succeeded"] + items["rejected"] + items["exhausted"]
    share = 100 * done / items["total"] if items["total"] else 100.0
    yield f"{state['name']}: {life_line(state)}"
    yield f"items    {done:,}/{items['total']:,} ({share:.1f} %), {items['unfinished']:,} unfinished"
    yield f"         {items['succeeded']:,} succeeded, {items['rejected']:,} rejected, {items['exhausted']:,} exhausted"
    for kind, facts in sorted(state["failed_by_type"].items(), key=lambda pair: -pair[1]["count"])[:6]:
        yield f"failed   {kind} {facts['count']:,}, first {facts['first_id']!r} (row {facts['first_row']:,})"
    if state["state"] == "running" and state.get("alive") is False:
        yield f"flight   {state.get('in_flight', 0):,} were in flight and may be paid twice"
    elif state["state"] == "running":
        left = f", about {state['left_s']:,.0f} s left" if state.get("left_s") else ""
        yield f"rate     {state.get('per_minute') or 0:,.0f} rpm, {state.get('in_flight', 0):,} in flight{left}"
    yield from _pacing(state)
    cost = "unknown" if state["cost_usd"] is None else f"${state['cost_usd']:,.4f}"
    yield f"used     {state['prompt_tokens']:,} + {state['completion_tokens']:,} tokens, cost {cost}"
    if state["possibly_billed"]:
        yield f"billed   {state['possibly_billed']:,} requests went out and brought no answer: maybe billed"
    yield f"now      {now['sent']:,} sent in {now['seconds']:,.0f} s, {now['settled_before']:,} settled before"
    if state.get("next"):
        yield f"next     {state['next']}"


def _pacing(state: Mapping[str, Any]) -> Iterator[str]:
    """What the lanes keep to, what holds them up, and the items that take long."""
    for lane in (state.get("lanes") or [])[:3]:
        rate, by = lane.get("requests_per_minute"), lane.get("requests_by")
        kept = f"{rate:,.0f} rpm {by}, " if rate else ""
        paused = f", paused {lane['paused_s']:,.0f} s" if lane["paused_s"] else ""
        yield f"lane     {lane['lane']}: {kept}{lane['slots']:,} slots, {lane['throttled']:,} x 429{paused}"
    for note in state.get("notes") or [] if state["state"] == "running" else []:
        yield f"note     {note}"
    for name, key in (("oldest", "oldest"), ("slowest", "slowest")):
        found = [f"{slow['item_id']!r} {slow['seconds']:,.1f} s" for slow in state.get(key) or []]
        if found:
            yield f"{name:<8} {', '.join(found)}" + (" in flight" if key == "oldest" else "")


def life_line(state: Mapping[str, Any]) -> str:
    """The state and whose it is; a running one that nobody runs any more is dead."""
    known, alive = state["state"], state.get("alive", True)
    owner = f"pid {state.get('pid')} on {state.get('host')}"
    if known == "running" and not alive:
        since = _clock(state.get("dead_since"))
        return f"dead since {since} ({owner}); give the same command again"
    if known == "running":
        still = (state.get("heartbeat_age_s") or 0) >= STILL_S
        hint = f"; no heartbeat since {_clock(state['heartbeat_at'])}: it writes its results, or hangs" if still else ""
        return f"running ({owner}{hint})"
    again = "; a process has taken it up again" if state.get("alive") else ""
    if state.get("exit") is None:
        return f"{known}{again}"
    return f"{known}, exit {state['exit']}" + (f": {state['reason']}" if state["exit"] else "") + again


def _clock(moment: str | None) -> str:
    """The local time of day, with its date where that is another one."""
    if moment is None:
        return "its start"
    then = datetime.fromisoformat(moment).astimezone()
    return f"{then:%H:%M}" if then.date() == datetime.now(UTC).astimezone().date() else f"{then:%Y-%m-%d %H:%M}"


def sound_line(run: object, report: Report) -> str:
    """What `fsck` prints of a run that is sound."""
    results = "none yet" if report.results is None else f"{report.results:,} rows"
    sealed = report.outcomes - report.journaled
    return (
        f"{run}: sound; {report.finished:,} of {report.rows:,} rows have an outcome, {sealed:,} outcomes in "
        f"{report.parts:,} parts and {report.journaled:,} in the journal, results: {results}"
    )


def item_lines(row: Mapping[str, Any], sent: str | None, *, full: bool, clean: Callable[..., str]) -> Iterator[str]:
    """One item: what was asked, what came back, what it took."""
    line = f", {row['input_file']}" + (f" line {row['input_line']}" if row["input_line"] is not None else "")
    yield clean(f"=== {row['item_id']} (row {row['row']}{line}): {row['status'] or 'no outcome yet'}")
    yield clean(
        f"model    {row['model'] or '-'}  agent {row['agent_id'] or '-'}  attempts {row['attempts'] or 0}{_took(row)}"
    )
    if row["error_type"]:
        status = f" ({row['http_status']})" if row["http_status"] else ""
        yield clean(f"error    {row['error_type']}{status}: {row['error']}")
    tokens = [row[name] for name in ("prompt_tokens", "completion_tokens")]
    if any(value is not None for value in tokens):
        yield clean(f"tokens   {tokens[0] or 0:,} + {tokens[1] or 0:,}, finish_reason {row['finish_reason']}")
    if row.get("scores"):
        yield clean(f"scores   {'  '.join(f'{name} {_score(value)}' for name, value in row['scores'].items())}")
    answer = None if row.get("turns") else row["text"]
    for name, value in (("sent", sent), ("reasoning", row["reasoning"]), ("answer", answer)):
        if value:
            yield f"--- {name}"
            yield clean(_cut(value, full), keep_lines=True)
    for number, answer in enumerate(json.loads(row.get("turns") or "[]"), 1):
        yield f"--- answer to turn {number}"
        yield clean(_cut(answer.get("text") or answer.get("refusal") or "", full), keep_lines=True)
    for name in ("tool_calls", "refusal", "sent_changes", "warnings", "response" if full else "refusal"):
        if row.get(name):
            yield clean(f"--- {name}: {_cut(str(row[name]), full)}")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _took(row: Mapping[str, Any]) -> str:
    parts = []
    if row["latency_s"] is not None:
        parts.append(f"{row['latency_s']:.2f} s")
    if row["cost_usd"]:
        parts.append(f"${row['cost_usd']:.6f}")
    if isinstance(row["finished_at"], datetime):
        parts.append(row["finished_at"].astimezone(UTC).isoformat(timespec="seconds"))
    return "  " + "  ".join(parts) if parts else ""


def _cut(text: str, full: bool) -> str:
    return text if full or len(text) <= BRIEF else f"{text[:BRIEF]}… ({len(text):,} characters; --full shows all)"
