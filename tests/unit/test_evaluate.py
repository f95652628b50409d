"""Groups held against each other: figures that can be worked out by hand, intervals that hold what they say."""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from batchrunner.errors import JobError
from batchrunner.evaluate import Comparison, Mean, Pairing, Run, compare, gather_cases

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PLAIN = pa.schema(
    [
        ("item_id", pa.string()), ("row", pa.int64()), ("status", pa.string()), ("text", pa.string()),
        ("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64()), ("failed_prompt_tokens", pa.int64()),
        ("failed_completion_tokens", pa.int64()), ("cost_usd", pa.float64()), ("attempts", pa.int32()),
        ("latency_s", pa.float64()), ("model", pa.string()),
    ]
)  # fmt: skip
CASES = [("case_id", pa.string()), ("variant", pa.string()), ("repeat", pa.int64())]


def item(case: str, variant: str | None, score: float | None = None, **more: Any) -> dict[str, Any]:
    known = {
        "item_id": f"{case}/{variant}/1", "case_id": case, "variant": variant, "repeat": 1, "status": "succeeded",
        "text": "t", "prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 0.5, "attempts": 1, "latency_s": 1.0,
        "scores": {"right": score},
    }  # fmt: skip
    return known | more


def run_of(
    items: Iterable[dict[str, Any]], *, scores: Sequence[str] = ("right",), cases: bool = True, name: str = "A"
) -> Run:
    schema = pa.schema([*PLAIN, *(CASES if cases else [])])
    if scores:
        schema = schema.append(pa.field("scores", pa.struct([(score, pa.float64()) for score in scores])))
    rows = [{**each, "row": row} for row, each in enumerate(items)]
    table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema)
    return Run(name=name, columns=schema.names, batches=table.to_batches(max_chunksize=7))


def compared(items: Iterable[dict[str, Any]], by: str | None = "variant", **options: Any) -> Comparison:
    baseline = options.pop("baseline", None)
    return compare(gather_cases([run_of(items, **options)], by), baseline=baseline)


def mean_of(found: Comparison, group: str) -> Mean:
    return next(mean for mean in found.means if mean.group == group)


def pairing_of(found: Comparison, group: str) -> Pairing:
    return next(pairing for pairing in found.pairings if pairing.group == group)


def test_wins_losses_and_ties_are_counted_by_case():
    scores = {"a": [1, 0, 1, 1, 0.5], "b": [0, 1, 1, 0, 0.5]}
    items = [item(f"c{number}", name, scores[name][number]) for number in range(5) for name in scores]

    found = compared(items)

    assert (found.baseline, found.paired, [group.name for group in found.groups]) == ("a", True, ["a", "b"])
    assert (mean_of(found, "a").mean, mean_of(found, "b").mean) == (pytest.approx(0.7), pytest.approx(0.5))
    pairing = pairing_of(found, "b")
    assert (pairing.won, pairing.lost, pairing.tied, pairing.cases) == (1, 2, 2, 5)
    assert pairing.difference == pytest.approx(-0.2)
    assert [case.case for case in found.differing] == ["c0", "c1", "c3"]
    assert found.differing[0].scores == {"right": {"a": 1.0, "b": 0.0}}
    assert found.differing[0].items == {"a": (0, 0), "b": (0, 1)}


def test_items_without_a_score_are_left_out_and_never_zero():
    items = [item("x", "a", 1.0), item("x", "b", None, status="rejected"), item("y", "a", None), item("y", "b", 1.0)]

    found = compared(items)

    assert (mean_of(found, "a").cases, mean_of(found, "a").mean) == (1, 1.0)
    assert (mean_of(found, "b").cases, mean_of(found, "b").mean) == (1, 1.0)
    assert pairing_of(found, "b").cases == 0
    assert [(group.items, group.succeeded, group.failed) for group in found.groups] == [(2, 2, 0), (2, 1, 1)]


def test_repeats_are_one_case_by_their_mean():
    items = [item("x", "a", score, repeat=time) for time, score in enumerate([1, 1, 0], 1)]
    items += [item("x", "b", 0.5), item("y", "a", 0), item("y", "b", 0)]

    found = compared(items)

    assert (mean_of(found, "a").cases, mean_of(found, "a").mean) == (2, pytest.approx(1 / 3))
    assert (pairing_of(found, "b").lost, pairing_of(found, "b").tied) == (1, 1)


