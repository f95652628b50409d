"""From a reply to a completion."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from batchrunner import providers
from batchrunner.errors import RequestError
from batchrunner.providers.reading.text import storable, whole
from batchrunner.providers.reading.usage import read_usage, reported
from batchrunner.records import Completion, Event, Reply

PROVIDER = providers.load("openai")


def choice(text: Any = "hi", finish: Any = "stop", **more: Any) -> dict[str, Any]:
    return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **more}


def plain(*choices: Any, cut: str | None = None, **more: Any) -> Completion:
    body = json.dumps({"choices": list(choices) or [choice()], **more}).encode()
    return PROVIDER.parse(Reply(status=200, headers={}, body=body, cut=cut))


def raw(body: bytes, cut: str | None = None) -> Completion:
    return PROVIDER.parse(Reply(status=200, headers={}, body=body, cut=cut))


def delta(finish: Any = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields, "finish_reason": finish}]}


def stream(*chunks: Any, done: bool = True, cut: str | None = None, torn: str = "") -> Completion:
    texts = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks] + [torn] * bool(torn)
    events = tuple(Event(name="message", data=text) for text in texts)
    return PROVIDER.parse(Reply(status=200, headers={}, events=events, done=done, cut=cut))


def calls(*fragments: list[dict[str, Any]]) -> list[tuple[str | None, str, str]]:
    found = stream(*(delta(tool_calls=each) for each in fragments), delta("tool_calls"))
    listed = json.loads(found.tool_calls or "[]")
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in listed]


def fragment(arguments: Any = None, **fields: Any) -> dict[str, Any]:
    function = {"name": fields.pop("name", None), "arguments": arguments}
    return {**fields, "function": {name: value for name, value in function.items() if value is not None}}


class TestPlain:
    def test_the_reply_is_kept_as_it_was_sent(self):
        body = '\n\n  {"choices": [ {"message":{"content":"é"}, "finish_reason":"stop"} ]}\n'

        assert raw(body.encode()).response == body.strip()

    @pytest.mark.parametrize("front", [b"\xef\xbb\xbf", b"\n\n\r\n ", b"\xef\xbb\xbf\n"])
    def test_what_stands_in_front_of_the_object_does_not_matter(self, front):
        assert raw(front + b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}').text == "a"

    def test_identity_is_kept_where_there_is_one(self):
        found = plain(id="c1", model="m", session_id="0xabc")

        assert (found.response_id, found.model, found.session_id) == ("c1", "m", "0xabc")

    def test_an_empty_name_is_no_name(self):
        found = plain(id="", model="")

        assert (found.response_id, found.model) == (None, None)

    def test_bytes_that_are_no_utf8_are_replaced_and_flagged(self):
        found = raw(b'{"choices":[{"message":{"content":"a\xffb"},"finish_reason":"stop"}]}')

        assert (found.text, found.warnings) == ("a\ufffdb", ("invalid_utf8",))

    def test_a_replacement_character_that_was_sent_is_not_flagged(self):
        assert plain(choice("a\ufffdb")).warnings == ()

    def test_nul_is_kept(self):
        assert plain(choice("a\x00b")).text == "a\x00b"

    def test_a_lone_surrogate_anywhere_can_be_stored(self):
        odd = {
            "reasoning": "\ud83d",
            "tool_calls": [{"id": "\ud83d", "function": {"name": "\ud83d", "arguments": "\ud83d"}}],
        }

        found = plain({"message": {"content": None, **odd}, "finish_reason": "tool_calls"}, id="\ud83d")

        assert f"{found}".encode()
        assert found.reasoning == found.response_id == "\ufffd"

    def test_an_answer_that_was_finished_may_be_empty(self):
        assert [plain(choice(text)).text for text in ("", None)] == ["", None]

    @pytest.mark.parametrize("text", ["", None, []])
    @pytest.mark.parametrize("finish", ["", None])
    def test_an_answer_that_says_nothing_and_was_not_finished_is_none(self, text, finish):
        with pytest.raises(RequestError) as error:
            plain(choice(text, finish), usage={"prompt_tokens": 7, "completion_tokens": 0})

        assert (error.value.error_type, error.value.verdict) == ("empty", "retry")
        assert (error.value.prompt_tokens, error.value.completion_tokens) == (7, 0)

    @pytest.mark.parametrize("body", [b"", b" \n"])
    def test_nothing_at_all_is_empty(self, body):
        with pytest.raises(RequestError) as error:
            raw(body)

        assert error.value.error_type == "empty"

    def test_other_statuses_of_success_are_read_too(self):
        body = json.dumps({"choices": [choice()]}).encode()

        assert PROVIDER.parse(Reply(status=201, headers={}, body=body)).text == "hi"

    @pytest.mark.parametrize("content", [5, {"text": "a"}, True])
    def test_a_text_of_another_shape_is_malformed(self, content):
        with pytest.raises(RequestError) as error:
            plain(choice(content))

        assert error.value.error_type == "malformed"

    def test_a_whole_reply_is_read_although_the_connection_broke(self):
        assert plain(cut="closed early").text == "hi"

    BROKEN = b'{"a":[1,-2.5e3,true,null],"b":{"c":"x\\u00e9\\n"},"choices":[{"message":{}}]}'

    @pytest.mark.parametrize("at", range(1, len(BROKEN)))
    def test_json_that_stops_in_the_middle_is_truncated(self, at):
        with pytest.raises(RequestError) as error:
            raw(self.BROKEN[:at])

        assert error.value.error_type == "truncated"

    @pytest.mark.parametrize("body", [b'{"a":1}x', b"{'a':1}", b'{"a" 1}', b"<html></html>", b"hello", b"[1]", b"17"])
    def test_what_was_never_json_is_malformed(self, body):
        with pytest.raises(RequestError) as error:
            raw(body)

        assert (error.value.error_type, error.value.verdict, error.value.went_out) == ("malformed", "retry", True)

    @pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000])
    def test_endless_nesting_is_malformed(self, body):
        with pytest.raises(RequestError) as error:
            raw(body)

        assert error.value.error_type == "malformed"

    def test_choices_come_in_their_order_with_their_ends(self):
        found = plain(choice("B", "length", index=1), choice([{"type": "text", "text": "A"}], index=0))

        kept = json.loads(found.choices or "[]")
        assert [(each["content"], each["finish_reason"]) for each in kept] == [("A", "stop"), ("B", "length")]

    def test_one_choice_is_no_list(self):
        assert plain().choices is None

    def test_a_tool_call_of_another_kind_is_kept_whole(self):
        custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}

        found = plain({"message": {"tool_calls": [custom]}, "finish_reason": "tool_calls"})

        assert json.loads(found.tool_calls or "") == [custom]

    def test_arguments_stay_as_they_were_sent(self):
        arguments = '{ "a" : 1.0,\n"é":"\\u00e9" }'

        found = plain({"message": {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}})

        assert json.loads(found.tool_calls or "")[0]["function"]["arguments"] == arguments


class TestUsage:
    @pytest.mark.parametrize(
        ("value", "count"),
        [(0, 0), (2**63 - 1, 2**63 - 1), ("12", 12), (12.0, 12)]
        + [(odd, None) for odd in (2**63, -1, 12.5, True, "1e3", "١٢", "", "9" * 20, [], float("nan"), float("inf"))],
    )
    def test_only_a_whole_count_counts(self, value, count):
        assert whole(value) == count

    def test_the_first_name_that_holds_something_counts(self):
        report = {"usage": {}, "usage_from_consumer": None, "usage_from_provider": {"prompt_tokens": 3}}

        assert reported({**report, "x_groq": {"usage": {"prompt_tokens": 9}}}) == {"prompt_tokens": 3}
        assert reported({"x_groq": {"usage": {"prompt_tokens": 9}}}) == {"prompt_tokens": 9}

    @pytest.mark.parametrize("odd", [None, 5, "x", [], {}, {"prompt_tokens": None}])
    def test_an_odd_report_is_none(self, odd):
        assert reported({"usage": odd, "x_groq": odd}) is None

    def test_a_sum_that_no_column_holds_is_unknown(self):
        assert read_usage({"prompt_tokens": 2**62, "completion_tokens": 2**62}).total_tokens is None

    def test_details_are_kept(self):
        usage = read_usage(
            {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": "5"}}
        )

        assert (usage.cached_tokens, usage.reasoning_tokens) == (4, 5)
        assert read_usage({"prompt_cache_hit_tokens": 6}).cached_tokens == 6

    def test_the_last_report_of_a_stream_counts_and_is_not_summed(self):
        chunks = [{**delta(content="x"), "usage": {"prompt_tokens": 8, "completion_tokens": n}} for n in (1, 2, 3)]

        assert stream(*chunks, {**delta("stop"), "usage": None}).usage.completion_tokens == 3


class TestStream:
    def test_a_pair_split_over_two_deltas_is_one_character(self):
        chunks = ['{"choices":[{"delta":{"content":"\\ud83d"}}]}', '{"choices":[{"delta":{"content":"\\ude00"}}]}']

        assert stream(*chunks).text == "😀"

    def test_half_a_pair_at_the_end_is_replaced(self):
        assert stream('{"choices":[{"delta":{"content":"a\\ud83d"}}]}').text == "a\ufffd"
        assert storable("\ude00\ud83d\ude00\ud83d") == "\ufffd😀\ufffd"

    def test_a_replaced_byte_is_flagged(self):
        assert stream(delta(content="a\ufffd")).warnings == ("invalid_utf8",)

    def test_the_joined_stream_reads_like_a_plain_reply(self):
        found = stream(
            {"id": "c1", "model": "m", **delta(role="assistant", content="h")},
            delta(content="i", reasoning_content="t"),
            delta("stop"),
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
        )

        again = raw((found.response or "").encode())
        assert (again.text, again.finish_reason, again.usage, again.model) == ("hi", "stop", found.usage, "m")
        assert again.reasoning == found.reasoning == "t"

    def test_several_choices_are_told_apart(self):
        found = stream(delta(index=1, content="B"), delta(content="A"), delta("stop"), delta("length", index=1))

        assert [each["content"] for each in json.loads(found.choices or "[]")] == ["A", "B"]
        assert (found.text, found.finish_reason) == ("A", "stop")

    def test_a_whole_message_in_the_only_event_is_read(self):
        assert stream({"choices": [choice("hello")]}).text == "hello"

    def test_a_message_repeated_at_the_end_is_not_read_twice(self):
        assert stream(delta(content="hello"), {"choices": [choice("hello")]}).text == "hello"

    def test_an_event_of_another_kind_among_the_chunks_is_skipped(self):
        assert stream({"type": "ping"}, delta("stop", content="a")).text == "a"

    @pytest.mark.parametrize(
        "odd", ["hello", "17", "[]", '{"choices":{}}', '{"choices":[1]}', '{"choices":[{"delta":"x"}]}']
    )
    def test_a_chunk_that_hides_what_was_said_is_malformed(self, odd):
        with pytest.raises(RequestError) as error:
            stream(odd, delta("stop", content="a"))

        assert error.value.error_type == "malformed"

    @pytest.mark.parametrize("torn", ['{"choices":[{"del', '{"choices":[],"usage":{"prompt_tok'])
    def test_a_torn_event_after_the_end_of_every_choice_costs_nothing(self, torn):
        assert stream(delta("stop", content="a"), torn=torn, done=False).text == "a"

    @pytest.mark.parametrize("torn", ['{"choices":[{"del', '{"error":{"mess'])
    def test_a_torn_event_where_something_was_missing_is_truncated(self, torn):
        finish = "stop" if "error" in torn else None
        with pytest.raises(RequestError) as error:
            stream(delta(finish, content="a"), torn=torn, done=False)

        assert (error.value.error_type, error.value.verdict) == ("truncated", "retry")

    def test_tokens_of_a_truncated_stream_are_told(self):
        with pytest.raises(RequestError) as error:
            stream({**delta(content="a"), "usage": {"prompt_tokens": 8, "completion_tokens": 1}}, done=False)

        assert (error.value.prompt_tokens, error.value.completion_tokens, error.value.went_out) == (8, 1, True)

    def test_a_stream_cut_before_its_content_is_truncated(self):
        with pytest.raises(RequestError) as error:
            stream(done=False, cut="closed early")

        assert error.value.error_type == "truncated"

    @pytest.mark.parametrize(
        "error",
        [
            {"error": {"message": "x", "code": 502}},
            {"error": "x"},
            {"object": "error", "message": "x", "code": 502},
            [{"error": {"message": "x", "code": 502}}],
            {"choices": [{"index": 0, "error": {"message": "x", "code": 502}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]},
        ],
    )
    @pytest.mark.parametrize("first", [True, False])
    def test_an_error_wins_wherever_it_stands(self, error, first):
        chunks = [error, delta("stop", content="a")] if first else [delta("stop", content="a"), error]
        with pytest.raises(RequestError) as raised:
            stream(*chunks, {"choices": [], "usage": {"prompt_tokens": 8}})

        assert (raised.value.error_type, raised.value.verdict) == ("server", "retry")
        assert (raised.value.prompt_tokens, raised.value.went_out) == (8, True)

    @pytest.mark.parametrize(
        "data", ["overloaded, come back", '{"message":"overloaded, come back"}', '"overloaded, come back"']
    )
    def test_an_event_named_error_is_one_whatever_its_shape(self, data):
        with pytest.raises(RequestError, match="overloaded, come back"):
            PROVIDER.parse(Reply(status=200, headers={}, events=(Event(name="error", data=data),), done=True))

    @pytest.mark.parametrize("nothing", [None, False, "", {}, []])
    def test_an_error_field_that_says_nothing_is_none(self, nothing):
        assert stream({**delta("stop", content="a"), "error": nothing}).text == "a"
        assert plain(error=nothing).text == "hi"


class TestToolCalls:
    def test_an_empty_id_or_type_changes_nothing(self):
        first = fragment("", index=0, id="a", type="function", name="f")

        assert calls([first], [fragment('{"x"', index=0, id="", type="")], [fragment(":1}", index=0, id="")]) == [
            ("a", "f", '{"x":1}')
        ]

    def test_calls_side_by_side_go_by_their_index(self):
        both = [fragment("", index=0, id="a", name="f"), fragment("", index=1, id="b", name="g")]

        found = calls(both, [fragment("{1", index=1)], [fragment("{0", index=0)], [fragment("}", index=1)])

        assert found == [("a", "f", "{0"), ("b", "g", "{1}")]

    def test_calls_side_by_side_go_by_their_id_where_the_index_is_always_0(self):
        a, b = {"index": 0, "id": "a"}, {"index": 0, "id": "b"}

        found = calls(
            [fragment("{", name="f", **a)], [fragment("[", name="g", **b)], [fragment("}", **a)], [fragment("]", **b)]
        )

        assert found == [("a", "f", "{}"), ("b", "g", "[]")]

    def test_a_new_id_begins_a_call_even_before_the_last_one_has_arguments(self):
        a, b = {"index": 0, "id": "a", "name": "f"}, {"index": 0, "id": "b", "name": "f"}

        assert calls([fragment("", **a)], [fragment("", **b)], [fragment("{}", index=0)]) == [
            ("a", "f", ""),
            ("b", "f", "{}"),
        ]

    def test_calls_of_one_delta_are_several_without_any_index(self):
        both = [fragment("", name="f"), fragment("", name="g")]

        assert [name for _, name, _ in calls(both)] == ["f", "g"]

    def test_calls_without_id_and_index_go_on_until_the_next_name(self):
        found = calls([fragment('{"a":', name="f")], [fragment("1}")], [fragment("{}", name="g")])

        assert found == [(None, "f", '{"a":1}'), (None, "g", "{}")]

    def test_the_same_function_called_twice_is_two_calls(self):
        assert len(calls([fragment('{"a":1}', name="f")], [fragment('{"a":2}', name="f")])) == 2
        assert len(calls([fragment('{"a":1}', name="f"), fragment('{"a":2}', name="f")])) == 2

    @pytest.mark.parametrize("names", [("get_", "weather"), ("get_", "get_weather"), ("get_weather", "get_weather")])
    def test_a_name_may_come_split_growing_or_repeated(self, names):
        one, other = names

        assert (
            calls([fragment(index=0, id="a", name=one)], [fragment("{}", index=0, name=other)])[0][1] == "get_weather"
        )

    def test_a_stream_of_nothing_but_calls_takes_time_by_its_length_only(self):
        named = [{"id": f"c{n}", "index": n % 2, "function": {"name": "f", "arguments": "{}"}} for n in range(20_000)]
        started_at = time.thread_time()

        found = stream(*(delta(tool_calls=[call]) for call in named), delta("tool_calls"))

        assert len(json.loads(found.tool_calls or "[]")) == 20_000
        assert time.thread_time() - started_at < 3

    def test_arguments_may_come_as_an_object(self):
        assert calls([fragment({"x": [1]}, index=0, name="f")]) == [(None, "f", '{"x":[1]}')]

    def test_tool_calls_of_no_shape_are_malformed(self):
        with pytest.raises(RequestError) as error:
            stream(delta("stop", tool_calls="f()"))

        assert error.value.error_type == "malformed"
