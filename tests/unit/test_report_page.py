"""The report as people get it: the same on a terminal and as a page, and nothing in it but text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hostile
import pytest
from reading_pages import ATTRIBUTES, TAGS, NoCharts, Read
from report_runs import at, digest, failed, made, outcome

from batchrunner.console.text import clean
from batchrunner.records import Outcome
from batchrunner.report import document, page, report_lines
from batchrunner.report.html import element
from batchrunner.report.svg import INK, cleaned

if TYPE_CHECKING:
    from pathlib import Path

    from batchrunner.report import Digest


def written(found: Digest) -> str:
    return page(document(found), NoCharts(), at=0).decode()  # type: ignore[arg-type]


def lines(found: Digest) -> list[str]:
    return [*report_lines(document(found), clean)]


def hostile_run(directory: Path) -> Digest:
    texts = [*enumerate(hostile.TEXTS)]
    rows = [hostile.row(number, text, "succeeded" if number % 3 == 0 else "exhausted") for number, text in texts]
    log = [
        {
            "time": at(number),
            "event": event,
            "lane": text,
            "seconds": 2,
            "error": text,
            "reason": text,
            "concurrency": 3,
        }
        for number, text in texts
        for event in ("lane_paused", "concurrency_cut", text)
    ]
    run = made(directory, [Outcome(**row) for row in rows], rows=len(rows), log=log)
    everywhere = " ".join(hostile.TEXTS[:30])
    job: dict[str, Any] = {"provider": {"kind": everywhere, "base_url": everywhere}, "params": {everywhere: everywhere}}
    told = {"name": everywhere, "reason": everywhere, "exit": 4, "run": everywhere, "labels": {everywhere: everywhere}}
    return digest(run, texts=True, job=job, **told)


def test_nothing_of_an_item_becomes_markup(tmp_path: Path):
    found = Read(written(hostile_run(tmp_path)))

    assert found.tags <= TAGS
    assert found.attributes <= ATTRIBUTES
    assert all(link.startswith(("#", "data:,")) for link in found.links)
    assert found.open == []


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;", "</pre></article>"]
)
def test_hostile_text_is_shown_as_it_is(tmp_path: Path, text: str):
    """Escaped once: neither run nor changed."""
    shown = Read(written(digest(made(tmp_path, [failed(0, error=text)], rows=1), texts=True))).text

    assert text in shown


def test_no_control_character_gets_into_the_page(tmp_path: Path):
    shown = written(hostile_run(tmp_path))

    assert not set(shown) & {*map(chr, range(32)), "\x7f", "\u202e", "\u2066"} - {"\n", "\t"}


def test_no_control_character_gets_to_the_terminal(tmp_path: Path):
    shown = "".join(lines(hostile_run(tmp_path)))

    assert not set(shown) & {*map(chr, range(32)), "\x7f", "\x9b", "\u202e"}


def test_the_page_of_hostile_texts_stays_small(tmp_path: Path):
    assert len(written(hostile_run(tmp_path)).encode()) < 500_000


def test_the_page_allows_itself_nothing(tmp_path: Path):
    shown = written(digest(made(tmp_path, map(outcome, range(3)), rows=3)))

    assert 'content="default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;; img-src data:' in shown
    assert "http://" not in shown.replace("http://www.w3.org", "")
    assert "https://" not in shown
    assert "url(" not in shown


def test_terminal_lines_fit(tmp_path: Path):
    assert max(map(len, lines(hostile_run(tmp_path)))) <= 80


def test_the_terminal_says_what_the_page_says(tmp_path: Path):
    rows = [
        *map(outcome, range(40)),
        *(failed(row, kind) for row, kind in enumerate(("server", "timeout", "empty"), 40)),
    ]
    found = digest(made(tmp_path, rows, rows=50, log=[{"time": at(3), "event": "lane_up", "lane": "key"}]))

    on_terminal, on_page = "\n".join(lines(found)), Read(written(found)).text

    for section in document(found).sections:
        assert section.title.upper() in on_terminal
        assert section.title in on_page
        for grid in section.grids:
            for cell in (cell for row in grid.rows for cell in row):
                assert cell in on_terminal
                assert cell in on_page


def test_the_prompt_is_not_told_where_the_input_is_gone(tmp_path: Path):
    shown = Read(written(digest(made(tmp_path, [failed(0), outcome(1)], rows=2), texts=True))).text

    assert "cannot be read any more" in shown
    assert "answer 1" in shown


def test_an_unknown_price_is_no_sum(tmp_path: Path):
    found = digest(made(tmp_path, [outcome(0, cost_usd=None), outcome(1)], rows=2))

    assert "Cost $0.0010 without 1 item whose price is not known" in "\n".join(lines(found))


def test_a_text_is_an_element_only_by_the_builder():
    assert element("p", "<b>", element("b", "&"), None) == "<p>&lt;b&gt;<b>&amp;</b></p>"
    assert element("p", class_='"><script>', data_head=None) == '<p class="&quot;&gt;&lt;script&gt;"></p>'


def test_a_drawing_keeps_only_what_draws():
    drawn = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="5" viewBox="0 0 10 5" onload="x()">'
        "<script>x()</script>"
        f'<g clip-path="url(#clip0)"><rect fill="{INK}" onclick="x()" style="x:1"/><text>&lt;b&gt;</text></g>'
        '<a href="javascript:x()"><rect/></a><image href="http://example.com"/><foreignObject><p/></foreignObject></svg>'
    )

    found = cleaned(drawn, prefix="c1-")

    assert found == (
        '<svg viewBox="0 0 10 5" aria-hidden="true" focusable="false" style="max-width:10px">'
        '<g clip-path="url(#c1-clip0)"><rect fill="var(--ink)" /><text>&lt;b&gt;</text></g></svg>'
    )
