"""Charts as SVG whose colours are the page's: altair describes them, vl-convert draws them, in this process."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError
from batchrunner.report import cells
from batchrunner.report.html import plain
from batchrunner.report.sections import Bars, Intervals, Pace, Spreads
from batchrunner.report.svg import ACCENT, GRID, INK, LIMIT, MUTED, TONES, cleaned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchrunner.report.html import Html
    from batchrunner.report.sections import Chart

SIZES = {"wide": 720, "narrow": 340}
"""Drawn for each width of screen: text that is scaled down with its chart cannot be read."""
BESIDE = {"wide": 530, "narrow": 340}
"""Of charts that stand in pairs where there is room."""
HEIGHT, BAR_HEIGHT = 210, 26
LONGEST_NAME, CHARACTER = 20, 8.2
"""Letters of a name beside a bar, and the room for each."""
UNITS_S = (("hours", 3_600), ("minutes", 60), ("seconds", 1))


class Artist:
    """Draws charts. Raises JobError where the packages of the extra are missing."""

    def __init__(self) -> None:
        try:
            import altair
            import vl_convert
        except ImportError as error:
            raise JobError(
                f"--html: {error.name} is not installed; pip install 'batchrunner[report]', or leave --html away"
            ) from None
        self._altair, self._convert = altair, vl_convert
        self._drawn = 0

    def draw(self, chart: Chart) -> dict[str, Html]:
        """The chart as SVG, by size."""
        sizes = BESIDE if isinstance(chart, Spreads) else SIZES
        return {size: self._svg(chart, width) for size, width in sizes.items()}

    def _svg(self, chart: Chart, width: int) -> Html:
        alt = self._altair
        if isinstance(chart, Bars):
            found, height = _bars(alt, chart), 16 + BAR_HEIGHT * len(chart.bars)
        elif isinstance(chart, Pace):
            found, height = _pace(alt, chart, width), HEIGHT
        elif isinstance(chart, Intervals):
            found, height = _intervals(alt, chart, width), 44 + BAR_HEIGHT * len(chart.rows)
        else:
            found, height = _spreads(alt, chart, width), HEIGHT
        fit = alt.AutoSizeParams(type="fit", contains="padding")
        spec = _styled(alt, found.properties(width=width, height=height, autosize=fit)).to_json()
        drawn = self._convert.vegalite_to_svg(spec, vl_version=_version(alt), allowed_base_urls=[])
        self._drawn += 1
        return cleaned(drawn, prefix=f"c{self._drawn}-")


def _version(alt: Any) -> str:
    """Of Vega-Lite, as the converter names it: altair 5.5 says v5.20.1."""
    return ".".join(str(alt.SCHEMA_VERSION).lstrip("v").split(".")[:2])


def _styled(alt: Any, chart: Any) -> Any:
    quiet = {"labelColor": MUTED, "titleColor": MUTED, "gridColor": GRID, "domainColor": GRID, "tickColor": GRID}
    return (
        chart.configure(font="system-ui, sans-serif", background="transparent", padding=2, aria=False)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=8, **quiet)
        .configure_view(stroke=None)
    )


def _bars(alt: Any, chart: Bars) -> Any:
    """Horizontal bars in the order that they have, each with its number."""
    rows = [
        {"place": f"{place:03}", "value": bar.value, "tone": bar.tone, "said": f"{bar.value:,.0f}"}
        for place, bar in enumerate(chart.bars)
    ]
    axis = _names(alt, [bar.name for bar in chart.bars])
    most = max((bar.value for bar in chart.bars), default=1) or 1
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("place:N", axis=axis, sort=None, scale=alt.Scale(paddingInner=0.3)),
        x=alt.X("value:Q", axis=None, scale=alt.Scale(domain=[0, most * 1.18])),
    )
    tone = alt.Color("tone:N", scale=alt.Scale(domain=list(TONES), range=list(TONES.values())), legend=None)
    number = base.mark_text(align="left", dx=6, fontSize=12, color=INK).encode(text="said:N")
    return base.mark_bar(cornerRadiusEnd=2).encode(color=tone) + number


def _names(alt: Any, given: Sequence[str]) -> Any:
    """The axis of what stands one below another, its places being numbers."""
    names = [_short(name) for name in given]
    label = f"{_literal(names)}[toNumber(datum.value)]"
    # Whoever reads the page may have a wider font than it was drawn with.
    room = 8 + CHARACTER * max(map(cells.width, names), default=0)
    quiet = {"domain": False, "ticks": False, "labelLimit": 0, "labelPadding": 8, "labelColor": INK}
    return alt.Axis(title=None, labelExpr=label, minExtent=room, maxExtent=room, **quiet)


def _short(name: str) -> str:
    name = plain(name)  # The renderer ends the whole process over a control character.
    return cells.cut(name, LONGEST_NAME)


def _literal(names: Sequence[str]) -> str:
    """An array of texts in Vega's expression language, in letters and escapes that cannot end a text."""
    return "[" + ",".join('"' + "".join(_escaped(char) for char in name) + '"' for name in names) + "]"