def test_repeats_do_not_make_an_interval_narrower_than_its_cases_allow():
    draw = random.Random(3)
    scores = [draw.random() < 0.5 for _ in range(30)]
    once = compared([item(f"c{number}", "a", float(score)) for number, score in enumerate(scores)])
    often = compared(
        [
            item(f"c{number}", "a", float(score), repeat=time)
            for number, score in enumerate(scores)
            for time in range(20)
        ]
    )

    assert mean_of(once, "a").interval == mean_of(often, "a").interval


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    """100 seeded trials of 60 cases: 95 % are to hold it, and fewer than 88 would be too few by any luck."""
    held = held_difference = 0
    for trial in range(100):
        draw = random.Random(trial)
        items = []
        for number in range(60):
            ease = draw.random()
            items += [item(f"c{number}", "a", float(draw.random() < ease)), item(f"c{number}", "b", draw.gauss(0.3, 1))]
        found = compared(items)
        interval, apart = mean_of(found, "a").interval, pairing_of(found, "b").interval
        assert interval
        assert apart
        held += interval.low <= 0.5 <= interval.high
        held_difference += apart.low <= -0.2 <= apart.high

    assert 88 <= held <= 100
    assert 88 <= held_difference <= 100


def test_the_same_items_always_give_the_same_figures():
    items = [item(f"c{number}", name, (number * 7 % 5) / 4) for number in range(40) for name in "ab"]

    assert compared(items) == compared(items)


def test_pairs_tell_more_than_groups_on_their_own():
    """What makes a case hard for one group makes it hard for the other: the interval of the difference is narrow."""
    draw = random.Random(1)
    items = []
    for number in range(80):
        ease = draw.random() * 10
        items += [item(f"c{number}", "a", ease), item(f"c{number}", "b", ease + 0.5 + draw.gauss(0, 0.1))]
    apart = [{**each, "case_id": each["item_id"]} for each in items]

    paired, alone = pairing_of(compared(items), "b"), pairing_of(compared(apart), "b")

    assert paired.interval
    assert alone.interval
    assert paired.interval.excludes_zero
    assert not alone.interval.excludes_zero
    assert paired.difference == pytest.approx(alone.difference)
    assert (alone.won, alone.lost, alone.tied) == (None, None, None)


def test_one_case_has_no_interval():
    found = compared([item("x", "a", 1.0), item("x", "b", 0.0)])

    assert mean_of(found, "a").interval is None
    assert (pairing_of(found, "b").difference, pairing_of(found, "b").interval) == (-1.0, None)


def test_an_unknown_price_leaves_its_groups_costs_unknown():
    items = [item("x", "a", 1), item("x", "b", 1, cost_usd=None), item("y", "b", 1), item("y", "a", 1, cost_usd=1.5)]

    found = compared(items)

    assert [(group.cost_usd, group.item_usd) for group in found.groups] == [(2.0, 1.0), (None, None)]


def test_a_copy_costs_nothing_and_is_no_unknown_price():
    found = compared([item("x", "a", 1, cost_usd=0.0, attempts=0), item("y", "a", 1, cost_usd=None, attempts=0)])

    assert found.groups[0].cost_usd == 0.0


def test_runs_are_paired_by_item_or_by_case():
    first = run_of([item("x", "v", 1), item("y", "v", 0)], name="monday")
    second = run_of(
        [{**item("y", "v", 1), "item_id": "y"}, {**item("z", "v", 1), "item_id": "z"}], cases=False, name="tuesday"
    )

    found = compare(gather_cases([first, second], None))

    assert [group.name for group in found.groups] == ["monday", "tuesday"]
    assert (pairing_of(found, "tuesday").won, pairing_of(found, "tuesday").cases) == (1, 1)
    assert found.differing[0].items == {"monday": (0, 1), "tuesday": (1, 0)}


def test_runs_and_a_column_make_groups_together():
    runs = [run_of([item("x", "a", 1), item("x", None, 0)], name=name) for name in ("one", "two")]

    found = compare(gather_cases(runs, "variant"), baseline="two a")

    assert [group.name for group in found.groups] == ["one a", "one (none)", "two a", "two (none)"]
    assert found.baseline == "two a"


def test_without_scores_cases_differ_by_outcome_then_by_text():
    items = [
        item("same", "a"), item("same", "b"),
        item("text", "a"), item("text", "b", text="other"),
        item("failed", "a"), item("failed", "b", status="rejected", text=None),
        item("alone", "a"),
    ]  # fmt: skip

    found = compared(items, scores=())

    assert found.means == []
    assert [case.case for case in found.differing] == ["failed", "text"]


def test_items_without_an_outcome_are_not_there_yet():
    found = compared([item("x", "a", 1), item("y", "a", None, status=None, text=None)])

    assert found.groups[0].items == 1


@pytest.mark.parametrize(
    ("by", "baseline", "said"),
    [
        ("varant", None, "--by varant: A has no such column; did you mean 'variant'?"),
        ("variant", "bb", "--baseline bb: no such group; did you mean 'b'?"),
        ("item_id", None, "more than 50 groups"),
    ],
)
def test_what_cannot_be_compared_is_said(by, baseline, said):
    items = [item(f"c{number}", name, 1) for number in range(40) for name in "ab"]

    with pytest.raises(JobError, match=re.escape(said)):
        compared(items, by, baseline=baseline)


def test_nothing_to_compare_is_said():
    with pytest.raises(JobError, match="no item has an outcome yet"):
        compared([])
