"""Answers repeat, and look like answers."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.simulator.answers import answer
from batchrunner.simulator.asks import read
from batchrunner.simulator.chance import latency_s, lot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("messages", "tools", "tool_choice", "n", "max_tokens", "model", "response_format", "stream_options")


def said(body: dict[str, Any], seed: int = 0) -> Any:
    return answer(read(body), lot=lot(seed, json.dumps(body).encode()), seed=seed, model="m")


def asking(text: str, **fields: object) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}], **fields}


def test_the_same_seed_and_body_give_the_same_answer() -> None:
    assert said(asking("hello"), seed=7) == said(asking("hello"), seed=7)


def test_another_seed_or_body_gives_another_answer() -> None:
    answers = {said(asking(text), seed=seed).answer_id for text in ("a", "b") for seed in (0, 1)}

    assert len(answers) == 4


def test_the_answer_names_the_first_words_of_the_last_user_message() -> None:
    body = asking("ignored")
    body["messages"].append({"role": "user", "content": [{"type": "text", "text": "Is the printer on fire again?"}]})

    assert "Is the printer on fire again" in said(body).choices[0].text


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "json_object"}}])
def test_who_asks_for_json_gets_json(fields: dict[str, object]) -> None:
    text = "Classify: my card was charged twice" if fields else 'Answer in JSON: "quoted"'

    verdict = json.loads(said(asking(text, **fields)).choices[0].text)

    assert list(verdict) == ["label", "confidence", "reason"]
    assert 0.5 <= verdict["confidence"] <= 1


def test_a_small_maximum_cuts_the_answer() -> None:
    completion = said(asking("hello", max_tokens=5))

    assert (completion.choices[0].finish_reason, completion.completion_tokens) == ("length", 5)


def test_a_large_maximum_does_not() -> None:
    assert said(asking("hello", max_tokens=5_000)).choices[0].finish_reason == "stop"


def test_several_choices_differ_and_are_counted_together() -> None:
    completion = said(asking("hello", n=3))

    assert len({choice.text for choice in completion.choices}) > 1
    assert completion.completion_tokens == sum(choice.completion_tokens for choice in completion.choices)


def test_a_hosted_tool_is_not_called() -> None:
    assert said(asking("hello", tools=[{"type": "mcp", "ref": "exa"}])).choices[0].finish_reason == "stop"


@given(body=st.dictionaries(st.sampled_from(FIELDS), JSON), parameters=JSON)
def test_no_body_makes_the_model_fail(body: dict[str, Any], parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    messages = body.get("messages")
    body["messages"] = messages if isinstance(messages, list) else []

    for tools in (body.get("tools"), [tool], [{"function": {"name": "f", "parameters": {"properties": parameters}}}]):
        completion = said({**body, "tools": tools, "n": 1})

        assert completion.prompt_tokens >= 1
        assert completion.completion_tokens >= 1


def test_latencies_have_the_median_asked_for() -> None:
    waits = sorted(latency_s(lot(0, bytes([high, low])), 2.0) for high in range(20) for low in range(100))

    assert waits[1_000] == pytest.approx(2.0, rel=0.05)
    assert waits[1_980] == pytest.approx(2.0 * 2.54, rel=0.15)
    assert latency_s(lot(0, b"x"), 0.0) == 0.0


def test_texts_are_as_different_in_length_as_asked_for() -> None:
    asks = [asking(f"question {n}") for n in range(2000)]
    lengths = sorted(
        answer(read(body), lot=lot(0, json.dumps(body).encode()), seed=0, model="m", length_sigma=1.0).completion_tokens
        for body in asks
    )
    plain = sorted(said(body).completion_tokens for body in asks)

    assert lengths[1000] == pytest.approx(plain[1000], rel=0.1)
    assert lengths[1900] / lengths[1000] == pytest.approx(math.exp(1.645), rel=0.2)
