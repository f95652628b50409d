"""What a report is made of, before it is written for a terminal or as a page: both say the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Tone = Literal["", "good", "bad", "warn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table: its caption, heads and rows of texts.

    `aligns` has a letter for each column: `<` left, `>` right, `*` left, and cut first where a line is short.
    """

    caption: str
    heads: Sequence[str]
    aligns: str
    rows: Sequence[Sequence[str]]
    left_out: str = ""
    """What is said of rows that are not in it."""
    in_terminal: int = 12
    """So many rows, at most, where lines are dear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A count with its name, as one of several that are compared."""

    name: str
    value: float
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """A chart of counts by name."""

    title: str
    unit: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A chart of a rate over time against what was allowed: a step for each stretch (from, to, rate, limit)."""

    title: str
    unit: str
    steps: Sequence[tuple[float, float, float, float | None]]
    marks: Sequence[float] = ()
    """Moments to be marked: a resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spreads:
    """A chart of how seconds are spread: bars (from, to, how many) on a logarithmic scale, and quantiles by name."""

    title: str
    unit: str
    bars: Sequence[tuple[float, float, int]]
    quantiles: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Whisker:
    """A mean with its name, and the ends of its interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """A chart of means with their intervals, one below another, and a line where the baseline's is."""

    title: str
    rows: Sequence[Whisker]
    base: float | None


Chart = Bars | Pace | Spreads | Intervals


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An item with its texts."""

    title: str
    facts: Sequence[str]
    texts: Sequence[tuple[str, str]]
    """Name and text: prompt, reply, error."""
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    title: str
    said: Sequence[str] = ()
    """Sentences."""
    charts: Sequence[Chart] = ()
    grids: Sequence[Grid] = ()
    cards: Sequence[Card] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that stands above all others, with its name and a word about it."""

    name: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A report: the run's name, how it stands, the figures that count most, and the sections."""

    title: str
    state: str
    tone: Tone
    figures: Sequence[Figure]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)
    """What was run, by name: job, provider, directory."""
