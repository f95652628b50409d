"""What `plan` says of the rest of a run, by its pilot, against what the rest then costs."""

from __future__ import annotations

import json
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest
from driving import Api, api, batchrunner, prompts, write_rows
from faulty_server import serve_in_thread

from batchrunner import plan, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ITEMS, PILOT = 200, 20
MODELS = ("gpt-4o-mini", "gpt-4.1-mini")


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A model whose answers are of very different length."""
    with api(tmp_path_factory.mktemp("api") / "log", length_sigma=0.9) as running:
        yield running


def varied(seed: int) -> list[dict[str, Any]]:
    """Questions about texts of very different length, to two models."""
    chance = Random(seed)
    words = ["one two three four five six seven eight "] * 400
    return [
        {
            "id": f"{seed}-{n}",
            "model": chance.choice(MODELS),
            "prompt": f"Item {seed} {n}: " + "".join(words)[: int(chance.lognormvariate(6, 1))],
        }
        for n in range(ITEMS)
    ]


def asked(simulator: Api) -> dict[str, Any]:
    return {"provider": "openai", "base_url": simulator.openai, "api_key": "none", "rpm": "none", "concurrency": 50}


@pytest.mark.slow
def test_a_pilot_of_twenty_tells_what_the_rest_costs_in_nine_of_ten_trials(tmp_path: Path, simulator: Api) -> None:
    costs, tokens, widths = [], [], []
    for seed in range(10):
        call = {"rows": varied(seed), "out": tmp_path / str(seed), **asked(simulator)}
        pilot = run(**call, limit=PILOT).summary
        estimate = plan(**call)["estimate"]
        whole = run(**call).summary

        assert estimate["calibrated_by"] == PILOT
        rest_usd = whole["cost_usd"] - pilot["cost_usd"]
        rest_tokens = sum(whole[name] - pilot[name] for name in ("prompt_tokens", "completion_tokens"))
        costs.append(estimate["cost_usd_at_least"] <= rest_usd <= estimate["cost_usd_at_most"])
        tokens.append(estimate["tokens_at_least"] <= rest_tokens <= estimate["tokens_at_most"])
        widths.append(estimate["cost_usd_at_most"] / estimate["cost_usd_at_least"])

    assert sum(costs) >= 9
    assert sum(tokens) >= 9
    assert median(widths) < 3


def test_the_command_line_tells_the_range_and_by_how_many_items(tmp_path: Path, simulator: Api) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", varied(7))
    words = [rows, "--provider", "openai", "--base-url", simulator.openai, "--out", tmp_path / "run"]

    before = batchrunner("plan", *words, "--show", 0).out
    batchrunner("run", *words, "--limit", PILOT)
    after = batchrunner("plan", *words, "--show", 0).out
    estimate = json.loads(batchrunner("plan", *words, "--json").out)["estimate"]

    assert "a guess until some are settled" in before
    assert "calibrated by 20 settled items" in after
    assert estimate["calibrated_near"] is True
    assert all(len(line) <= 80 for line in after.splitlines() if line.startswith(("tokens", "cost")))
    assert estimate["cost_usd_at_least"] < estimate["cost_usd"] < estimate["cost_usd_at_most"]
    assert (
        estimate["tokens_at_least"]
        < estimate["prompt_tokens"] + estimate["completion_tokens"]
        < estimate["tokens_at_most"]
    )


def test_a_guess_has_two_ends_too(tmp_path: Path, simulator: Api) -> None:
    estimate = plan(rows=varied(1), out=tmp_path / "run", **asked(simulator))["estimate"]

    assert estimate["calibrated"] is False
    assert 0 < estimate["cost_usd_at_least"] < estimate["cost_usd"] < estimate["cost_usd_at_most"]
    assert 0 < estimate["tokens_at_least"] < estimate["tokens_at_most"]


def test_answers_that_follow_the_length_of_the_prompt_are_expected_to(tmp_path: Path) -> None:
    """The pilot asks short questions, the rest long ones: a translation of ten times the text costs ten times."""
    rows = [*prompts(PILOT), *({"id": f"long{n}", "prompt": "word " * 400} for n in range(30))]
    for n, row in enumerate(rows[:PILOT]):
        row["prompt"] = "word " * (40 + 4 * n)

    def translated(seen: Any) -> dict[str, Any]:
        used = len(json.loads(seen.body)["messages"][0]["content"]) // 5
        return answer(prompt_tokens=used, completion_tokens=2 * used)

    with serve_in_thread() as server:
        server.default = translated
        call = {"rows": rows, "out": tmp_path / "run", **openai(server.url)}
        run(**call, limit=PILOT)
        estimate = plan(**call)["estimate"]

    assert estimate["completion_tokens"] == pytest.approx(30 * 800, rel=0.2)


@pytest.mark.parametrize(("seen", "rest"), [(10, 20_000), (20_000, 10), (400, 4_000), (4_000, 400)])
def test_prompts_of_quite_another_length_are_within_a_wider_range(tmp_path, simulator, seen, rest):
    lengths = [seen] * PILOT + [rest] * 40
    rows = [{"id": str(n), "prompt": (f"text {n} " * length)[:length]} for n, length in enumerate(lengths)]
    call = {"rows": rows, "out": tmp_path / "run", "model": MODELS[0], **asked(simulator)}

    pilot = run(**call, limit=PILOT).summary
    estimate = plan(**call)["estimate"]
    whole = run(**call).summary

    assert estimate["calibrated_near"] is False
    assert estimate["cost_usd_at_least"] <= whole["cost_usd"] - pilot["cost_usd"] <= estimate["cost_usd_at_most"]
    assert estimate["cost_usd_at_least"] < estimate["cost_usd"] < estimate["cost_usd_at_most"]


def test_items_that_are_refused_are_expected_among_the_rest(tmp_path: Path) -> None:
    rows = prompts(60)

    def every_fourth_refused(seen: Any) -> dict[str, Any]:
        if int(json.loads(seen.body)["messages"][0]["content"].split()[-1]) % 4 == 0:
            return {"status": 400, "body_json": {"error": {"code": "content_filter", "message": "not this one"}}}
        return answer(prompt_tokens=1_000_000, completion_tokens=0)

    with serve_in_thread() as server:
        server.default = every_fourth_refused
        call = {"rows": rows, "out": tmp_path / "run", **openai(server.url)}
        run(**call, limit=PILOT)
        estimate = plan(**call)["estimate"]

    assert estimate["prompt_tokens"] == pytest.approx(30 * 1_000_000, rel=0.1)


def test_answers_that_had_to_be_mended_belong_to_what_an_item_costs(tmp_path: Path) -> None:
    def invalid_at_first(seen: Any) -> dict[str, Any]:
        mended = len(json.loads(seen.body)["messages"]) > 1
        return answer(text='{"n": 1}' if mended else "no", prompt_tokens=100, completion_tokens=10)

    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    with serve_in_thread() as server:
        server.default = invalid_at_first
        expect = {"schema": schema, "repairs": 1}
        call = {"rows": prompts(60), "out": tmp_path / "run", "expect": expect, **openai(server.url)}
        paid = run(**call, limit=PILOT).summary["cost_usd"]
        estimate = plan(**call)["estimate"]

    assert estimate["completion_tokens"] == pytest.approx(40 * 20, rel=0.05)
    assert estimate["cost_usd"] == pytest.approx(2 * paid, rel=0.05)


def test_the_turns_of_an_item_are_counted_together(tmp_path: Path) -> None:
    rows = [{"id": str(n), "turns": ["What is tea?", "And coffee?", "Which is older?"]} for n in range(60)]
    with serve_in_thread() as server:
        server.default = lambda _: answer(prompt_tokens=100, completion_tokens=10)
        call = {"rows": rows, "out": tmp_path / "run", **openai(server.url)}
        paid = run(**call, limit=PILOT).summary["cost_usd"]
        estimate = plan(**call)["estimate"]

    assert (estimate["requests"], estimate["completion_tokens"]) == (120, 1200)
    assert estimate["cost_usd"] == pytest.approx(2 * paid)


def test_an_agent_whose_model_only_its_answers_name_has_a_cost_once_some_are_settled(tmp_path: Path) -> None:
    with serve_in_thread() as server:
        server.default = lambda _: answer(prompt_tokens=10, completion_tokens=5, model="gpt-4o-mini")
        call = {"rows": prompts(60), "out": tmp_path / "run", "provider": "tess", "agent_id": 1}
        call |= {"base_url": server.url, "api_key": "none", "rpm": "none"}
        before = plan(**call)["estimate"]
        paid = run(**call, limit=PILOT).summary["cost_usd"]
        after = plan(**call)["estimate"]

    assert before["cost_usd"] is before["cost_usd_at_least"] is None
    assert after["cost_usd"] == pytest.approx(2 * paid, rel=0.05)


def test_copies_cost_nothing_and_do_not_calibrate(tmp_path: Path) -> None:
    with serve_in_thread() as server:
        server.default = lambda _: answer(prompt_tokens=10, completion_tokens=5)
        call = {"rows": prompts(60), **openai(server.url)}
        run(**call, out=tmp_path / "first", limit=40)
        taken = {"out": tmp_path / "second", "reuse": {"from": [str(tmp_path / "first")]}}
        run(**call, **taken, limit=40)
        estimate = plan(**call, **taken)["estimate"]

    assert estimate["calibrated"] is False


def test_items_settled_before_the_input_grew_calibrate_it_still(tmp_path: Path) -> None:
    with serve_in_thread() as server:
        server.default = lambda _: answer(prompt_tokens=10, completion_tokens=5)
        call = {"out": tmp_path / "run", **openai(server.url)}
        run(rows=prompts(PILOT), **call)
        estimate = plan(rows=[*prompts(10, prefix="new"), *prompts(PILOT)], **call)["estimate"]

    assert (estimate["calibrated_by"], estimate["completion_tokens"]) == (PILOT, 10 * 5)


def test_a_job_that_asks_something_else_now_is_a_guess_again(tmp_path: Path) -> None:
    with serve_in_thread() as server:
        server.default = lambda _: answer(prompt_tokens=10, completion_tokens=5)
        call = {"rows": prompts(60), "out": tmp_path / "run", **openai(server.url)}
        run(**call, limit=PILOT)
        estimate = plan(**call, request={"temperature": 0.5})["estimate"]

    assert (estimate["calibrated"], estimate["completion_tokens"]) == (False, 60 * 5)


def openai(url: str) -> dict[str, Any]:
    return {"provider": "openai", "model": "gpt-4o-mini", "base_url": f"{url}/v1", "api_key": "none", "rpm": "none"}


def answer(*, text: str = "hi", model: str | None = None, **usage: int) -> dict[str, Any]:
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    named = {"model": model} if model else {}
    return {"status": 200, "body_json": {"choices": choices, "usage": usage, **named}}