def _escaped(char: str) -> str:
    if char.isascii() and (char.isalnum() or char in " _-.,:/()"):
        return char
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _pace(alt: Any, chart: Pace, width: int) -> Any:
    """Steps of the rate as an area, the limit as a line above it, a dashed line where the run was resumed."""
    name, unit_s = _unit(chart.steps[-1][1])
    names = ("from", "to", "rate", "limit")
    steps = [(start / unit_s, end / unit_s, rate, limit) for start, end, rate, limit in chart.steps]
    rows = [dict(zip(names, step, strict=True)) for step in steps]
    last = {**rows[-1], "from": rows[-1]["to"]}
    axis = alt.Axis(title=f"{name} of work", grid=False, tickCount=width // 80)
    x = alt.X("from:Q", axis=axis, scale=alt.Scale(nice=False, domain=[0, rows[-1]["to"]]))
    top = max(max(rate, limit or 0) for _, _, rate, limit in steps) or 1
    y_axis = _counts(alt, top)
    y = alt.Scale(domain=[0, top * 1.08], nice=False)
    base = alt.Chart(alt.Data(values=[*rows, last])).encode(x=x)
    area = base.mark_area(
        interpolate="step-after", color=ACCENT, fillOpacity=0.25, line={"color": ACCENT, "strokeWidth": 1.5}
    )
    layers = [area.encode(y=alt.Y("rate:Q", axis=y_axis, scale=y))]
    if any(row["limit"] for row in rows):
        line = base.mark_line(interpolate="step-after", color=LIMIT, strokeWidth=2, strokeDash=[6, 3])
        layers.append(line.encode(y=alt.Y("limit:Q", scale=y)))
    if chart.marks:
        marks = alt.Chart(alt.Data(values=[{"from": mark / unit_s} for mark in chart.marks]))
        layers.append(marks.mark_rule(color=MUTED, strokeDash=[2, 3]).encode(x=x))
    return alt.layer(*layers)


def _counts(alt: Any, top: float) -> Any:
    """The axis of a count up to `top`."""
    form = "~s" if top >= 10_000 else ",d" if top >= 4 else "~g"
    return alt.Axis(title=None, tickCount=4, format=form, domain=False, ticks=False, minExtent=34)


def _unit(seconds: float) -> tuple[str, int]:
    return next((name, unit_s) for name, unit_s in UNITS_S if seconds >= 2 * unit_s or unit_s == 1)


def _spreads(alt: Any, chart: Spreads, width: int) -> Any:
    """Bars on a logarithmic scale of seconds, and a line with its name for each quantile."""
    rows = [{"from": start, "to": end, "count": number} for start, end, number in chart.bars]
    first, last = rows[0]["from"], rows[-1]["to"]
    axis = alt.Axis(title="seconds", grid=False, values=[*_ticks(first, last, width // 60)], format="~g")
    scale = alt.Scale(type="log", domain=[first, last], nice=False)
    most = max(row["count"] for row in rows)
    bars = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(color=ACCENT, fillOpacity=0.55, binSpacing=1)
        .encode(
            x=alt.X("from:Q", axis=axis, scale=scale),
            x2="to:Q",
            y=alt.Y("count:Q", axis=_counts(alt, most), scale=alt.Scale(domain=[0, most * 1.45], nice=False)),
            y2=alt.datum(0),
        )
    )
    named = [
        {"at": min(max(value, first), last), "name": name, "line": number, "top": most * (1.4 - 0.13 * number)}
        for number, (name, value) in enumerate(chart.quantiles)
    ]
    marks = alt.Chart(alt.Data(values=named)).encode(x=alt.X("at:Q", scale=scale))
    rules = marks.mark_rule(color=INK, strokeWidth=1, strokeDash=[3, 2]).encode(y=alt.Y("top:Q"), y2=alt.datum(0))
    label = marks.mark_text(color=INK, fontSize=11, dx=3, align="left", baseline="top")
    return bars + rules + label.encode(y="top:Q", text="name:N")


def _intervals(alt: Any, chart: Intervals, width: int) -> Any:
    """A dot for each mean and a bar for its interval, the number beside it, a dashed line at the baseline's mean."""
    rows = [
        {"place": f"{place:03}", "value": row.value, "low": row.low, "high": row.high, "said": f"{row.value:.3g}"}
        for place, row in enumerate(chart.rows)
    ]
    first, last = min(row.low for row in chart.rows), max(row.high for row in chart.rows)
    room = (last - first or abs(last) or 1.0) * 0.08
    # The numbers stand to the right of the longest bar.
    domain = [first - room, last + room * (2.5 if width > SIZES["narrow"] else 5)]
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    axis = alt.Axis(title=None, grid=True, tickCount=width // 110, labelBound=True, domain=False, ticks=False)
    y = alt.Y("place:N", axis=_names(alt, [row.name for row in chart.rows]), sort=None)
    base = alt.Chart(alt.Data(values=rows)).encode(y=y)
    bars = base.mark_rule(color=ACCENT, strokeWidth=3, strokeOpacity=0.45)
    dots = base.mark_circle(color=ACCENT, size=70, opacity=1).encode(x=alt.X("value:Q", axis=axis, scale=scale))
    label = base.mark_text(align="left", dx=8, fontSize=12, color=INK)
    layers = [
        bars.encode(x=alt.X("low:Q", axis=axis, scale=scale), x2="high:Q"),
        dots,
        label.encode(x=alt.X("high:Q", scale=scale), text="said:N"),
    ]
    if chart.base is not None and len(rows) > 1:
        line = alt.Chart(alt.Data(values=[{"at": chart.base}]))
        mark = line.mark_rule(color=LIMIT, strokeDash=[5, 3], strokeWidth=1.5)
        layers.insert(0, mark.encode(x=alt.X("at:Q", axis=axis, scale=scale)))
    return alt.layer(*layers)


def _ticks(first: float, last: float, most: int) -> Iterator[float]:
    """Round values between two: 1, 2 and 5 of each power of ten, or the powers alone where these are too many."""
    powers = range(math.floor(math.log10(first)), math.ceil(math.log10(last)) + 1)
    for steps in ((1.0, 1.5, 2.0, 3.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0,)):
        found = [round(step * 10.0**power, 10) for power in powers for step in steps]
        found = [tick for tick in found if first <= tick <= last]
        if len(found) <= most:
            break
    yield from found or (float(f"{first:.2g}"), float(f"{last:.2g}"))
