"""A report as one page that needs nothing else: no script, no font, no address to be fetched."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from batchrunner import __version__
from batchrunner.report import numbers
from batchrunner.report.html import Html, element, joined
from batchrunner.report.sections import Bars, Intervals, Pace, Spreads
from batchrunner.report.style import CSS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.report.charts import Artist
    from batchrunner.report.sections import Card, Chart, Document, Figure, Grid, Section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
LONGEST_TEXT, LONGEST_CELL, LONGEST_WORD = 1_500, 400, 28
"""Characters of a text, of a cell, and of one that is kept on one line."""
STACKED = 4
"""Where the screen is narrow, a table of more columns, or with long texts, has its cells one under another."""
ALIGNS = {"<": "l", ">": "r", "*": "a"}


def page(document: Document, artist: Artist, *, at: float) -> bytes:
    """The whole file. `at` is when it is written, in seconds since 1970."""
    title = f"{numbers.cut(document.title, 200)}: report"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", Html(CSS)),
    )
    body = element(
        "body",
        _header(document),
        element("main", *(_section(section, artist) for section in document.sections)),
        element(
            "footer", f"Written by batchrunner {__version__} on {numbers.instant(at)} UTC. Nothing is loaded or run."
        ),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode("utf-8", "replace")


def _header(document: Document) -> Html:
    links = (element("a", section.title, href=f"#{_anchor(section)}") for section in document.sections)
    return element(
        "header",
        element("h1", numbers.cut(document.title, 200)),
        element("p", numbers.cut(document.state, LONGEST_CELL), class_=f"state {document.tone}".strip()),
        element("dl", *(_figure(figure) for figure in document.figures), class_="figures", aria_label="Summary"),
        element("dl", *_facts(document.facts), class_="facts", aria_label="What was run"),
        element("nav", *links, aria_label="Sections"),
    )


def _figure(figure: Figure) -> Html:
    return element(
        "div",
        element("dt", figure.name),
        element("dd", figure.value, class_=f"value {figure.tone}".strip()),
        element("dd", figure.note, class_="note") if figure.note else None,
    )


def _facts(facts: Sequence[tuple[str, str]]) -> Iterator[Html]:
    for name, value in facts:
        yield element("dt", name)
        yield element("dd", numbers.cut(value, LONGEST_CELL))


def _section(section: Section, artist: Artist) -> Html:
    charts, grids = [_chart(chart, artist) for chart in section.charts], [_grid(grid) for grid in section.grids]
    beside = len(charts) > 1 and all(isinstance(chart, Spreads) for chart in section.charts)
    small = bool(charts) and not beside and bool(grids) and len(section.grids[0].heads) <= STACKED
    drawn = element("div", *charts, class_="beside" if beside else None) if charts else None
    anchor = _anchor(section)
    return element(
        "section",
        element("h2", section.title, id=f"{anchor}-title"),
        *(element("p", sentence) for sentence in section.said),
        element("div", drawn, element("div", *grids), class_="pair") if small else joined(drawn, *grids),
        *(_card(card) for card in section.cards),
        id=anchor,
        aria_labelledby=f"{anchor}-title",
    )


def _anchor(section: Section) -> str:
    return re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")


def _chart(chart: Chart, artist: Artist) -> Html:
    drawn = artist.draw(chart)
    sizes = (element("div", svg, class_=size) for size, svg in drawn.items())
    return element(
        "figure",
        element("figcaption", chart.title, *_legend(chart)),
        element("div", *sizes, role="img", aria_label=_in_words(chart)),
    )


def _legend(chart: Chart) -> Iterator[Html]:
    if isinstance(chart, Pace):
        yield element("span", element("i"), chart.unit)
        if any(step[3] for step in chart.steps):
            yield element("span", element("i", class_="limit"), "limit")
    if isinstance(chart, Intervals) and chart.base is not None and len(chart.rows) > 1:
        yield element("span", element("i", class_="limit"), "baseline")


def _in_words(chart: Chart) -> str:
    """What a chart shows, for who cannot see it; the tables have the numbers."""
    if isinstance(chart, Bars):
        return f"{chart.title}: " + ", ".join(f"{bar.name} {bar.value:,.0f}" for bar in chart.bars)
    if isinstance(chart, Pace):
        rates, limits = [step[2] for step in chart.steps], [step[3] for step in chart.steps if step[3]]
        allowed = f"; the limit between {min(limits):,.0f} and {max(limits):,.0f}" if limits else ""
        return f"{chart.title}: between {min(rates):,.0f} and {max(rates):,.0f} {chart.unit}{allowed}"
    if isinstance(chart, Intervals):
        means = (f"{row.name} {row.value:.3g} ({row.low:.3g} to {row.high:.3g})" for row in chart.rows)
        return f"{chart.title}: " + ", ".join(means)
    return f"{chart.title}: " + ", ".join(f"{name} {numbers.seconds(value)}" for name, value in chart.quantiles)


def _grid(grid: Grid) -> Html:
    stacked = len(grid.heads) > STACKED or "*" in grid.aligns
    heads = (
        element("th", head, scope="col", class_=ALIGNS[each])
        for head, each in zip(grid.heads, grid.aligns, strict=True)
    )
    rows = (element("tr", *_cells(grid, row)) for row in grid.rows)
    table = element(
        "table",
        element("caption", grid.caption),
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
        class_="stack" if stacked else None,
    )
    region = element("div", table, class_="scroll", role="region", aria_label=grid.caption, tabindex="0")
    return joined(region, element("p", f"… {grid.left_out}", class_="more") if grid.left_out else None)


def _cells(grid: Grid, row: Sequence[str]) -> Iterator[Html]:
    for cell, head, align in zip(row, grid.heads, grid.aligns, strict=True):
        kind = "w" if align == "<" and len(cell) > LONGEST_WORD else ALIGNS[align]
        yield element("td", numbers.cut(cell, LONGEST_CELL), class_=kind, data_head=head)


def _card(card: Card) -> Html:
    return element(
        "article",
        element("h3", numbers.cut(card.title, 200)),
        element("p", numbers.cut(" · ".join(card.facts), LONGEST_CELL)),
        *(joined(element("h4", name), element("pre", _cut(value))) for name, value in card.texts),
        class_=f"card {card.tone}".strip(),
    )


def _cut(value: str) -> str:
    if len(value) <= LONGEST_TEXT:
        return value
    return f"{value[:LONGEST_TEXT]}… (cut; `batchrunner show RUN ID --full` has it all)"
