"""Values that come as text."""

from __future__ import annotations

import contextlib
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import JobError
from batchrunner.spec import (
    MaxFailed,
    Shard,
    is_key_reference,
    parse_duration,
    parse_max_failed,
    parse_set,
    parse_shard,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("90", 90),
        ("0.5", 0.5),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1d", 86400),
        ("0s", 0),
        (" 5s ", 5),
    ],
)
def test_durations_mean_what_they_say(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1w", "h", "30m1h", "1h1h", "1e3", "1_0", "nan", "inf", "1h30", "１h", "1 2s"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(JobError) as error:
        parse_duration(text, where="--grace")

    assert str(error.value) == f"--grace: expected a duration such as 90, '90s', '10m' or '1h30m', got {text!r}"


@given(hours=st.integers(0, 999), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_any_clock_time_is_the_sum_of_its_parts(hours, minutes, seconds):
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.text(max_size=20))
def test_any_text_is_a_duration_or_a_job_error(text):
    with contextlib.suppress(JobError):
        assert parse_duration(text) >= 0


def test_shards_count_from_nought():
    assert parse_shard("0/4") == Shard(index=0, count=4)
    assert parse_shard("3/4") == Shard(index=3, count=4)


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "1/0", "0/0", "a/b", "1/4/2", "", "１/4"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(JobError) as error:
        parse_shard(text)

    assert str(error.value) == f"--shard: expected I/N with I from 0 to N-1, such as '0/4', got {text!r}"


@pytest.mark.parametrize(
    ("text", "failed", "total", "allowed"),
    [
        ("0", 0, 10, True), ("0", 1, 10, False), ("5", 5, 5, True), ("5", 6, 1000, False),
        ("2%", 2, 100, True), ("2%", 3, 100, False), ("2%", 1, 49, False), ("2.5%", 25, 1000, True),
        ("0%", 0, 0, True), ("100%", 7, 7, True),
    ],
)  # fmt: skip
def test_a_bound_on_failures_is_a_number_or_a_share(text, failed, total, allowed):
    assert parse_max_failed(text).allows(failed, total) is allowed


@pytest.mark.parametrize("text", ["", "-1", "2.5", "101%", "%", "5 %x", "all"])
def test_what_is_no_bound_is_refused(text):
    with pytest.raises(JobError, match="--max-failed: expected a number of items such as '5', or a share such as '2%'"):
        parse_max_failed(text)


@given(total=st.integers(0, 10**9), percent=st.integers(0, 100))
def test_a_share_is_exact(total, percent):
    bound = parse_max_failed(f"{percent}%")

    assert isinstance(bound, MaxFailed)
    assert bound.allows(total * percent // 100, total)
    assert not bound.allows(total * percent // 100 + 1, total)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("limits.concurrency=8", "limits.concurrency", 8),
        ("limits.concurrency=auto", "limits.concurrency", "auto"),
        ("a = 1_000", "a", 1000),
        ("a=true", "a", True),
        ('a="8"', "a", "8"),
        ("a=", "a", ""),
        ("a=b=c", "a", "b=c"),
        ('a=["x", "y"]', "a", ["x", "y"]),
        ("a={b = 1}", "a", {"b": 1}),
        ("a=2026-11-20", "a", "2026-11-20"),
        ("a=1\nb = 2", "a", "1\nb = 2"),
        ("a=Say #1", "a", "Say #1"),
        ('prices."a=b".x=1', 'prices."a=b".x', 1),
        ("a=" + "[" * 5000, "a", "[" * 5000),
    ],
)
def test_a_setting_is_read_as_toml_else_as_text(text, key, value):
    assert parse_set(text) == (key, value)


@pytest.mark.parametrize("text", ["limits.concurrency", "=5", "a b=5", "a..b=5", ".a=5", "a\nb=5", ""])
def test_a_setting_needs_a_key_and_a_sign(text):
    with pytest.raises(JobError) as error:
        parse_set(text)

    assert str(error.value) == "--set: expected KEY=VALUE with a dotted key such as limits.concurrency=8"


@given(st.text(max_size=30))
def test_any_value_of_a_setting_is_toml_or_the_text_itself(text):
    _, value = parse_set(f"key={text}")

    if isinstance(value, str) and value != text.strip():
        assert tomllib.loads(f"value = {text}")


@pytest.mark.parametrize(
    "text", ["env:KEY", "env:_k1", "file:keys/tess", "command:vault kv get -field=key tess", "none"]
)
def test_references_to_keys_are_known(text):
    assert is_key_reference(text)


@pytest.mark.parametrize(
    "text", ["", "sk-123", "KEY", "env:", "env:a-b", "env:1A", "file:", "file: ", "command:", "None", "$KEY"]
)
def test_a_literal_key_is_no_reference(text):
    assert not is_key_reference(text)
