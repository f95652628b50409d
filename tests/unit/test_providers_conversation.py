"""Items of several turns: each turn's request, and the one key of all of them."""

from __future__ import annotations

import orjson
import pytest

from batchrunner import providers
from batchrunner.providers import conversation
from batchrunner.records import Completion, Endpoint, Usage

TURNS = [{"role": "user", "content": text} for text in ("a", "b", "c")]
ASK = {"messages": [{"role": "system", "content": "s"}], "turns": TURNS, "model": "m", "agent_id": "7"}


def build(kind: str = "openai", ask: dict | None = None, answers=()):
    provider = providers.load(kind)
    options = {"deployment": "d", "api_version": "v"}
    endpoint = Endpoint(base_url=provider.base_url or "https://x.openai.azure.com", options=options)
    return conversation.build(provider, ask or ASK, endpoint, answers=answers)


def said(request) -> list[str]:
    return [message["content"] for message in orjson.loads(request.body)["messages"]]


@pytest.mark.parametrize("kind", providers.available())
def test_each_turn_sends_what_was_said_before_it(kind):
    answers = [conversation.assistant({"text": text}) for text in ("A", "B")]

    assert said(build(kind)) == ["s", "a"]
    assert said(build(kind, answers=answers[:1])) == ["s", "a", "A", "b"]
    assert said(build(kind, answers=answers)) == ["s", "a", "A", "b", "B", "c"]
    assert "turns" not in orjson.loads(build(kind).body)


def test_all_turns_have_the_key_of_the_item():
    answered = build(answers=[conversation.assistant({"text": "A"})])

    assert answered.key == build().key
    assert answered.turns == 3


def test_another_last_turn_is_another_purchase():
    other = {**ASK, "turns": [*TURNS[:2], {"role": "user", "content": "d"}]}

    assert build(ask=other).key != build().key


def test_two_turns_are_not_two_messages():
    plain = {**ASK, "messages": [*ASK["messages"], TURNS[0]]}
    del plain["turns"]

    assert build(ask=plain).key != build(ask={**ASK, "turns": TURNS[:1]}).key
    assert build(ask=plain).turns == 0


def test_a_conversation_names_an_order_and_is_no_part_of_the_request():
    named = {**ASK, "conversation": "c1"}

    assert build(ask=named) == build()


def test_an_answer_is_kept_with_what_it_used_and_nothing_unknown():
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    completion = Completion(
        text="A", finish_reason="stop", tool_calls=orjson.dumps(calls).decode(), usage=Usage(prompt_tokens=3)
    )

    answer = conversation.answer_of(completion)

    assert answer == {"text": "A", "finish_reason": "stop", "tool_calls": calls, "prompt_tokens": 3}
    assert orjson.loads(conversation.written([answer])) == [answer]
    assert conversation.assistant(answer) == {"role": "assistant", "content": "A", "tool_calls": calls}


def test_a_refusal_is_what_was_said():
    assert conversation.assistant({"refusal": "no"})["content"] == "no"
