"""The report of one run: what stands above all, and its sections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from batchrunner.report import numbers, standings
from batchrunner.report.measures import MOST_ROWS, each_item, latency, mean_rate, more, spent, throughput, used
from batchrunner.report.sections import Bar, Bars, Card, Document, Figure, Grid, Section
from batchrunner.report.words import life_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchrunner.evaluate import Comparison
    from batchrunner.report.digest import Digest
    from batchrunner.report.figures import Cause, Shown
    from batchrunner.report.sections import Tone

SLOW_CARDS = 5
TONES: dict[str, Tone] = {"succeeded": "good", "rejected": "bad", "exhausted": "warn", "unfinished": ""}


def document(digest: Digest, groups: Comparison | None = None) -> Document:
    """What is told of a run, in the order of what people ask first; with `groups` also what each of these came to."""
    state = digest.state
    return Document(
        title=str(state["name"]),
        state=life_line(state),
        tone=_tone(digest),
        figures=[*_figures(digest)],
        facts=[*_facts(digest)],
        sections=[
            _outcomes(digest),
            _failures(digest),
            throughput(digest),
            latency(digest),
            used(digest),
            *([] if groups is None else [standings.groups(groups), standings.scores(groups)]),
            _items(digest),
            _decisions(digest),
        ],
    )


def _tone(digest: Digest) -> Tone:
    if digest.state.get("exit"):
        return "bad"
    return "good" if digest.state["state"] == "finished" else "warn"


def _figures(digest: Digest) -> Iterator[Figure]:
    counts, total = digest.counts, digest.total
    failed = counts["rejected"] + counts["exhausted"]
    good = counts["succeeded"]
    yield Figure(name="succeeded", value=f"{good:,}", note=f"of {numbers.count(total, 'item')}", tone="good")
    yield Figure(name="failed", value=f"{failed:,}", note=numbers.share(failed, total), tone="bad" if failed else "")
    if counts["unfinished"]:
        yield Figure(name="unfinished", value=f"{counts['unfinished']:,}", note="no outcome yet", tone="warn")
    yield Figure(name="cost", value=numbers.money(digest.state["cost_usd"]), note=each_item(digest))
    yield Figure(name="tokens", value=numbers.short(spent(digest)), note="in and out")
    share = digest.timeline.used("requests")
    pace = "mean of the time of work" if share is None else f"{share * 100:.1f} % of the limit"
    yield Figure(name="requests a minute", value=f"{mean_rate(digest.timeline):,.0f}", note=pace)
    p50, p95 = (numbers.seconds(digest.figures.latency.quantile(part)) for part in (0.5, 0.95))
    yield Figure(name="median latency", value=p50, note=f"p95 {p95}")


def _facts(digest: Digest) -> Iterator[tuple[str, str]]:
    state, job = digest.state, digest.state.get("job") or {}
    yield "run", str(state["run"])
    provider = job.get("provider") or {}
    if provider:
        yield "provider", " ".join(str(provider[name]) for name in ("kind", "base_url") if provider.get(name))
    if state.get("input"):
        yield "input", f"{_input(job)}, {numbers.count(state['input'].get('rows', 0), 'row')}"
    for name, found in (("params", job.get("params")), ("labels", state.get("labels"))):
        if found:
            yield name, ", ".join(f"{key} {value}" for key, value in found.items())
    history = state.get("history") or []
    if history:
        invocations = numbers.count(len(history), "invocation")
        yield "time", f"{_moment(history[0]['began_at'])} to {_moment(history[-1]['ended_at'])} UTC, {invocations}"
    for warning in digest.warnings:
        yield "note", warning


def _input(job: dict[str, dict[str, object]]) -> str:
    path = job.get("input", {}).get("path", "")
    return ", ".join(map(str, path)) if isinstance(path, list) else str(path)


def _moment(told: str) -> str:
    return told[:19].replace("T", " ")


def _outcomes(digest: Digest) -> Section:
    counts = digest.counts
    bars = [Bar(name=name, value=number, tone=TONES[name]) for name, number in counts.items() if number]
    grid = Grid(
        caption="Items by outcome",
        heads=("outcome", "items", "share"),
        aligns="<>>",
        rows=[(name, f"{number:,}", numbers.share(number, digest.total)) for name, number in counts.items()],
    )
    charts = [Bars(title="Items by outcome", unit="items", bars=bars)] if bars else []
    return Section(title="Outcomes", said=[*_beside(digest)], charts=charts, grids=[grid])


def _beside(digest: Digest) -> Iterator[str]:
    """What the outcomes alone do not say."""
    figures = digest.figures
    length, billed = figures.finishes["length"], digest.state["possibly_billed"]
    again = sum(number for attempts, number in figures.attempts.items() if attempts > 1)
    if length:
        yield f"{numbers.count(length, 'answer')} ended at the token limit (finish_reason length)."
    if set(figures.origins) - {"sent"}:
        origins = ", ".join(f"{number:,} {name}" for name, number in figures.origins.most_common())
        yield f"Origin: {origins}. Time, tokens and cost are those of what was sent."
    if again:
        yield f"{numbers.count(again, 'item')} took more than one attempt."
    if billed:
        yield f"{numbers.count(billed, 'request')} went out and brought no answer: maybe billed."


def _failures(digest: Digest) -> Section:
    causes = digest.figures.commonest
    if not causes:
        return Section(title="Failures", said=["No item has failed."])
    kinds: Counter[str] = Counter()
    for cause in causes:
        kinds[cause.error_type] += cause.items
    bars = [Bar(name=kind, value=number, tone="bad") for kind, number in kinds.most_common(MOST_ROWS)]
    grid = Grid(
        caption="Failed items by type",
        heads=("type", "outcome", "items", "HTTP", "first", "error"),
        aligns="<<><<*",
        rows=[_cause_row(cause) for cause in causes[:MOST_ROWS]],
        left_out=more(len(causes), "type"),
    )
    return Section(title="Failures", charts=[Bars(title="Failed items by type", unit="items", bars=bars)], grids=[grid])


def _cause_row(cause: Cause) -> tuple[str, ...]:
    http = ", ".join(str(status) for status, _ in cause.http.most_common(2)) or numbers.NONE
    first = f"{numbers.cut(cause.first_id, 80)} (row {cause.first_row:,})"
    return cause.error_type, cause.status, f"{cause.items:,}", http, first, numbers.cut(cause.first_error, 300)


def _items(digest: Digest) -> Section:
    slowest = Grid(
        caption="The slowest items, from their first preparation to their outcome",
        heads=("slowest item", "outcome", "took", "last attempt", "attempts"),
        aligns="*<>>>",
        rows=[
            (
                item.item_id,
                item.status,
                numbers.seconds(item.seconds),
                numbers.seconds(item.latency_s),
                f"{item.attempts}",
            )
            for item in digest.slowest
        ],
    )
    failed = Grid(
        caption="Failed items, the first of each type",
        heads=("failed item", "type", "attempts", "error"),
        aligns="<<>*",
        rows=[
            (
                numbers.cut(item.item_id, 80),
                item.error_type or "",
                f"{item.attempts}",
                numbers.cut(item.error or "", 300),
            )
            for item in digest.failed
        ],
    )
    shown = [*digest.failed, *digest.slowest[:SLOW_CARDS]] if digest.texts else []
    return Section(
        title="Slowest and failed items",
        said=[] if slowest.rows or failed.rows else ["No item has an outcome."],
        grids=[grid for grid in (slowest, failed) if grid.rows],
        cards=[_card(digest, item) for item in shown],
    )


def _card(digest: Digest, item: Shown) -> Card:
    texts = digest.texts.get(item.row)
    found = {"error": item.error, "prompt": texts and texts.prompt, "reply": texts and texts.reply}
    facts = (
        item.status,
        item.error_type,
        f"HTTP {item.http_status}" if item.http_status else None,
        f"row {item.row:,}",
        item.model,
        numbers.count(item.attempts, "attempt"),
        f"took {numbers.seconds(item.seconds)}" if item.seconds is not None and item.attempts else None,
    )
    return Card(
        title=item.item_id,
        facts=[fact for fact in facts if fact],
        texts=[(name, text) for name, text in found.items() if text],
        tone=TONES.get(item.status, ""),
    )


def _decisions(digest: Digest) -> Section:
    diary, title = digest.diary, "Decisions of the pacing"
    if not diary.decisions:
        return Section(title=title, said=["None: nothing had to be learned, slowed down or paused."])
    several = len({each.lane for each in diary.decisions if each.lane}) > 1
    grid = Grid(
        caption="Decisions, as log.jsonl has them",
        heads=("time (UTC)", "event", "what"),
        aligns="<<*",
        rows=[
            (numbers.instant(each.at), each.event, f"{each.lane}: {each.said}" if several and each.lane else each.said)
            for each in diary.decisions
        ],
        left_out=f"and {diary.left_out:,} between the first and the last" if diary.left_out else "",
    )
    counted = ", ".join(f"{name} {number:,}" for name, number in diary.of_pacing().most_common())
    return Section(title=title, said=[f"{counted}."], grids=[grid])
