"""A comparison as people get it: who is ahead in the first sentence, in 80 columns, and nothing of it markup."""

from __future__ import annotations

import hostile
import pytest
from compare_runs import compared, contrasted, item, rows, schema
from reading_pages import ATTRIBUTES, TAGS, NoCharts, Read

from batchrunner.console.text import clean
from batchrunner.report import Contrast, cells, comparison_document, page, report_lines, verdict
from batchrunner.report.verdict import digits, times

SOUND = [text.encode("utf-8", "replace").decode() for text in hostile.TEXTS]


def pairs(*scores: tuple[float | None, float | None], **dear: float | None) -> list[dict[str, object]]:
    """Cases that were asked in two ways; `dear` is what the second way costs."""
    return [
        item(f"c{n}", name, value, **(dear if name == "long" else {}))
        for n, both in enumerate(scores)
        for name, value in zip(("short", "long"), both, strict=True)
    ]


def lines(found: Contrast) -> list[str]:
    return [*report_lines(comparison_document(found), clean)]


def read(found: Contrast) -> Read:
    return Read(page(comparison_document(found), NoCharts(), at=0).decode())  # type: ignore[arg-type]


def nasty() -> Contrast:
    """Groups, cases, answers and the names of scores that try to be more than text."""
    texts = [*SOUND[:8], "日本語" * 40, "\x1b[2Jred\x07", "A" * 5000]
    return contrasted([item(f"{case}", text, n % 3 / 2, text=text) for case in SOUND for n, text in enumerate(texts)])


def test_the_first_sentence_says_who_is_ahead_in_what_and_what_it_costs():
    items = pairs(*[(0.0, 1.0)] * 12, *[(1.0, 0.0)] * 2, *[(1.0, 1.0)] * 16, cost_usd=0.0018)

    first, *_ = verdict(compared(items))

    assert first.startswith("long is ahead of short in exact by 0.33 (0.")
    assert first.endswith("), 12 cases won, 2 lost, 16 tied; it costs 1.8 times as much.")


def test_the_baseline_may_be_ahead():
    first, *_ = verdict(compared(pairs(*[(1.0, 0.0)] * 25, (0.0, 1.0), cost_usd=0.002)))

    assert first.startswith("short is ahead of long in exact by 0.92 (0.")
    assert first.endswith("25 cases won, 1 lost, 0 tied; it costs 0.5 times as much.")


def test_an_interval_that_includes_zero_is_said_to():
    first, *_ = verdict(compared(pairs(*[(0.0, 1.0)] * 12, *[(1.0, 0.0)] * 10)))

    assert "long is ahead of short in exact by 0.09, but the interval of the difference includes zero (-0." in first


def test_equals_are_level():
    first, *_ = verdict(compared(pairs(*[(0.5, 0.5)] * 30)))

    assert first.startswith("long and short are level in exact (0.00 to 0.00), 0 cases won, 0 lost, 30 tied")


def test_a_single_case_has_no_interval():
    first, *rest = verdict(compared(pairs((0.0, 1.0))))

    assert "by 1.00, of too few cases for an interval, 1 case won" in first
    assert "1 case to compare is few: there is no interval." in rest


def test_an_unknown_price_is_said_to_be():
    first, *_ = verdict(compared(pairs((0.0, 1.0), (0.0, 1.0), cost_usd=None)))

    assert first.endswith("what an item costs is unknown.")


def test_of_several_groups_the_one_that_stands_best_is_named():
    items = [item(f"c{n}", name, value) for n in range(30) for name, value in (("a", 0.1), ("b", 0.3), ("c", 0.9))]

    said = verdict(compared(items))

    assert said[0].startswith("c is ahead of a in exact by 0.80")


def test_many_intervals_are_warned_of():
    items = [item(f"c{n}", name, n % 2) for n in range(30) for name in "abcdef"]

    assert "Of 5 intervals at 95 % about one in twenty leaves out zero by chance." in verdict(compared(items))
    assert not any("intervals at 95 %" in said for said in verdict(compared(items[:6])))


def test_groups_that_share_no_case_are_said_to_have_nothing_to_win():
    items = [item(f"c{n}", "ab"[n % 2], n % 3 / 2) for n in range(60)]
    found = contrasted(rows(items, schema(cases=False)), texts=False)

    told = " ".join(lines(found))

    assert "no case in common nothing can be won or lost by case" in told
    assert "group  difference           95 %  cases" in told
    assert "No case is in more than one group" in told


def test_without_scores_outcomes_and_answers_are_compared():
    plain = schema(scores=None)
    items = [item("c", "a"), item("c", "b", text=None, status="rejected", cost_usd=0.002)]

    told = " ".join(lines(contrasted(rows(items, plain))))

    assert "The groups have no scores" in told
    assert "b succeeded in 0 % of its items, a in 100 %; it costs 2 times as much." in told
    assert "succeeded failed agree" in " ".join(told.split())


