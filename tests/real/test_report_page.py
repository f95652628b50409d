"""The pages of `report` and `compare` with their charts, opened in Chromium: phone, desktop, light, dark, printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driving import batchrunner
from real import needs
from real.browser import Seen, open_page
from report_runs import at, failed, made, outcome

from batchrunner.records import Outcome
from batchrunner.report import Artist
from batchrunner.report.sections import Bar, Bars, Intervals, Pace, Spreads, Whisker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

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
    return {name: tmp_path / f"{name}.html" for name in runs}


def look(chromium: str, path: Path, *, width: int, dark: bool = False) -> Seen:
    seen = open_page(chromium, path.as_uri(), width=width, dark=dark, ask=(WIDER, CHARTS, FRAMES, TINY, INK))
    assert seen.errors == []
    assert [url for url in seen.requests if url not in (path.as_uri(), "data:,")] == []
    return seen


@pytest.mark.parametrize("name", ["common", "hostile"])
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_is_whole_and_alone_at_any_width(chromium, pages, width: int, name: str):
    wider, charts, frames, scale, _ = look(chromium, pages[name], width=width).answers

    assert wider <= 0
    assert charts == 5
    assert frames == 0
    assert scale > 0.85, "text in a chart is not scaled down until nobody can read it"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run of three variants, with names and prompts that try to be more than text."""
    folder: Path = tmp_path_factory.mktemp("compared")
    rows = [
        {
            "id": f"{case} {variant}",
            "prompt": f"{hostile.TEXTS[case % 19]} of {case}",
            "case_id": f"{hostile.TEXTS[case % 19]} {case}",
            "variant": variant,
            "scores": {"exact": float((case + number) % 3 == 0), hostile.TEXTS[0]: case / 30 + number / 9},
        }
        for case in range(30)
        for number, variant in enumerate(("short", hostile.TEXTS[1], "W" * 300))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    words = ("--provider", "openai", "--model", "gpt-4o-mini", "--simulate", "--rpm", "none", "--out", folder / "run")
    ran = batchrunner("run", folder / "rows.parquet", *words)
    assert ran.code == 0, ran.err
    ended = batchrunner("compare", folder / "run.simulated", "--html", folder / "page.html")
    assert ended.code == 0, ended.err
    return folder / "page.html"


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_of_a_comparison_is_whole_and_alone_at_any_width(chromium, comparison: Path, width: int):
    light, dark = (look(chromium, comparison, width=width, dark=is_dark) for is_dark in (False, True))

    wider, charts, frames, scale, ink = light.answers
    assert wider <= 0
    assert charts == 2
    assert frames == 0
    assert scale > 0.85
    assert ink != dark.answers[-1]
    assert light.printed.startswith(b"%PDF")


def test_charts_follow_light_and_dark(chromium, pages):
    light, dark = (look(chromium, pages["common"], width=1400, dark=is_dark) for is_dark in (False, True))

    assert light.answers[-1] != dark.answers[-1]
    assert light.picture != dark.picture


def test_the_page_prints(chromium, pages):
    assert look(chromium, pages["common"], width=1400).printed.startswith(b"%PDF")


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
        Spreads(title="x", unit="u", bars=[(0.1, 0.101, 1)], quantiles=[("p50", 0.1)]),
        Intervals(title="x", rows=[Whisker(name="only", value=1.0, low=1.0, high=1.0)], base=1.0),
        Intervals(title="x", rows=[Whisker(name=t, value=0.0, low=-1e9, high=1e9) for t in hostile.TEXTS], base=None),
        Intervals(title="x", rows=[Whisker(name=t, value=1e-9, low=0.0, high=1e-8) for t in "ab"], base=1e-9),
        Spreads(title="x", unit="u", bars=[(1e-4, 1.0, 10**9), (1.0, 1e4, 0)], quantiles=[("p50", 0.1), ("p99", 9e9)]),
    ]

    for chart in charts:
        for drawn in artist.draw(chart).values():
            assert drawn.startswith("<svg ")
            assert "NaN" not in drawn
            assert "Infinity" not in drawn
            assert "<script" not in drawn
