"""What groups come to against each other: means by case, wins and losses, what is unknown, what differs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from compare_runs import compared, item, rows, schema

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from batchrunner.evaluate import Comparison, Match, Standing


def standing(found: Comparison, group: str, score: str = "exact") -> Standing:
    return next(each for each in found.standings if (each.group, each.score) == (group, score))


def match(found: Comparison, group: str) -> Match:
    return next(each for each in found.matches if each.group == group)


def test_means_differences_wins_and_losses_by_hand():
    one, other = (1.0, 0.0, 0.0, 0.5), (1.0, 1.0, 1.0, 0.0)
    items = [item(f"c{n}", name, value) for name, all_ in (("a", one), ("b", other)) for n, value in enumerate(all_)]

    found = compared(items)

    assert [group.name for group in found.groups] == ["a", "b"]
    assert standing(found, "a").mean == pytest.approx(0.375)
    assert standing(found, "b").mean == pytest.approx(0.75)
    against = match(found, "b")
    assert against.difference == pytest.approx(0.375)
    assert (against.won, against.lost, against.tied, against.cases, against.alone) == (2, 1, 1, 4, 0)


def test_a_hairs_breadth_is_a_tie():
    found = compared([item("c", "a", 0.1 + 0.2), item("c", "b", 0.3)])

    assert (match(found, "b").won, match(found, "b").lost, match(found, "b").tied) == (0, 0, 1)


def test_repeats_count_as_one_case_by_their_mean():
    """Case c1 was asked three times, c2 once: each counts as much."""
    asked = [item("c1", "a", value, repeat=n) for n, value in enumerate((1.0, 1.0, 0.0))] + [item("c2", "a", 0.0)]

    found = standing(compared(asked), "a")

    assert found.cases == 2
    assert found.mean == pytest.approx(1 / 3)


def test_repeats_do_not_narrow_the_interval():
    """The same answer ten times over says nothing more than once."""
    chance = random.Random(3)
    scores = {f"c{n}": float(chance.random() < 0.5) for n in range(40)}
    once = compared([item(case, "a", value) for case, value in scores.items()])
    often = compared([item(case, "a", value, repeat=n) for n in range(10) for case, value in scores.items()])

    assert standing(once, "a").interval == standing(often, "a").interval


def test_how_far_repeats_agree():
    """Of two cases with repeats one is always answered alike; a repeat that failed is not held against it."""
    asked = [
        item("c1", "a", 1.0, repeat=1, text="yes"),
        item("c1", "a", 1.0, repeat=2, text="yes"),
        item("c1", "a", None, repeat=3, text=None, status="exhausted"),
        item("c2", "a", 1.0, repeat=1, text="yes"),
        item("c2", "a", 0.0, repeat=2, text="no"),
        item("c3", "a", 0.0, repeat=1, text="no"),
        item("c1", "b", 1.0, repeat=1, text="yes"),
    ]

    found = compared(asked)

    assert [(group.repeated, group.alike) for group in found.groups] == [(2, 1), (0, 0)]
    # Within c1 scores do not vary; within c2 by a variance of one half.
    assert standing(found, "a").spread == pytest.approx(0.25**0.5)
    assert standing(found, "b").spread is None


def test_the_interval_of_paired_cases_is_narrower_than_that_of_strangers():
    chance = random.Random(4)
    ease = [chance.random() for _ in range(80)]
    paired = [
        item(f"c{n}", name, value + more) for n, value in enumerate(ease) for name, more in (("a", 0), ("b", 0.05))
    ]
    apart = [
        item(f"{name}{n}", name, value + more) for n, value in enumerate(ease) for name, more in (("a", 0), ("b", 0.05))
    ]

    together, strangers = match(compared(paired), "b"), match(compared(apart), "b")

    assert together.interval is not None
    assert strangers.interval is not None
    assert together.interval.excludes_zero
    assert not strangers.interval.excludes_zero
    assert (strangers.paired, strangers.won, strangers.lost, strangers.tied) == (False, None, None, None)
    assert strangers.difference == pytest.approx(together.difference)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_what_is_not_scored_counts_nowhere(value: float | None):
    items = [item("c1", "a", 1.0), item("c2", "a", value), item("c1", "b", 0.5), item("c2", "b", 0.5)]

    found = compared(items)

    assert (standing(found, "a").mean, standing(found, "a").cases, standing(found, "a").unscored) == (1.0, 1, 1)
    assert (match(found, "b").cases, match(found, "b").alone, match(found, "b").difference) == (1, 1, -0.5)


def test_a_failed_repeat_is_left_out_of_its_case():
    items = [item("c", "a", 1.0, repeat=1), item("c", "a", None, repeat=2, status="rejected", text=None)]

    found = compared(items)

    assert (standing(found, "a").mean, standing(found, "a").unscored) == (1.0, 1)
    assert (found.groups[0].items, found.groups[0].succeeded) == (2, 1)


def test_a_group_that_nobody_scored_has_no_mean():
    found = compared([item("c", "a", 1.0), item("c", "b", None)])

    assert (standing(found, "b").mean, standing(found, "b").interval) == (None, None)
    assert match(found, "b").difference is None


def test_an_unknown_price_stays_unknown():
    found = compared(
        [item("c1", "a"), item("c2", "a", cost_usd=None), item("c1", "b"), item("c2", "b", cost_usd=0.003)]
    )

    assert (found.groups[0].cost_usd, found.groups[0].cost_per_item_usd) == (None, None)
    assert found.groups[1].cost_usd == pytest.approx(0.004)
    assert found.groups[1].cost_per_item_usd == pytest.approx(0.002)


def test_what_was_copied_has_neither_cost_nor_time():
    items = [
        item("c1", "a", latency_s=1.0, cost_usd=0.002),
        item("c2", "a", origin="reused", latency_s=9.0, cost_usd=0),
    ]

    group = compared(items).groups[0]

    assert (group.items, group.sent, group.cost_per_item_usd, group.latency_p95_s) == (2, 1, 0.002, 1.0)


def test_a_revised_verdict_leaves_what_an_answer_cost():
    asked = [item("c1", "a", origin="reparsed"), item("c2", "a"), item("c1", "b"), item("c2", "b")]

    one, other = compared(asked).groups

    assert (one.sent, one.cost_per_item_usd, one.latency_p50_s) == (2, other.cost_per_item_usd, other.latency_p50_s)


def test_a_row_that_was_never_sent_leaves_the_price_known():
    items = [item("c1", "a"), item("c2", "a", status="rejected", attempts=0, cost_usd=None, prompt_tokens=None)]

    group = compared(items).groups[0]

    assert (group.cost_usd, group.cost_per_item_usd, group.tokens_per_item) == (0.001, 0.001, 50.0)


def test_groups_come_in_order_of_appearance_the_baseline_first():
    items = [item("c", name, 0.0) for name in ("b", "a", None, "")]

    assert [group.name for group in compared(items).groups] == ["b", "a", "(none)", "(empty)"]
    assert [group.name for group in compared(items, baseline="(none)").groups] == ["(none)", "b", "a", "(empty)"]


def test_a_value_called_none_is_not_the_group_of_nulls():
    found = compared([item("c", "(none)", 1.0), item("c", None, 0.0)])

    assert [group.name for group in found.groups] == ["(none)", "(none) (2)"]
    assert [each.mean for each in found.standings] == [1.0, 0.0]


def test_runs_are_groups_and_runs_by_a_column_too():
    one, other = [item("c", "x", 0.0), item("c", "y", 0.5)], [item("c", "x", 1.0)]

    assert [group.name for group in compared(one, other, by=None).groups] == ["A", "B"]
    assert [group.name for group in compared(one, other).groups] == ["A/x", "A/y", "B/x"]
    assert match(compared(one, other, by=None), "B").difference == 0.75


def test_without_case_ids_runs_are_paired_by_item():
    plain = schema(cases=False)
    one, other = (rows([item("c", "x", value, item_id="i1")], plain) for value in (0.0, 1.0))

    against = match(compared(one, other, by=None), "B")

    assert (against.paired, against.won, against.cases) == (True, 1, 1)


def test_without_case_ids_groups_of_one_run_are_not_paired():
    items = [item(f"c{n}", "ab"[n % 2], n % 3 / 2) for n in range(12)]

    found = compared(rows(items, schema(cases=False)))

    assert not match(found, "b").paired
    assert (found.shared_cases, found.differing_cases) == (0, 0)


def test_runs_with_other_scores_have_all_of_them():
    one = rows([item("c", "x", 1.0)])
    other = rows([item("c", "x", scores={"f1": 0.5})], schema(scores=pa.struct([("f1", pa.float32())])))

    found = compared(one, other, by=None)

    assert list(found.scores) == ["exact", "f1"]
    assert [(each.score, each.group, each.mean) for each in found.standings] == [
        ("exact", "A", 1.0), ("exact", "B", None), ("f1", "A", None), ("f1", "B", 0.5),
    ]  # fmt: skip


def test_a_column_called_scores_that_holds_none_is_no_score():
    found = compared(rows([item("c", "a", scores="good")], schema(scores=pa.string())))

    assert list(found.scores) == []


def test_yes_and_no_are_scores():
    found = compared(rows([item("c", "a", scores={"ok": True})], schema(scores=pa.struct([("ok", pa.bool_())]))))

    assert standing(found, "a", "ok").mean == 1.0


def test_the_same_items_in_another_order_give_the_same_figures():
    chance = random.Random(5)
    items = [{"row": n, **item(f"c{n // 2}", "ab"[n % 2], chance.random())} for n in range(60)]
    turned = sorted(items, key=lambda each: (each["variant"], -each["row"]))

    assert compared(items).matches == compared(turned).matches
    assert compared(items).differing == compared(turned).differing


def test_the_cases_furthest_apart_come_first_then_by_their_id():
    scores = {"c3": (0.0, 1.0), "c1": (1.0, 0.0), "c2": (0.5, 0.75), "c0": (0.5, 0.5)}
    items = [item(case, name, value) for case, both in scores.items() for name, value in zip("ab", both, strict=True)]

    found = compared(items)

    assert [case.case for case in found.differing] == ["c1", "c3", "c2"]
    assert (found.differing_cases, found.shared_cases) == (3, 4)
    assert [seen.scores for seen in found.differing[0].seen] == [{"exact": 1.0}, {"exact": 0.0}]


def test_without_scores_other_outcomes_come_before_other_answers():
    plain = schema(scores=None)
    texts = {"c0": ("x", "x"), "c1": ("x", "y"), "c2": ("x", None)}
    items = [
        item(case, name, text=text, status="succeeded" if text else "rejected")
        for case, both in texts.items()
        for name, text in zip("ab", both, strict=True)
    ]

    found = compared(rows(items, plain))

    assert [(case.case, case.answers_differ) for case in found.differing] == [("c2", False), ("c1", True)]


def test_items_without_an_outcome_are_left_out_and_counted():
    found = compared([item("c", "a", 1.0), item("c", "b", status=None)])

    assert found.unfinished == 1
    assert [group.name for group in found.groups] == ["a"]


def test_nothing_to_compare_is_said():
    with pytest.raises(JobError, match="no item has an outcome yet"):
        compared([item("c", "a", status=None)])


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("varaint", "did you mean 'variant'"),
        ("scores", "expected a column of single values"),
        ("zzz", "found: item_id"),
    ],
)
def test_a_column_that_does_not_group_is_refused(by: str, said: str):
    with pytest.raises(JobError, match=said):
        compared([item("c", "a", 1.0)], by=by)


def test_too_many_groups_are_refused():
    with pytest.raises(JobError, match=r"--by item_id: more than 50 groups"):
        compared([item(f"c{n}", "a", 1.0) for n in range(60)], by="item_id")


def test_an_unknown_baseline_names_the_nearest():
    with pytest.raises(JobError, match=r"--baseline lnog: no such group; did you mean 'long'\?"):
        compared([item("c", "long", 1.0), item("c", "short", 1.0)], baseline="lnog")


def test_numbers_and_truth_values_group_too():
    assert [group.name for group in compared([item("c", "a", 1.0, repeat=n) for n in (2, 1)], by="repeat").groups] == [
        "2", "1",
    ]  # fmt: skip
