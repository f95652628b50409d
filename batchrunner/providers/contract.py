"""What every provider promises, as tests: for the dialects that come with the package and for those of others.

Needs pytest and hypothesis (the extra `test`). In a test module of yours:

    from batchrunner.providers.contract import ProviderContract

    class TestMine(ProviderContract):
        kind = "my_package.my_module:PROVIDER"
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrunner import providers
from batchrunner.errors import BadRow, JobError, RequestError
from batchrunner.records import Endpoint, Event, Reply

if TYPE_CHECKING:
    from batchrunner.providers.base import Provider
    from batchrunner.records import Request

MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Grüße 🎈"}]
ANSWER = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}]}
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms", "date", "location", "x-should-retry", "content-type"]),
    st.text(max_size=12) | st.sampled_from(["nan", "1e9", "-1", "5, 7", "Fri, 20 Nov 2026 18:00:20 GMT", "true"]),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        name: JSON
        | st.lists(st.fixed_dictionaries({}, optional={"message": JSON, "delta": JSON, "finish_reason": JSON}))
        for name in ("error", "choices", "usage", "x_groq", "detail", "messages", "message", "code", "object", "id")
    },
)

# Every dialect runs the inherited property: one test, several classes.
ANY_CLASS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow]
)


def written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return repr(value).encode("utf-8", "surrogatepass")


class ProviderContract:
    """Inherit it, and name the provider as a job does."""

    kind: str
    asked: ClassVar[dict[str, Any]] = {"model": "m", "agent_id": "8794"}
    """What a row must give besides its messages."""
    options: ClassVar[dict[str, str]] = {"deployment": "d", "api_version": "2024-10-21"}
    """What a job may have to give; a dialect takes what it knows."""

    @property
    def provider(self) -> Provider:
        return providers.load(self.kind)

    @property
    def endpoint(self) -> Endpoint:
        base_url = self.provider.base_url or "https://api.example.com"
        return Endpoint(base_url=base_url, workspace_id="11", options=self.options)

    def build(self, **more: Any) -> Request:
        """A request for `MESSAGES`."""
        return self.provider.build({"messages": MESSAGES, **self.asked, **more}, self.endpoint)

    def test_building_twice_gives_the_same_request(self) -> None:
        assert self.build() == self.build()

    def test_a_request_travels_between_processes(self) -> None:
        assert pickle.loads(pickle.dumps(self.build())) == self.build()

    def test_every_text_reaches_the_body(self) -> None:
        body = orjson.loads(self.build().body)

        assert body["messages"] == MESSAGES

    def test_the_path_begins_with_a_slash_and_is_plain_ascii(self) -> None:
        path = self.build().path

        assert path.startswith("/")
        assert path.isascii()

    def test_the_order_of_fields_does_not_change_what_is_bought(self) -> None:
        one = self.build(extra={"a": 1, "b": {"c": 1, "d": 2}})
        other = self.build(extra={"b": {"d": 2, "c": 1}, "a": 1})

        assert one.key == other.key

    def test_another_prompt_is_another_purchase(self) -> None:
        other = [{"role": "user", "content": "other"}]

        assert self.build(messages=other).key != self.build().key

    def test_a_field_left_out_does_not_change_what_is_bought(self) -> None:
        ask = {"messages": MESSAGES, **self.asked, "top_p": 0.5}

        lacking = self.provider.build(ask, self.endpoint, without=frozenset({"top_p"}))

        assert "top_p" not in orjson.loads(lacking.body)
        assert lacking.key == self.provider.build(ask, self.endpoint).key

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud83d", 2**70, {1: 2}])
    def test_what_json_cannot_say_is_a_bad_row(self, value: Any) -> None:
        with pytest.raises(BadRow, match=r"extra_field|request"):
            self.build(extra={"extra_field": value})

    def test_the_normal_form_of_its_own_address_is_itself(self) -> None:
        own = self.endpoint.base_url

        assert self.provider.normalise(own) == own
        assert self.provider.normalise(f"{own}/") == own

    @pytest.mark.parametrize("key", ["\u201cKEY\u201d", "K\nEY", "chav\u00e9", "two words", "  ", "Bearer "])
    def test_a_key_that_no_header_can_hold_is_refused_unseen(self, key: str) -> None:
        with pytest.raises(JobError) as refused:
            self.provider.headers(key, self.endpoint)

        assert key not in str(refused.value) or not key.strip()

    def test_without_a_key_nothing_signs_in(self) -> None:
        assert not {"authorization", "api-key"} & set(self.provider.headers(None, self.endpoint))

    def test_an_answer_is_read(self) -> None:
        assert self.provider.parse(Reply(status=200, headers={}, body=written(ANSWER))).text == "hi"

    def test_a_refusal_is_final(self) -> None:
        with pytest.raises(RequestError) as refusal:
            self.provider.parse(Reply(status=400, headers={}, body=b"{}"))

        assert (refusal.value.verdict, refusal.value.error_type) == ("reject", "bad_request")

    def test_a_dead_key_ends_the_run(self) -> None:
        with pytest.raises(RequestError) as refusal:
            self.provider.parse(Reply(status=401, headers={}, body=b"{}"))

        assert (refusal.value.verdict, refusal.value.scope) == ("abort", "run")

    @ANY_CLASS
    @given(status=st.integers(100, 600), headers=HEADERS, body=st.binary(max_size=80) | SHAPES.map(written))
    def test_no_reply_breaks_the_reader(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.read(Reply(status=status, headers=headers, body=body))

    @ANY_CLASS
    @given(
        data=st.lists(
            st.text(st.characters(), max_size=20) | SHAPES.map(lambda s: written(s).decode("utf-8", "replace"))
        ),
        name=st.sampled_from(["message", "error"]),
        done=st.booleans(),
        cut=st.sampled_from([None, "closed early"]),
    )
    def test_no_stream_breaks_the_reader(self, data: list[str], name: str, done: bool, cut: str | None) -> None:
        events = tuple(Event(name=name if number == 1 else "message", data=text) for number, text in enumerate(data))
        self.read(Reply(status=200, headers={}, events=events, done=done, cut=cut))

    def read(self, reply: Reply) -> None:
        """Parse a reply: whatever comes of it can be stored, and no message is too long."""
        said = outcome_of(self.provider, reply)

        orjson.dumps(said)
        assert all(len(text) <= 2_000 for text in said if reply.status // 100 != 2 and text)


def outcome_of(provider: Provider, reply: Reply) -> list[str | None]:
    """All texts that parsing the reply gives, those of its error included."""
    try:
        found = provider.parse(reply)
    except RequestError as error:
        return [str(error), f"wait {float(error.wait_s or 0.0)}"]
    texts = [found.text, found.reasoning, found.refusal, found.tool_calls, found.choices, found.model]
    return [*texts, found.response_id, found.session_id, found.finish_reason, found.response, *found.warnings]
