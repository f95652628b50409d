"""The sections of a report that measure: throughput, latency, tokens and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.report import numbers
from batchrunner.report.sections import Grid, Pace, Section, Spreads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.report.digest import Digest
    from batchrunner.report.figures import Sums
    from batchrunner.report.spread import Spread
    from batchrunner.report.timeline import Stretch, Timeline

MOST_ROWS = 20
FEW_STRETCHES = 8
BARS = 28
QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))
SPENT = ("prompt_tokens", "completion_tokens", "failed_prompt_tokens", "failed_completion_tokens")


def throughput(digest: Digest) -> Section:
    """Requests a minute over the time of work against what was allowed; tokens too where they have a limit."""
    whole = digest.timeline
    if not whole.attempts:
        return Section(title="Throughput", said=["Nothing was sent."])
    fastest = max(each.requests_per_minute for each in whole.stretches)
    pace = f"{mean_rate(whole):,.0f} a minute, {fastest:,.0f} at most"
    attempts = numbers.count(whole.attempts, "attempt")
    said = [f"{attempts} in {numbers.clock(whole.seconds)} of work: {pace}. Each counts when its item settles."]
    charts = []
    for what in ("requests", "tokens"):
        share = whole.used(what)
        if share is not None:
            said.append(f"{share * 100:.1f} % of the allowed {what} were used.")
        if share is not None or what == "requests":
            charts.append(_pace(whole, what))
    throttled = digest.state.get("throttled")
    if throttled:
        said.append(f"The last invocation was answered with 429 {numbers.count(throttled, 'time')}.")
    return Section(title="Throughput", said=said, charts=charts, grids=[_rates(whole)])


def _pace(whole: Timeline, what: str) -> Pace:
    steps = [
        (each.start_s, each.start_s + each.seconds, each.per_minute(what), each.limit(what)) for each in whole.stretches
    ]
    unit = f"{what} a minute"
    return Pace(title=f"{unit.capitalize()} over the time of work", unit=unit, steps=steps, marks=whole.resumed_s)


def _rates(whole: Timeline) -> Grid:
    return Grid(
        caption="Requests a minute over the time of work",
        heads=("from", "requests a minute", "limit", "used"),
        aligns=">>>>",
        rows=[_rate_row(each) for each in whole.fewer(FEW_STRETCHES)],
    )


def _rate_row(stretch: Stretch) -> tuple[str, ...]:
    rate, limit = stretch.per_minute("requests"), stretch.limit("requests")
    allowed = numbers.NONE if limit is None else f"{limit:,.0f}"
    return numbers.clock(stretch.start_s), f"{rate:,.0f}", allowed, numbers.share(rate, limit or 0)


def mean_rate(whole: Timeline) -> float:
    """Attempts a minute of working time."""
    return whole.attempts / whole.seconds * 60 if whole.seconds else 0.0


def latency(digest: Digest) -> Section:
    """How the latency of what succeeded is spread, and the time to the first token where replies were streamed."""
    measured = [("Latency", digest.figures.latency), ("First token", digest.figures.first_token)]
    known = [(name, spread) for name, spread in measured if spread.count]
    if not known:
        return Section(title="Latency", said=["No item has succeeded."])
    grid = Grid(
        caption="Seconds of the last attempt, of items that succeeded",
        heads=("last attempt", "items", *(name for name, _ in QUANTILES), "longest", "mean"),
        aligns="<>>>>>>>",
        rows=[(name, f"{spread.count:,}", *_quantiles(spread)) for name, spread in known],
    )
    return Section(title="Latency", charts=[_spreads(name, spread) for name, spread in known], grids=[grid])


def _spreads(name: str, spread: Spread) -> Spreads:
    quantiles = [(label, spread.quantile(share) or 0.0) for label, share in QUANTILES]
    title = f"{name} of items that succeeded"
    return Spreads(title=title, unit="items", bars=[*spread.bars(BARS)], quantiles=quantiles)


def _quantiles(spread: Spread) -> Iterator[str]:
    for _, share in QUANTILES:
        yield numbers.seconds(spread.quantile(share))
    yield numbers.seconds(spread.highest)
    yield numbers.seconds(spread.mean)


def used(digest: Digest) -> Section:
    """Tokens and cost, in all, per item and by model."""
    state, figures = digest.state, digest.figures
    cap = state.get("max_cost_usd")
    allowed = f" of {numbers.money(cap)} allowed" if cap is not None else ""
    said = [f"Cost {numbers.money(state['cost_usd'])}{allowed}, {each_item(digest)}."]
    if state["cost_usd"] is None:
        known, unpriced = numbers.money(figures.all.cost_usd), numbers.count(figures.all.unpriced, "item")
        said = [f"Cost {known} without {unpriced} whose price is not known; [prices] in the job can tell it."]
    return Section(title="Tokens and cost", said=said, grids=[_tokens(digest), by_group(figures.groups, figures.by)])


def _tokens(digest: Digest) -> Grid:
    tokens, done = digest.figures.all.tokens, sum(digest.figures.statuses.values())
    found = {
        "prompt": tokens["prompt_tokens"],
        "of them cached": tokens["cached_tokens"],
        "completion": tokens["completion_tokens"],
        "of them reasoning": tokens["reasoning_tokens"],
        "of failed attempts": tokens["failed_prompt_tokens"] + tokens["failed_completion_tokens"],
        "of replaced outcomes": spent(digest) - sum(tokens[kind] for kind in SPENT),
        "all": spent(digest),
    }
    always = ("prompt", "completion", "all")
    rows = [(name, f"{number:,}", _mean(number, done)) for name, number in found.items() if number or name in always]
    return Grid(caption="Tokens", heads=("tokens", "in all", "an item"), aligns="<>>", rows=rows)


def _mean(whole: float, items: int) -> str:
    return f"{whole / items:,.1f}" if items else numbers.NONE


def by_group(groups: Mapping[str, Sums], name: str) -> Grid:
    """What each group of items came to and used; the dearest first."""
    ranked = sorted(groups.items(), key=lambda pair: (-pair[1].cost_usd, -pair[1].items))
    return Grid(
        caption=f"By {name}",
        heads=(name, "items", "succeeded", "tokens", "cost", "an item", "p50"),
        aligns="*>>>>>>",
        rows=[_group_row(label, sums) for label, sums in ranked[:MOST_ROWS]],
        left_out=more(len(groups), name),
    )


def _group_row(label: str, sums: Sums) -> tuple[str, ...]:
    cost = sums.known_cost_usd
    return (
        label or numbers.NONE,
        f"{sums.items:,}",
        numbers.share(sums.succeeded, sums.items),
        f"{sum(sums.tokens[kind] for kind in SPENT):,}",
        numbers.money(cost),
        numbers.money(None if cost is None else cost / sums.items),
        numbers.seconds(sums.latency.quantile(0.5)),
    )


def spent(digest: Digest) -> int:
    """All tokens of the run's whole life."""
    return int(digest.state["prompt_tokens"] + digest.state["completion_tokens"])


def each_item(digest: Digest) -> str:
    """What an item with an outcome cost."""
    cost, done = digest.state["cost_usd"], sum(digest.figures.statuses.values())
    if cost is None:
        return f"{numbers.money(digest.figures.all.cost_usd)} of it known"
    return f"{numbers.money(cost / done)} an item" if done else "no item yet"


def more(found: int, noun: str, shown: int = MOST_ROWS) -> str:
    """What is said of rows that a table leaves out."""
    return f"and {numbers.count(found - shown, f'more {noun}')}" if found > shown else ""
