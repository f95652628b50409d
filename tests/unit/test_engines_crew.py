"""Shards as one run: what is shown of them, and how the whole ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from batchrunner.assemble import Place
from batchrunner.engines.crew import Ended, Relay, conclude, together, unfinished
from batchrunner.events import Progress
from batchrunner.spec import InputSpec, JobSpec, parse_max_failed

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Progress(
    name="job",
    done=10,
    total=100,
    succeeded=9,
    failed=1,
    failed_by_type={"server": 1},
    per_minute=300.0,
    limit_per_minute=600.0,
    in_flight=3,
    most_in_flight=8,
    slots=8,
    oldest_s=1.5,
    waiting=1,
    throttled=2,
    tokens=50,
    cost_usd=0.5,
    seconds=2.0,
    left_s=18.0,
    draining=False,
)


def progress(**changes: Any) -> Progress:
    facts = {name: getattr(PLAIN, name) for name in Progress.__slots__}
    return Progress(**{**facts, **changes})


def test_what_the_shards_have_done_adds_up():
    whole = together("job", [progress(), progress(done=20, failed_by_type={"server": 2, "bad_row": 1})], seconds=7.0)

    assert (whole.done, whole.total, whole.per_minute, whole.in_flight, whole.cost_usd) == (30, 200, 600.0, 6, 1.0)
    assert whole.failed_by_type == {"server": 3, "bad_row": 1}
    assert whole.seconds == 7.0


def test_a_rate_that_is_shared_counts_once_and_learned_ones_add_up():
    learned = progress(limit_per_minute=200.0, lanes=({"requests_by": "learned"},))

    assert together("job", [progress(), progress()], seconds=1).limit_per_minute == 600.0
    assert together("job", [learned, learned], seconds=1).limit_per_minute == 400.0
    assert together("job", [progress(cost_usd=None), progress()], seconds=1).cost_usd is None


def test_a_look_gives_what_is_new_since_the_last_one():
    relay = Relay(1.0)
    assert relay.look(0).began is None

    relay.began("new run x", {"total": 5})
    relay.say("one")
    relay.say("two")

    assert relay.look(0).lines == ("one", "two")
    assert relay.look(1).lines == ("two",)
    assert relay.look(2).began == {"total": 5, "line": "new run x"}


def shard(number: int, code: int = 0, **changes: Any) -> dict[str, Any]:
    items = {"total": 10, "succeeded": 10, "rejected": 0, "exhausted": 0, "unfinished": 0, "length": 0}
    return {
        "run": f"runs/x/shard-{number}-of-2",
        "exit": code,
        "reason": "finished" if not code else "why",
        "items": items | changes.pop("items", {}),
        "now": {"sent": 10, "settled_before": 0, "cost_usd": 0.25, "seconds": 3.0, "possibly_billed": 0},
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "cost_usd": 0.5,
        "possibly_billed": 0,
        "left_possibly_billed": 0,
        "failed_by_type": {},
        **changes,
    }


def ended(*shards: dict[str, Any], max_failed: str = "0", **changes: Any) -> dict[str, Any]:
    facts = {
        "job": JobSpec(name="x", input=InputSpec(path="rows.jsonl")),
        "run": "runs/x",
        "shards": shards,
        "seconds": 4.0,
        "command": "batchrunner run x.toml",
        "max_failed": parse_max_failed(max_failed),
    }
    return conclude(Ended(**{**facts, **changes}), lambda: "runs/x/results.parquet")


def test_all_shards_through_is_a_run_with_results():
    summary = ended(shard(0), shard(1))

    assert (summary["exit"], summary["type"], summary["results"]) == (0, "finished", "runs/x/results.parquet")
    assert (summary["items"]["total"], summary["now"]["sent"], summary["cost_usd"]) == (20, 20, 1.0)


def test_failed_items_are_judged_over_all_shards_together():
    """One shard has failed by its own measure; the run has not, or the other way round."""
    failed = shard(1, 3, items={"succeeded": 9, "rejected": 1})

    assert ended(shard(0), failed, max_failed="5%")["exit"] == 0
    assert ended(shard(0), failed)["exit"] == 3
    assert "show runs/x/shard-1-of-2 --failed" in ended(shard(0), failed)["commands"]["look"]


@pytest.mark.parametrize(("codes", "code"), [((0, 143), 143), ((14, 12), 12), ((16, 13), 16), ((17, 143), 17)])
def test_a_shard_that_did_not_get_through_says_how_the_run_ended(codes: tuple[int, int], code: int):
    summary = ended(*(shard(number, each) for number, each in enumerate(codes)))

    assert (summary["exit"], summary["results"]) == (code, None)
    assert summary["reason"].endswith(": why")
    assert summary["retryable"] == (code in (16, 143))


def test_an_empty_input_has_its_own_code_where_one_is_named():
    nothing = {"total": 0, "succeeded": 0}

    assert ended(shard(0, 99, items=nothing), shard(1, 99, items=nothing), skip_exit_code=99)["exit"] == 99


def test_a_lost_shard_without_a_run_counts_nothing(tmp_path: Path):
    lost = unfinished(Place(directory=tmp_path / "shard-0-of-2"), 143, "interrupted")

    summary = ended(lost, shard(1))

    assert (summary["exit"], summary["items"]["total"]) == (143, 10)
