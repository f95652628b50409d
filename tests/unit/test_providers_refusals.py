"""What an error means: its type, its verdict, whom it concerns, what it says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from batchrunner import providers
from batchrunner.errors import RequestError
from batchrunner.records import Event, Reply


def refused(
    status: int, body: Any = None, *, kind: str = "openai", max_wait_s: float = 300.0, **headers: str
) -> RequestError:
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(RequestError) as error:
        providers.load(kind).parse(Reply(status=status, headers=named, body=raw), max_wait_s=max_wait_s)
    return error.value


def meaning(error: RequestError) -> tuple[str, str, str]:
    return error.error_type, error.verdict, error.scope


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((300, 301, 304, 308), ("redirect", "abort", "run")),
        ((400, 405, 406, 415, 418, 422, 426, 451), ("bad_request", "reject", "item")),
        ((401, 407), ("auth", "abort", "run")),
        ((402,), ("billing", "abort", "run")),
        ((403,), ("permission", "reject", "item")),
        ((404,), ("not_found", "abort", "agent")),
        ((408, 504), ("timeout", "retry", "item")),
        ((409, 425), ("conflict", "retry", "item")),
        ((413,), ("too_large", "reject", "item")),
        ((429,), ("rate_limit", "retry", "lane")),
        ((498, 503, 529), ("overloaded", "retry", "lane")),
        ((500, 501, 502, 507, *range(520, 528), 530, 599), ("server", "retry", "item")),
        ((100, 199, 600, 999), ("provider_error", "retry", "item")),
    ],
)
def test_a_status_alone_has_one_meaning(statuses, expected):
    for status in statuses:
        error = refused(status)

        assert (meaning(error), error.status, error.went_out) == (expected, status, False)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (429, {"code": "insufficient_quota"}, ("billing", "abort", "run")),
        (429, {"type": "budget_exceeded", "code": "429"}, ("billing", "abort", "run")),
        (400, {"code": "billing_hard_limit_reached"}, ("billing", "abort", "run")),
        (400, {"code": "invalid_api_key"}, ("auth", "abort", "run")),
        (401, {"type": "key_model_access_denied"}, ("auth", "abort", "run")),
        (401, {"code": "session_expired"}, ("auth", "abort", "run")),
        (403, {"message": "Invalid authentication"}, ("auth", "abort", "run")),
        (400, {"code": "context_length_exceeded"}, ("context_length", "reject", "item")),
        (
            400,
            {"message": "This model's maximum context length is 8 tokens", "code": 400},
            ("context_length", "reject", "item"),
        ),
        (400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}, ("content_filter", "reject", "item")),
        (413, {"type": "tokens", "code": "rate_limit_exceeded"}, ("too_large", "reject", "item")),
        (503, {"code": "rate_limit_exceeded"}, ("overloaded", "retry", "lane")),
        (500, {"type": "billing_error"}, ("server", "retry", "item")),
        (500, {"code": "429", "message": "upstream"}, ("rate_limit", "retry", "lane")),
        (400, {"code": "429"}, ("rate_limit", "retry", "lane")),
        (400, {"type": "session_expired"}, ("server", "retry", "item")),
        (404, {"code": "model_not_found"}, ("not_found", "abort", "agent")),
    ],
)
def test_words_that_say_more_than_the_status_are_heard(status, error, expected):
    assert meaning(refused(status, {"error": error})) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("Rate limit exceeded", "rate_limit"),
        ("Invalid authentication", "auth"),
        ("Something odd", "server"),
        ({"message": "x"}, "server"),
        ({"code": 401}, "auth"),
        ({"code": "529"}, "overloaded"),
        ({"code": 1305, "type": "overloaded_error"}, "overloaded"),
        ({"status": 429, "type": "server_error"}, "rate_limit"),
        ({"type": "invalid_request_error"}, "bad_request"),
        ({"type": "timeout_error"}, "timeout"),
        ({"type": "requests"}, "rate_limit"),
        (True, "server"),
    ],
)
def test_an_error_inside_a_success_goes_by_its_own_words(error, expected):
    found = refused(200, {"error": error, "usage": {"prompt_tokens": 5}})

    assert (found.error_type, found.status, found.went_out, found.prompt_tokens) == (expected, 200, True, 5)


@pytest.mark.parametrize(
    "folded",
    [{"statusCode": 429}, {"error": '{"x":1,"statusCode":429}'}, {"error": {"message": "x"}, "statusCode": 429}],
)
def test_a_rate_limit_folded_into_a_400_is_one(folded):
    assert meaning(refused(400, folded, kind="gateway")) == ("rate_limit", "retry", "lane")


def test_a_403_is_about_the_key_on_tess_and_about_the_prompt_elsewhere():
    body = {"error": "You may not"}

    assert meaning(refused(403, body, kind="tess")) == ("auth", "abort", "run")
    assert meaning(refused(403, body)) == ("permission", "reject", "item")


def test_a_page_that_is_not_there_concerns_the_whole_run():
    error = refused(404, b"<html><title>Not Found</title></html>", kind="tess")

    assert meaning(error) == ("not_found", "abort", "run")
    assert "provider.base_url" in str(error)
    assert "/api" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "Validation failed", "messages": {"messages.0.role": ["The selected role is invalid."]}},
        {"error": "System role is not supported"},
    ],
)
def test_a_role_that_an_agent_does_not_take_says_what_to_do(body):
    error = refused(400, body, kind="tess")

    assert meaning(error) == ("bad_request", "reject", "item")
    assert "first user message" in str(error)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Unrecognized request argument supplied: stream_options"}},
        {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted", "input": {}}]},
    ],
)
def test_refused_stream_options_are_left_out_of_the_next_attempt(status, body):
    error = refused(status, body)

    assert (error.without, error.verdict, error.wait_s, error.error_type) == (
        "stream_options",
        "retry",
        0.0,
        "bad_request",
    )


@pytest.mark.parametrize("word", ["session_expired", "session_not_found"])
def test_a_dead_session_is_left_out_of_the_next_attempt(word):
    error = refused(400, {"error": {"message": "gone", "type": word}}, kind="gateway")

    assert (error.without, error.verdict, error.error_type) == ("session_id", "retry", "server")


@pytest.mark.parametrize(
    ("status", "said", "verdict"),
    [
        (500, "false", "reject"),
        (400, "true", "retry"),
        (429, "FALSE", "reject"),
        (401, "true", "abort"),
        (500, "maybe", "retry"),
    ],
)
def test_a_server_may_say_whether_to_retry(status, said, verdict):
    assert refused(status, x_should_retry=said).verdict == verdict


def test_payment_asked_for_with_a_time_is_a_rate_limit():
    error = refused(402, {"error": {"code": 402}}, retry_after="3")

    assert (*meaning(error), error.wait_s) == ("rate_limit", "retry", "lane", 3.0)


def test_a_refusal_that_looks_like_a_stream_is_read():
    events = (Event(name="message", data='{"error":{"message":"slow down","code":"insufficient_quota"}}'),)

    with pytest.raises(RequestError, match="429 slow down") as error:
        providers.load("openai").parse(Reply(status=429, headers={}, events=events))

    assert error.value.error_type == "billing"


class TestMessage:
    """What an outcome stores and a person reads."""

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (
                {"error": "Validation failed", "messages": {"a": ["b", "c"], "d": "e"}},
                "Validation failed: a: b, c; d: e",
            ),
            ({"message": "The given data was invalid.", "errors": {"a": ["b"]}}, "The given data was invalid.: a: b"),
            ({"error": "HTTPS Required", "message": "use https", "https_url": "x"}, "HTTPS Required: use https"),
            ({"detail": "no"}, "no"),
            ({"detail": [{"loc": ["body", 0], "msg": "m"}, {"type": "t"}, "s", 5]}, "body.0: m; t; s"),
            ({"detail": {"message": "deep"}}, "deep"),
            ({"object": "error", "message": "old", "code": 400}, "old"),
            ([{"error": {"message": "listed"}}], "listed"),
            ({"error": [{"message": "listed"}]}, "listed"),
            ({"error": {"message": {"text": "x"}}}, '{"text":"x"}'),
            ({"error": {"type": "t", "code": 7}}, "t: 7"),
            (b"plain words", "plain words"),
            (b"", "bad request"),
            ({}, "bad request"),
        ],
    )
    def test_every_shape_is_understood(self, body, told):
        assert str(refused(400, body)) == f"400 {told}"

    @pytest.mark.parametrize(
        "body",
        [
            {"detail": [{"loc": ["body"], "msg": "m", "input": "SECRET PROMPT"}]},
            {"detail": {"input": "SECRET PROMPT"}},
            {"input": "SECRET PROMPT"},
            {"error": {"metadata": {"flagged_input": "SECRET PROMPT"}}},
            {"error": [{"input": "SECRET PROMPT"}]},
            {"error": {"message": [{"msg": "m", "input": "SECRET PROMPT"}]}},
            {"error": {"message": {"detail": [{"input": {"messages": "SECRET PROMPT"}}]}}},
            {"error": json.dumps({"detail": [{"msg": "m", "input": "SECRET PROMPT"}]})},
            {"error": json.dumps({"e": json.dumps({"input": "SECRET PROMPT"})})},
            {"message": "[{'msg': 'Field required', 'input': {'messages': 'SECRET PROMPT'}}]", "object": "error"},
            {"detail": "1 error\n  Field required [type=missing, input_value={'a': 'SECRET PROMPT'}, input_type=dict]"},
            b'{"detail":[{"loc":["body"],"msg":"m","input":"SECRET PROM',
        ],
    )
    def test_an_echoed_prompt_is_not_told(self, body):
        assert "SECRET" not in str(refused(422, body))

    @pytest.mark.parametrize(
        "secret",
        [
            "sk-abcd****wxyz",
            "sk-proj-a_b-C1",
            "Bearer abcdef",
            "bearer 12|abc",
            "12|abcdefghijklmnop",
            "eyJhbGciOiJI.eyJzdWIi.c2ln",
        ],
    )
    def test_a_key_is_masked(self, secret):
        told = str(refused(400, {"error": {"message": f"wrong key {secret}, sorry"}}))

        assert secret.split(" ")[-1] not in told
        assert told.endswith("sorry")

    def test_words_about_keys_stay(self):
        assert "Bearer token is missing" in str(refused(400, {"error": "The Bearer token is missing"}))

    def test_a_page_is_told_as_its_text(self):
        page = (
            b"<html><head><style>a{}</style><script>x=1</script></head><body><h1>502 Bad\r\nGateway</h1></body></html>"
        )

        assert str(refused(502, page)) == "502 502 Bad Gateway"

    def test_no_tag_is_made_by_taking_one_out(self):
        assert "<b>" not in str(refused(400, b"<<i>b>x"))

    def test_control_characters_are_taken_out(self):
        assert str(refused(400, {"error": "a\x1b[31m\x00b"})) == "400 a [31m b"

    def test_a_long_message_is_capped(self):
        assert len(str(refused(400, {"error": "x" * 10_000}, kind="tess"))) == 2_000

    def test_a_lone_surrogate_can_be_stored(self):
        assert str(refused(400, b'{"error":"h\\ud83di"}')) == "400 h\ufffdi"

    def test_where_a_redirect_leads_is_told_without_its_secrets(self):
        told = str(refused(302, location="https://u:p@login.example.com/x?token=t"))

        assert "login.example.com" in told
        assert "token" not in told
        assert "u:p" not in told

    @pytest.mark.parametrize("location", ["", "/else", "https://[", "\ud83d"])
    def test_a_redirect_to_nowhere_is_told_too(self, location):
        assert "never followed" in str(refused(302, location=location))

    @pytest.mark.parametrize("unit", ["<", "<script ", "</", "&lt;", "sk-", "Bearer ", "1|", "\\", '\\"input'])
    def test_an_odd_page_of_four_times_the_size_takes_about_four_times_as_long(self, unit):
        def taken_s(size: int) -> float:
            started_at = time.thread_time()
            refused(500, (unit * (size // len(unit))).encode())
            return time.thread_time() - started_at

        refused(500, b"")  # Loads what it needs.
        assert taken_s(8_000_000) < 8 * taken_s(2_000_000) + 0.5


NOON = "Fri, 20 Nov 2026 18:00:00 GMT"
NO_TIMES = [
    *("0", "0.0", "-5", "nan", "inf", "1e9", "1_000", "٥", "5, 7", "soon", " ", "+5", "5.", ".5", "1" * 400),
    NOON,
    "Fri, 20 Nov 2026 17:59:00 GMT",
    "Fri, 20 Nov 99999999999 18:00:00 GMT",
    "Fri, 20 Nov 2026 18:00:00 +99999999999999",
]


class TestWait:
    """How long a server asks to wait."""

    @pytest.mark.parametrize(
        ("told", "seconds"),
        [
            ("5", 5.0),
            (" 5 ", 5.0),
            ("1.5", 1.5),
            ("Fri, 20 Nov 2026 18:00:20 GMT", 20.0),
            ("Friday, 20-Nov-26 18:00:20 GMT", 20.0),
            ("Fri Nov 20 18:00:20 2026", 20.0),
            ("Fri, 20 Nov 2026 19:00:20 +0100", 20.0),
            *((odd, None) for odd in NO_TIMES),
        ],
    )
    def test_only_a_number_or_a_date_is_a_time(self, told, seconds):
        assert refused(429, retry_after=told, date=NOON).wait_s == seconds

    @pytest.mark.parametrize(
        ("headers", "body", "seconds"),
        [
            ({"retry_after_ms": "1200", "retry_after": "60"}, {"retry_after": 7}, 1.2),
            ({"retry_after_ms": "0", "retry_after": "60"}, {"retry_after": 7}, 60.0),
            ({"retry_after": "0"}, {"retry_after": 7}, 7.0),
            ({}, {"retry_after": "7"}, 7.0),
            ({}, {"error": {"retry_after": 7.5}}, 7.5),
            ({}, {"retry_after": True}, None),
            ({}, {"retry_after": -1}, None),
            ({}, {"retry_after": [7]}, None),
        ],
    )
    def test_the_first_hint_that_says_something_counts(self, headers, body, seconds):
        assert refused(429, body, **headers).wait_s == seconds

    @pytest.mark.parametrize(("told", "verdict"), [("300", "retry"), ("301", "defer"), ("9" * 25, "defer")])
    def test_a_time_above_the_cap_means_come_back_later(self, told, verdict):
        error = refused(429, retry_after=told)

        assert (error.verdict, error.scope, error.wait_s) == (verdict, "lane", float(told))

    def test_the_cap_is_the_jobs(self):
        assert refused(503, retry_after="20", max_wait_s=10).verdict == "defer"

    def test_a_refusal_that_is_final_has_no_time(self):
        assert refused(400, retry_after="5").wait_s is None