def test_a_lone_group_has_nothing_to_be_held_against():
    assert verdict(compared([item("c", "a", 1.0)])) == ["There is one group only, a: nothing to hold it against."]


def test_groups_that_agree_are_said_to():
    assert "None: the scores of all groups agree." in lines(contrasted(pairs((1.0, 1.0), (0.0, 0.0))))


def test_how_far_repeats_agree_is_told_where_there_are_any():
    asked = [
        item(f"c{n}", name, score, repeat=repeat, text=f"{score}")
        for n in range(3)
        for name in ("short", "long")
        for repeat, score in enumerate((1.0, 0.0 if n == 0 else 1.0))
    ]

    told = lines(contrasted(asked))
    alone = lines(contrasted(pairs((1.0, 1.0), (0.0, 0.0))))

    grouped, scored = (line.split() for line in told if line.startswith("short "))
    assert grouped[4:6] == ["66.7", "%"]
    assert "0.41" in scored
    assert max(map(len, told)) <= 80
    assert not any("alike" in line.lower() or "spread" in line.lower() for line in alone)


def test_items_without_a_score_are_counted_apart():
    told = lines(contrasted(pairs((1.0, 1.0), (1.0, None))))

    assert "An item without a score counts nowhere; it is not a 0." in told
    assert next(line for line in told if line.startswith("long ") and line.endswith("  1")).split()[-2:] == ["1", "1"]


def test_terminal_lines_fit_whatever_the_names_are():
    told = lines(nasty())

    assert max(map(len, told)) <= 80
    assert max(map(cells.width, told)) <= 80


def test_wide_letters_take_two_columns():
    assert cells.width("日本 a") == 6
    assert [cells.cut("日本語", most) for most in range(7)] == ["", "…", "…", "日…", "日…", "日本…", "日本語"]
    assert all(cells.width(line) <= 10 for line in cells.wrapped("日本語 日本語日本語 abc", 10))
    assert "".join(cells.wrapped("日本語日本語", 5)) == "日本語日本語"


def test_long_names_that_differ_at_either_end_are_told_apart():
    names = [f"{model}-of-a-vendor-with-a-long-name+{heat}" for model in ("small", "large") for heat in ("0", "0.5")]
    told = lines(contrasted([item(f"c{n}", name, n % 2) for n in range(3) for name in names]))

    starts = {line.split()[0] for line in told if "…" in line and line[:5] in ("small", "large")}
    assert {(start[:5], start.rpartition("+")[2]) for start in starts} == {
        (model, heat) for model in ("small", "large") for heat in ("0", "0.5")
    }
    assert max(map(len, told)) <= 80


def test_no_control_character_gets_to_the_terminal():
    assert not set("".join(lines(nasty()))) & {*map(chr, range(32)), "\x7f", "\x9b", "\u202e"}


def test_nothing_of_an_answer_becomes_markup():
    found = read(nasty())

    assert found.tags <= TAGS
    assert found.attributes <= ATTRIBUTES
    assert all(link.startswith(("#", "data:,")) for link in found.links)
    assert found.open == []


def test_a_reply_that_is_a_script_is_shown_as_it_is():
    items = [item("c", "a", 0.0, text="<script>alert(1)</script>"), item("c", "b", 1.0)]

    found = read(contrasted(items))

    assert "script" not in found.tags
    assert "<script>alert(1)</script>" in found.text


def test_the_page_shows_what_was_asked_and_each_answer():
    told = read(contrasted(pairs((0.0, 1.0)))).text

    assert "prompt, as sent for short" in told
    assert "user: ask 0" in told
    assert "short says c0" in told
    assert "long: exact 1.00" in told
    assert "long says c0" in told


def test_only_the_texts_of_cases_that_are_shown_are_read():
    table = rows(pairs(*[(1.0, 1.0)] * 20, (0.0, 1.0)))

    contrasted(table)

    assert table.asked == [{40, 41}]


def test_no_text_is_read_for_a_terminal():
    table = rows(pairs((0.0, 1.0)))

    contrasted(table, texts=False)

    assert table.asked == []


def test_many_groups_are_shown_by_their_ends():
    items = [item("c", f"g{n}", n / 10) for n in range(6)]

    told = lines(contrasted(items))

    assert any(line.split() == ["c", "0.00", "g0", "0.50", "g5"] for line in told)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.14, 0.02), ["0.14", "0.02"]),
        ((0.004, 0.1), ["0.004", "0.100"]),
        ((-0.0, 1234.5), ["0.00", "1,234.50"]),
        ((0.00001, 0.2), ["0.0000", "0.2000"]),
        ((), []),
    ],
)
def test_numbers_have_as_many_decimals_as_they_need(values: tuple[float, ...], said: list[str]):
    assert digits(*values) == said


@pytest.mark.parametrize(
    ("one", "said"),
    [(1.8, "1.8 times as much"), (1.02, "about as much"), (1.07, "1.07 times as much"), (25.0, "25 times as much")],
)
def test_how_often_is_said_in_few_figures(one: float, said: str):
    assert times(one, 1.0, "much") == said
