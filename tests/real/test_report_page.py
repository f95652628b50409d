"""The page of `report --html` with its charts, opened in Chromium: on a phone, on a desktop, light, dark, printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import hostile
import pytest
from driving import batchrunner
from real import needs
from real.browser import Seen, open_page
from report_runs import at, failed, made, outcome

from batchrunner.records import Outcome
from batchrunner.report import Artist
from batchrunner.report.sections import Bar, Bars, Pace, Span, Spans, Spreads

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

COMPARED = """
name = "compared"
[input]
path = "rows.jsonl"
[provider]
kind = "tess"
[request]
agent_id = 1
[limits]
requests_per_minute = "none"
[output]
dir = "compared"
[[score]]
name = "brief"
kind = "regex"
pattern = "^.{0,90}$"
"""
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
CHARTS = "[...document.querySelectorAll('figure svg')].filter(each => each.getBoundingClientRect().width > 200).length"
FRAMES = "document.querySelectorAll('script, iframe, img, object, embed, form, base').length"
TINY = "Math.min(...[...document.querySelectorAll('figure svg')].filter(e => e.getBoundingClientRect().width)\
.map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width))"
INK = "getComputedStyle(document.querySelector('figure svg text')).fill"


@pytest.fixture
def chromium() -> str:
    return needs.chromium()


@pytest.fixture
def pages(tmp_path: Path) -> dict[str, Path]:
    """The page of a common run, and that of one whose every text is hostile."""
    rows = [outcome(row, latency_s=0.1 + row / 50) for row in range(60)]
    rows += [failed(row, kind) for row, kind in enumerate(("server", "timeout", "rate_limit"), 60)]
    told = [
        {"time": at(0), "event": "run_started"},
        {"time": at(4), "event": "limit_announced", "lane": "key", "requests_per_minute": 90},
        {"time": at(30), "event": "rate_learned", "lane": "key", "requests_per_minute": 70, "by": "sure"},
    ]
    bad = [Outcome(**hostile.row(n, text, ("exhausted", "succeeded")[n % 2])) for n, text in enumerate(hostile.TEXTS)]
    runs = {
        "common": made(tmp_path / "common", rows, rows=70, log=told),
        "hostile": made(tmp_path / "hostile", bad, rows=len(bad), manifest={"name": hostile.TEXTS[0]}),
    }
    for name, run in runs.items():
        ended = batchrunner("report", run, "--html", tmp_path / f"{name}.html")
        assert (ended.code, ended.err) == (0, ended.err), ended.err
    compare = batchrunner("compare", compared(tmp_path), "--by", "variant", "--html", tmp_path / "compared.html")
    assert compare.code == 0, compare.err
    return {name: tmp_path / f"{name}.html" for name in (*runs, "compared")}


def compared(folder: Path) -> Path:
    """Four variants of every hostile text, as prompt and as answer, named by hostile texts."""
    rows = [
        {"id": f"{case}/{way}", "case_id": text[:200], "variant": hostile.TEXTS[way], "prompt": text}
        for case, text in enumerate(hostile.TEXTS)
        for way in range(4)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.toml").write_text(COMPARED)
    ended = batchrunner("run", folder / "job.toml", "--simulate", "--max-failed", "100%")
    assert ended.code == 0, ended.err
    return folder / "compared.simulated"


def look(chromium: str, path: Path, *, width: int, dark: bool = False) -> Seen:
    seen = open_page(chromium, path.as_uri(), width=width, dark=dark, ask=(WIDER, CHARTS, FRAMES, TINY, INK))
    assert seen.errors == []
    assert [url for url in seen.requests if url not in (path.as_uri(), "data:,")] == []
    return seen


@pytest.mark.parametrize(("name", "drawn"), [("common", 5), ("hostile", 5), ("compared", 1)])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_whole_and_alone_at_any_width(chromium, pages, width: int, name: str, drawn: int):
    wider, charts, frames, scale, _ = look(chromium, pages[name], width=width).answers

    assert wider <= 0
    assert charts == drawn
    assert frames == 0
    assert scale > 0.85, "text in a chart is not scaled down until nobody can read it"


def test_charts_follow_light_and_dark(chromium, pages):
    light, dark = (look(chromium, pages["common"], width=1400, dark=is_dark) for is_dark in (False, True))

    assert light.answers[-1] != dark.answers[-1]
    assert light.picture != dark.picture


@pytest.mark.parametrize("name", ["common", "compared"])
def test_the_page_prints(chromium, pages, name: str):
    assert look(chromium, pages[name], width=1400).printed.startswith(b"%PDF")


def test_a_missing_package_is_named_before_anything_is_read(tmp_path: Path):
    (tmp_path / "altair.py").write_text("raise ImportError(name='altair')")

    ended = batchrunner(
        "report", made(tmp_path / "run", [], rows=0), "--html", tmp_path / "x.html", env={"PYTHONPATH": str(tmp_path)}
    )

    assert ended.code == 2
    assert "pip install 'batchrunner[report]'" in ended.err


def test_odd_charts_can_be_drawn(chromium):
    """One value, none, all alike, very large ones, very short and very long times."""
    artist = Artist()
    bars = [Bar(name=text, value=number) for number, text in enumerate(hostile.TEXTS[:25])]
    charts = [
        Bars(title="x", unit="items", bars=bars),
        Bars(title="x", unit="items", bars=[Bar(name="only", value=10**12, tone="good")]),
        Pace(title="x", unit="u", steps=[(0.0, 0.001, 0.0, None)]),
        Pace(title="x", unit="u", steps=[(0.0, 1e7, 1e9, 2e9), (1e7, 2e7, 0.0, None)], marks=[1e7]),
        Spans(title="x", unit="u", spans=[Span(name="only", mean=0.0, low=None, high=None)]),
        Spans(
            title="x",
            unit="u",
            spans=[
                Span(name=text, mean=10.0**n, low=-(10.0**n), high=1e15) for n, text in enumerate(hostile.TEXTS[:9])
            ],
        ),
        Spreads(title="x", unit="u", bars=[(0.1, 0.101, 1)], quantiles=[("p50", 0.1)]),
        Spreads(title="x", unit="u", bars=[(1e-4, 1.0, 10**9), (1.0, 1e4, 0)], quantiles=[("p50", 0.1), ("p99", 9e9)]),
    ]

    for chart in charts:
        for drawn in artist.draw(chart).values():
            assert drawn.startswith("<svg ")
            assert "NaN" not in drawn
            assert "Infinity" not in drawn
            assert "<script" not in drawn
