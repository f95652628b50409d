"""A report for a terminal, in eighty columns."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from batchrunner.report import cells, numbers
from batchrunner.report.sections import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchrunner.report.sections import Document, Grid, Section

WIDTH = 80
NARROWEST = (12, 6)
"""Columns that are cut keep so much, or where that is not enough, so little."""
BLOCKS = " ▁▂▃▄▅▆▇█"


def report_lines(document: Document, clean: Callable[[str], str]) -> Iterator[str]:
    """The report, no line wider than the terminal; what came from elsewhere passes `clean`."""
    for line in _lines(document, clean):
        yield cells.cut(line, WIDTH)


def _lines(document: Document, clean: Callable[[str], str]) -> Iterator[str]:
    yield clean(f"{document.title}: {document.state}")
    for name, value in document.facts:
        yield f"{name:<9}{clean(value)}"
    for section in document.sections:
        yield ""
        yield section.title.upper()
        yield from _section(section, clean)


def _section(section: Section, clean: Callable[[str], str]) -> Iterator[str]:
    for sentence in section.said:
        yield from cells.wrapped(clean(sentence), WIDTH)
    for chart in section.charts:
        if isinstance(chart, Pace):
            yield from _pace(chart)
    for number, grid in enumerate(section.grids):
        if number:
            yield ""
        yield from grid_lines(grid, clean)


def _pace(chart: Pace) -> Iterator[str]:
    """The rate over time, and the limit where it changed, as sparklines of one scale."""
    rates, limits = [step[2] for step in chart.steps], [step[3] for step in chart.steps]
    top = max([*rates, *(limit for limit in limits if limit)])
    yield f"{sparkline(rates, top)} {chart.unit}"
    if len(set(limits)) > 1:
        yield f"{sparkline([limit or 0 for limit in limits], top)} limit"


def sparkline(values: Sequence[float], top: float) -> str:
    """A column for each value, in eighths of a line; what is above nothing is to be seen."""
    if top <= 0:
        return " " * len(values)
    return "".join(BLOCKS[min(8, max(int(value > 0), round(8 * value / top)))] for value in values)


def grid_lines(grid: Grid, clean: Callable[[str], str]) -> Iterator[str]:
    """A table in columns; what is to the left and too long for a line is cut."""
    rows = [[clean(cell) for cell in row] for row in [grid.heads, *grid.rows[: grid.in_terminal]]]
    widths = _widths(rows, grid.aligns)
    for row in rows:
        texts = (_cell(cell, width, align) for cell, width, align in zip(row, widths, grid.aligns, strict=True))
        yield "  ".join(texts).rstrip()
    hidden = len(grid.rows) - grid.in_terminal
    if hidden > 0:
        yield f"... {numbers.count(hidden, 'more line')} in --html" + (f", {grid.left_out}" if grid.left_out else "")
    elif grid.left_out:
        yield f"... {grid.left_out}"


def _widths(rows: Sequence[Sequence[str]], aligns: str) -> list[int]:
    widths = [max(map(cells.width, column)) for column in zip(*rows, strict=True)]
    over = sum(widths) + 2 * (len(widths) - 1) - WIDTH
    for narrowest, kind in product(NARROWEST, "*<"):
        for number in sorted(range(len(widths)), key=lambda each: -widths[each]):
            if aligns[number] == kind and over > 0:
                taken = min(over, max(0, widths[number] - narrowest))
                widths[number] -= taken
                over -= taken
    return widths


def _cell(text: str, width: int, align: str) -> str:
    shown = cells.cut_within(text, width) if align == "*" else cells.cut(text, width)
    room = " " * (width - cells.width(shown))
    return room + shown if align == ">" else shown + room
