"""The sections of one run's report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.report import numbers
from batchrunner.report.sections import (
    Bar,
    Bars,
    Card,
    Document,
    Figure,
    Grid,
    Pace,
    Section,
    Spreads,
)
from batchrunner.report.words import life_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.report.digest import Digest
    from batchrunner.report.figures import Shown, Sums
    from batchrunner.report.sections import Tone
    from batchrunner.report.spread import Spread
    from batchrunner.report.timeline import Timeline

MOST_ROWS = 20
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
TONES: dict[str, Tone] = {"succeeded": "good", "rejected": "bad", "exhausted": "warn", "unfinished": ""}
NOT_SENT = "nothing was sent"


def document(digest: Digest) -> Document:
    """The report of a run."""
    state = digest.state
    return Document(
        title=str(state["name"]),
        state=life_line(state),
        tone="good" if state.get("exit") == 0 and state["state"] == "finished" else "warn",
        figures=[*_headline(digest)],
        facts=[*_facts(digest)],
        sections=[
            _outcomes(digest),
            _failures(digest),
            _throughput(digest),
            _latency(digest),
            _used(digest),
            _items(digest),
            _decisions(digest),
        ],
    )


def _headline(digest: Digest) -> Iterator[Figure]:
    counts, total, whole = digest.counts, digest.total, digest.timeline
    failed = counts["rejected"] + counts["exhausted"]
    yield Figure(
        name="succeeded", value=f"{counts['succeeded']:,}", note=f"of {numbers.count(total, 'item')}", tone="good"
    )
    yield Figure(name="failed", value=f"{failed:,}", note=numbers.share(failed, total), tone="bad" if failed else "")
    if counts["unfinished"]:
        yield Figure(name="unfinished", value=f"{counts['unfinished']:,}", note="run again to go on", tone="warn")
    cost = digest.state["cost_usd"]
    yield Figure(name="cost", value=numbers.money(cost), note=_each(digest))
    yield Figure(name="tokens", value=numbers.short(_tokens(digest)), note="in and out")
    used = whole.used("requests")
    pace = f"{used:.0%} of the limit used".replace("%", " %") if used else "requests a minute"
    yield Figure(name="rpm", value=f"{_rate(whole):,.0f}", note=pace)
    latency = digest.figures.latency
    yield Figure(
        name="latency",
        value=numbers.seconds(latency.quantile(0.5)),
        note=f"p95 {numbers.seconds(latency.quantile(0.95))}",
    )


def _facts(digest: Digest) -> Iterator[tuple[str, str]]:
    state, job = digest.state, digest.state.get("job") or {}
    yield "run", str(state["run"])
    provider = job.get("provider") or {}
    if provider:
        yield "provider", " ".join(str(provider[name]) for name in ("kind", "base_url") if provider.get(name))
    if state.get("input"):
        yield "input", f"{(job.get('input') or {}).get('path', '-')}, {state['input'].get('rows', 0):,} rows"
    if job.get("params"):
        yield "params", ", ".join(f"{name} {value}" for name, value in job["params"].items())
    if state.get("labels"):
        yield "labels", ", ".join(f"{name} {value}" for name, value in state["labels"].items())
    history = state.get("history") or []
    if history:
        yield "began", str(history[0]["began_at"])
        yield "ended", f"{history[-1]['ended_at']}, {numbers.count(len(history), 'invocation')}"
    for warning in digest.warnings:
        yield "note", warning


def _tokens(digest: Digest) -> int:
    return int(digest.state["prompt_tokens"] + digest.state["completion_tokens"])


def _each(digest: Digest) -> str:
    cost, done = digest.state["cost_usd"], sum(digest.figures.statuses.values())
    return (
        f"{numbers.money(cost / done)} an item"
        if cost is not None and done
        else "price not known"
        if cost is None
        else ""
    )


def _rate(whole: Timeline) -> float:
    return whole.attempts / whole.seconds * 60 if whole.seconds else 0.0


def _outcomes(digest: Digest) -> Section:
    counts, figures = digest.counts, digest.figures
    rows = [(name, f"{number:,}", numbers.share(number, digest.total)) for name, number in counts.items()]
    said = []
    cut = figures.finishes["length"]
    if cut:
        said.append(f"{numbers.count(cut, 'answer')} ended at the token limit (finish_reason length).")
    if set(figures.origins) - {"sent"}:
        origins = ", ".join(f"{number:,} {name}" for name, number in figures.origins.most_common())
        said.append(f"Where they come from: {origins}.")
    again = sum(number for attempts, number in figures.attempts.items() if attempts > 1)
    if again:
        said.append(f"{numbers.count(again, 'item')} took more than one attempt.")
    billed = digest.state["possibly_billed"]
    if billed:
        said.append(f"{numbers.count(billed, 'request')} went out and brought no answer: maybe billed.")
    bars = [Bar(name=name, value=number, tone=TONES[name]) for name, number in counts.items() if number]
    return Section(
        title="Outcomes",
        said=said,
        charts=[Bars(title="Items by outcome", unit="items", bars=bars)] if bars else [],
        grids=[
            Grid(
                caption="Items by outcome",
                heads=("outcome", "items", "share"),
                aligns=("left", "right", "right"),
                rows=rows,
            )
        ],
    )


def _failures(digest: Digest) -> Section:
    causes = digest.figures.commonest
    if not causes:
        return Section(title="Failures", said=["No item failed."])
    rows = []
    for cause in causes[:MOST_ROWS]:
        http = ", ".join(str(status) for status, _ in cause.http.most_common(2)) or numbers.NONE
        first = f"{cause.first_id} (row {cause.first_row:,})"
        rows.append((cause.error_type, cause.status, f"{cause.items:,}", http, first, cause.first_error))
    kinds = {cause.error_type: 0 for cause in causes}
    for cause in causes:
        kinds[cause.error_type] += cause.items
    bars = [Bar(name=kind, value=number, tone="bad") for kind, number in [*kinds.items()][:MOST_ROWS]]
    heads = ("type", "outcome", "items", "HTTP", "first", "error")
    aligns = ("left", "left", "right", "left", "left", "rest")
    grid = Grid(caption="Failures by type", heads=heads, aligns=aligns, rows=rows, left_out=_more(len(causes), "type"))
    return Section(title="Failures", charts=[Bars(title="Failed items by type", unit="items", bars=bars)], grids=[grid])


def _more(found: int, noun: str, shown: int = MOST_ROWS) -> str:
    return f"and {numbers.count(found - shown, f'more {noun}')}" if found > shown else ""


def _throughput(digest: Digest) -> Section:
    whole = digest.timeline
    if not whole.attempts:
        return Section(title="Throughput", said=[NOT_SENT.capitalize() + "."])
    fastest = max(whole.stretches, key=lambda each: each.requests_per_minute)
    said = [
        f"{whole.attempts:,} attempts in {numbers.clock(whole.seconds)} of work: {_rate(whole):,.0f} a minute, "
        f"{fastest.requests_per_minute:,.0f} at most. Each counts when its item settles."
    ]
    charts, rows = [], []
    for what, unit in (("requests", "requests a minute"), ("tokens", "tokens a minute")):
        used = whole.used(what)
        if what == "tokens" and used is None:
            continue
        said += [f"{used * 100:.1f} % of the allowed {what} were used."] if used is not None else []
        steps = [_step(each, what) for each in whole.stretches]
        charts.append(
            Pace(title=f"{unit.capitalize()} over the time of work", unit=unit, steps=steps, marks=whole.resumed_s)
        )
    throttled = digest.state.get("throttled")
    if throttled:
        said.append(f"The last invocation was answered {throttled:,} times with 429.")
    for stretch in _few(whole):
        limit = f"{stretch.requests_limit:,.0f}" if stretch.requests_limit else numbers.NONE
        used = numbers.share(stretch.requests_per_minute, stretch.requests_limit or 0)
        rows.append((numbers.clock(stretch.start_s), f"{stretch.requests_per_minute:,.0f}", limit, used))
    heads, aligns = ("from", "requests a minute", "limit", "used"), ("right", "right", "right", "right")
    grid = Grid(caption="Requests a minute over the time of work", heads=heads, aligns=aligns, rows=rows)
    return Section(title="Throughput", said=said, charts=charts, grids=[grid])


def _step(stretch: Any, what: str) -> tuple[float, float, float, float | None]:
    rate, limit = getattr(stretch, f"{what}_per_minute"), getattr(stretch, f"{what}_limit")
    return stretch.start_s, stretch.start_s + stretch.seconds, rate, limit


def _few(whole: Timeline, most: int = 8) -> list[Any]:
    """The same time in fewer stretches."""
    step = -(-len(whole.stretches) // most)
    return [whole.joined(start, start + step) for start in range(0, len(whole.stretches), step)]


def _latency(digest: Digest) -> Section:
    figures = digest.figures
    measured = [("Latency", figures.latency), ("First token", figures.first_token)]
    known = [(name, spread) for name, spread in measured if spread.count]
    if not known:
        return Section(title="Latency", said=["No item succeeded yet."])
    rows = [(name, f"{spread.count:,}", *_quantiles(spread)) for name, spread in known]
    heads = ("of the last attempt", "items", *(name for name, _ in QUANTILES), "longest", "mean")
    grid = Grid(caption="Latency of items that succeeded", heads=heads, aligns=("left", *("right",) * 7), rows=rows)
    charts = [
        Spreads(
            title=f"{name} of items that succeeded",
            unit="items",
            bars=[*spread.bars(28)],
            quantiles=[(label, spread.quantile(share) or 0.0) for label, share in QUANTILES],
        )
        for name, spread in known
    ]
    return Section(title="Latency", charts=charts, grids=[grid])


def _quantiles(spread: Spread) -> Iterator[str]:
    for _, share in QUANTILES:
        yield numbers.seconds(spread.quantile(share))
    yield numbers.seconds(spread.highest)
    yield numbers.seconds(spread.mean)


def _used(digest: Digest) -> Section:
    state, figures = digest.state, digest.figures
    done = sum(figures.statuses.values())
    tokens = figures.all.tokens
    earlier = _tokens(digest) - sum(tokens[name] for name in SPENT)
    rows = [
        ("prompt", f"{tokens['prompt_tokens']:,}", _mean(tokens["prompt_tokens"], done)),
        ("of them cached", f"{tokens['cached_tokens']:,}", _mean(tokens["cached_tokens"], done)),
        ("completion", f"{tokens['completion_tokens']:,}", _mean(tokens["completion_tokens"], done)),
        ("of them reasoning", f"{tokens['reasoning_tokens']:,}", _mean(tokens["reasoning_tokens"], done)),
        ("of failed attempts", f"{_failed(tokens):,}", _mean(_failed(tokens), done)),
        ("of earlier outcomes, replaced", f"{earlier:,}", _mean(earlier, done)),
        ("all", f"{_tokens(digest):,}", _mean(_tokens(digest), done)),
    ]
    rows = [row for row in rows if row[1] != "0" or row[0] in ("prompt", "completion", "all")]
    cap = f" of {numbers.money(state['max_cost_usd'])} allowed" if state.get("max_cost_usd") is not None else ""
    said = [f"Cost {numbers.money(state['cost_usd'])}{cap}, {_each(digest)}."]
    if state["cost_usd"] is None:
        said = [
            f"The price of {figures.all.unpriced:,} items is not known: give it in [prices]. Known: {numbers.money(figures.all.cost_usd)}."
        ]
    grid = Grid(caption="Tokens", heads=("tokens", "in all", "an item"), aligns=("left", "right", "right"), rows=rows)
    return Section(title="Tokens and cost", said=said, grids=[grid, _groups(figures.groups)])


SPENT = ("prompt_tokens", "completion_tokens", "failed_prompt_tokens", "failed_completion_tokens")


def _failed(tokens: Any) -> int:
    return int(tokens["failed_prompt_tokens"] + tokens["failed_completion_tokens"])


def _mean(whole: float, items: int) -> str:
    return f"{whole / items:,.1f}" if items else numbers.NONE


def _groups(groups: dict[str, Sums], name: str = "model") -> Grid:
    """What each group of items used; the dearest first."""
    ranked = sorted(groups.items(), key=lambda pair: (-pair[1].cost_usd, -pair[1].items))
    rows = []
    for label, sums in ranked[:MOST_ROWS]:
        each = numbers.money(sums.known_cost_usd / sums.items if sums.known_cost_usd is not None else None)
        spent = sum(sums.tokens[kind] for kind in SPENT)
        good, median = numbers.share(sums.succeeded, sums.items), numbers.seconds(sums.latency.quantile(0.5))
        rows.append(
            (
                label or numbers.NONE,
                f"{sums.items:,}",
                good,
                f"{spent:,}",
                numbers.money(sums.known_cost_usd),
                each,
                median,
            )
        )
    return Grid(
        caption=f"By {name}",
        heads=(name, "items", "succeeded", "tokens", "cost", "an item", "p50"),
        aligns=("rest", *("right",) * 6),
        rows=rows,
        left_out=_more(len(groups), name),
    )


def _items(digest: Digest) -> Section:
    rows = [
        (item.item_id, item.status, numbers.seconds(item.seconds), numbers.seconds(item.latency_s), str(item.attempts))
        for item in digest.slowest
    ]
    grid = Grid(
        caption="The slowest items",
        heads=("slowest item", "outcome", "took", "last attempt", "attempts"),
        aligns=("rest", "left", "right", "right", "right"),
        rows=rows,
    )
    failed = [(item.item_id, item.error_type or "", str(item.attempts), item.error or "") for item in digest.failed]
    grid_failed = Grid(
        caption="Failed items, some of each type",
        heads=("failed item", "type", "attempts", "error"),
        aligns=("left", "left", "right", "rest"),
        rows=failed,
    )
    cards = [_card(digest, item) for item in digest.failed] + [_card(digest, item) for item in digest.slowest[:5]]
    return Section(
        title="Slowest and failed items",
        grids=[each for each in (grid, grid_failed) if each.rows],
        cards=cards if digest.texts else (),
    )


def _card(digest: Digest, item: Shown) -> Card:
    texts, found = digest.texts.get(item.row), []
    if item.error:
        found.append(("error", item.error))
    if texts is not None and texts.prompt:
        found.append(("prompt", texts.prompt))
    if texts is not None and texts.reply:
        found.append(("reply", texts.reply))
    http = f"HTTP {item.http_status}" if item.http_status else ""
    took = f"took {numbers.seconds(item.seconds)}" if item.seconds is not None else ""
    facts = [
        item.status,
        item.error_type or "",
        http,
        f"row {item.row:,}",
        item.model or "",
        took,
        numbers.count(item.attempts, "attempt"),
    ]
    return Card(
        title=item.item_id, facts=[fact for fact in facts if fact], texts=found, tone=TONES.get(item.status, "")
    )


def _decisions(digest: Digest) -> Section:
    diary = digest.diary
    if not diary.decisions:
        return Section(
            title="Decisions of the pacing", said=["None: nothing had to be learned, slowed down or paused."]
        )
    lanes = {each.lane for each in diary.decisions if each.lane}
    rows = [
        (
            numbers.instant(each.at),
            each.event,
            f"{each.lane}: {each.said}" if each.lane and len(lanes) > 1 else each.said,
        )
        for each in diary.decisions
    ]
    grid = Grid(
        caption="Decisions, as in log.jsonl",
        heads=("time (UTC)", "event", "what"),
        aligns=("left", "left", "rest"),
        rows=rows,
        left_out=f"and {diary.left_out:,} between them" if diary.left_out else "",
    )
    counted = ", ".join(f"{name} {number:,}" for name, number in diary.of_pacing().most_common())
    return Section(title="Decisions of the pacing", said=[f"{counted}."], grids=[grid])
