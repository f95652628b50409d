"""From what a row asks to the request that is sent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchrunner import providers
from batchrunner.errors import BadRow
from batchrunner.records import Endpoint, Request

HI = [{"role": "user", "content": "hi"}]
OPTIONS = {"deployment": "d", "api_version": "2024-10-21"}


def build(
    kind: str = "openai", *, volatile: set[str] | None = None, without: set[str] | None = None, **ask: Any
) -> Request:
    ask = {"messages": HI, "model": "m", "agent_id": "8794", **ask}
    endpoint = Endpoint(base_url="https://x.example", options=OPTIONS, volatile=frozenset(volatile or ()))
    return providers.load(kind).build(ask, endpoint, without=frozenset(without or ()))


def body(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.body)
    return found


def test_the_body_is_what_was_asked_and_nothing_else():
    asked = {"temperature": 0, "stop": ["x"], "seed": None, "top_p": 0.5}

    assert body(build(**asked)) == {"messages": HI, "model": "m", "temperature": 0, "stop": ["x"], "top_p": 0.5}


def test_extra_fields_go_to_the_root_nulls_included():
    assert body(build(extra={"tenant": "a", "persona": None})).items() >= {"tenant": "a", "persona": None}.items()


@pytest.mark.parametrize("name", ["model", "messages"])
def test_an_extra_field_that_is_given_already_is_refused(name):
    with pytest.raises(BadRow, match=f"extra: expected .*, got '{name}'"):
        build(extra={name: "x"})


def test_an_extra_session_beside_the_rows_own_is_refused():
    with pytest.raises(BadRow, match="session_id"):
        build("gateway", session_id="a", extra={"session_id": "b"})


@pytest.mark.parametrize("messages", [None, [], "hi", {"role": "user"}, ["hi"], [{}], [{"role": 1}], [{"role": ""}]])
def test_messages_without_shape_are_refused(messages):
    with pytest.raises(BadRow, match=r"messages.*: expected .*, got "):
        build(messages=messages)


@pytest.mark.parametrize("value", ["no", [1], 3])
def test_extra_is_an_object(value):
    with pytest.raises(BadRow, match="extra: expected an object"):
        build(extra=value)


@pytest.mark.parametrize("kind", providers.available())
@pytest.mark.parametrize("value", ["true", 1, []])
def test_stream_is_true_or_false(kind, value):
    with pytest.raises(BadRow, match="stream: expected true or false"):
        build(kind, stream=value)


def test_a_numberless_number_is_named_with_its_place():
    with pytest.raises(BadRow, match=r"extra_field\.a\[1\]: expected a number, got nan"):
        build(extra={"extra_field": {"a": [1.0, float("nan")]}})


def test_a_lone_surrogate_is_named_with_its_field():
    with pytest.raises(BadRow, match="messages: expected what JSON can say"):
        build(messages=[{"role": "user", "content": "h\ud83di"}])


class TestKey:
    """`Request.key` says what is bought."""

    def test_volatile_fields_are_sent_and_not_bought(self):
        asks = [{"extra": {"trace_id": n, "metadata": {"run": n, "team": "cx"}}} for n in (1, 2)]

        one, other = (build(volatile={"extra.trace_id", "metadata.run"}, **ask) for ask in asks)

        assert one.key == other.key
        assert body(one)["trace_id"] == 1
        assert one.key != build(**asks[0]).key

    def test_a_volatile_field_may_have_dots_in_its_name(self):
        keys = {build(volatile={"extra.a.b"}, extra={"a.b": n}).key for n in (1, 2)}

        assert len(keys) == 1

    @pytest.mark.parametrize("volatile", ["extra.none", "metadata.none.deeper", "messages.content"])
    def test_a_volatile_field_that_no_row_has_changes_nothing(self, volatile):
        assert build(volatile={volatile}, extra={"metadata": {}}).key == build(extra={"metadata": {}}).key

    def test_it_differs_by_provider_address_agent_and_body(self):
        endpoint = Endpoint(base_url="https://y.example")
        elsewhere = providers.load("tess").build({"messages": HI, "model": "m", "agent_id": "8794"}, endpoint)
        keys = {build(kind).key for kind in providers.available()}

        keys |= {build("tess", agent_id="1").key, build("tess", temperature=1).key, elsewhere.key}

        assert len(keys) == 8

    def test_whoever_sends_it_the_purchase_is_the_same(self):
        quiet = Endpoint(base_url="https://x.example", workspace_id="11", headers={"x-team": "cx"})
        ask = {"messages": HI, "model": "m", "agent_id": "8794"}

        assert providers.load("tess").build(ask, quiet).key == build("tess").key

    def test_it_is_stable_between_versions(self):
        assert build(temperature=0).key == "eec7aa22099ef7303de4b17203e975d1"


class TestOpenAI:
    def test_a_stream_is_asked_for_usage(self):
        assert body(build(stream=True))["stream_options"] == {"include_usage": True}

    def test_stream_options_of_the_row_stay(self):
        assert body(build(stream=True, stream_options={"include_usage": False}))["stream_options"] == {
            "include_usage": False
        }

    def test_refused_stream_options_are_left_out_of_the_same_purchase(self):
        request = build(stream=True, without={"stream_options"})

        assert "stream_options" not in body(request)
        assert request.key == build(stream=True).key
        assert request.stream

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("model", None),
            ("model", ""),
            ("model", 4),
            ("temperature", 2.1),
            ("temperature", "1"),
            ("temperature", True),
            ("max_tokens", 0),
            ("max_tokens", True),
            ("max_tokens", 1.5),
            ("max_tokens", [5]),
            ("n", {}),
            ("max_completion_tokens", -1),
            ("tools", "no-tools"),
        ],
    )
    def test_what_would_be_refused_for_money_is_refused_before(self, name, value):
        with pytest.raises(BadRow, match=f"{name}: expected .*, got "):
            build(**{name: value})

    def test_a_count_from_a_column_with_gaps_is_a_count(self):
        assert body(build(max_tokens=16.0))["max_tokens"] == 16

    def test_what_the_limits_need_is_told(self):
        parts = [{"type": "text", "text": "1234"}, {"type": "image_url", "image_url": {"url": "x"}}]
        tools = [{"type": "function"}]

        request = build(messages=[*HI, {"role": "user", "content": parts}], max_tokens=9, n=3, tools=tools)

        assert request.prompt_chars == 2 + 4 + len('[{"type":"function"}]')
        assert (request.max_tokens, request.choices, request.model) == (9, 3, "m")

    def test_the_newer_name_of_a_limit_goes_first(self):
        assert build(max_completion_tokens=5, max_tokens=9).max_tokens == 5

    def test_agent_and_session_order_rows_and_are_not_sent(self):
        request = build(session_id="s", agent_id=7)

        assert (request.agent_id, request.session_id) == ("7", "s")
        assert body(request).keys() == {"messages", "model"}


class TestTess:
    def test_the_agent_is_a_step_of_the_path(self):
        assert build("tess", agent_id=8794).path == "/agents/8794/openai/chat/completions"

    @pytest.mark.parametrize(("agent", "step"), [("a b", "a%20b"), ("é%", "%C3%A9%25"), (" 7 ", "7"), (7.0, "7")])
    def test_an_odd_agent_is_encoded(self, agent, step):
        request = build("tess", agent_id=agent)

        assert request.path == f"/agents/{step}/openai/chat/completions"

    @pytest.mark.parametrize(
        "agent",
        ["", ".", "..", "a/b", "a\\b", "a?b", "a#b", "a\nb", "a\x85b", "\ud83d", "9" * 129, True, float("nan")],
    )
    def test_an_agent_that_could_lead_elsewhere_is_refused(self, agent):
        with pytest.raises(BadRow, match="agent_id: expected an id"):
            build("tess", agent_id=agent)

    def test_a_missing_agent_says_where_to_give_it(self):
        with pytest.raises(BadRow, match=r"agent_id: .* --agent-id"):
            build("tess", agent_id=None)

    def test_nothing_is_added(self):
        assert body(build("tess", model=None, stream=True)) == {"messages": HI, "stream": True}

    @pytest.mark.parametrize("temperature", ["1", 1, 0.25, "0.25", "warm"])
    def test_temperature_goes_out_as_written(self, temperature):
        assert body(build("tess", temperature=temperature))["temperature"] == temperature

    @pytest.mark.parametrize("role", ["tool", "developer", "function"])
    def test_roles_that_it_does_not_know_are_refused(self, role):
        with pytest.raises(BadRow, match=r"messages\[0\]\.role: expected system, user, assistant, got"):
            build("tess", messages=[{"role": role, "content": "x"}])

    def test_fields_that_it_does_not_document_are_sent_with_a_warning(self):
        request = build("tess", max_tokens=5, extra={"tenant": "a"})

        assert [warning.split(":")[0] for warning in request.warnings] == ["max_tokens"]
        assert body(request)["max_tokens"] == 5


class TestGateway:
    def test_stream_is_always_said(self):
        assert body(build("gateway", model=None)) == {"messages": HI, "stream": False}

    @pytest.mark.parametrize("stream", [None, False, True])
    def test_tools_force_a_stream(self, stream):
        request = build("gateway", tools=[{"type": "function"}], stream=stream)

        assert request.stream
        assert body(request)["stream"] is True

    def test_no_tools_at_all_force_nothing(self):
        assert not build("gateway", tools=[]).stream

    def test_a_dropped_session_is_the_same_purchase(self):
        request = build("gateway", session_id="0xabc", without={"session_id"})

        assert "session_id" not in body(request)
        assert request.key == build("gateway", session_id="0xabc").key != build("gateway").key

    @pytest.mark.parametrize("session", ["", "  ", float("nan")])
    def test_a_blank_session_is_none(self, session):
        request = build("gateway", session_id=session)

        assert request.session_id is None
        assert "session_id" not in body(request)

    def test_one_key_carries_one_request(self):
        assert [providers.load(kind).requests_per_key for kind in providers.available()] == [None, 1, None, None, None]


class TestOpenTools:
    def test_nothing_is_added_to_a_stream(self):
        assert body(build("opentools", stream=True)) == {"messages": HI, "model": "m", "stream": True}

    @pytest.mark.parametrize(("name", "value"), [("tool_choice", "auto"), ("tools", "mcp"), ("max_tokens", "5")])
    def test_what_its_schema_refuses_is_refused(self, name, value):
        with pytest.raises(BadRow, match=f"{name}: .*expect"):
            build("opentools", **{name: value})
