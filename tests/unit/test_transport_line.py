"""What is made once for a lane: addresses, headers, the proxy; and every fault of them at once."""

from __future__ import annotations

import pytest

from batchrunner.errors import JobError
from batchrunner.records import Request
from batchrunner.transport.attempt import Attempt, Clocks
from batchrunner.transport.line import prepare

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def headers_of(*, stream: bool = False, **headers: str) -> dict[str, str]:
    line = prepare(
        "https://api.tess.im", {name.replace("_", "-"): value for name, value in headers.items()}, proxy=None
    )
    request = Request(path="/x", body=b"{}", stream=stream, key="k")
    told = dict(line.outgoing(request, Attempt(lambda: 0.0, Clocks(), deadline=None)).headers)
    start, _, body = line.bytes_of(request).decode("ascii").partition("\r\n\r\n")
    assert (start.split("\r\n"), body) == (
        ["POST /x HTTP/1.1", *(f"{name}: {value}" for name, value in told.items())],
        "{}",
    )
    return told


def test_a_line_says_where_it_leads() -> None:
    assert prepare("https://api.tess.im", {}, proxy=None).where == "api.tess.im:443"
    assert prepare("http://127.0.0.1:8000/v1", {}, proxy=None).where == "127.0.0.1:8000"
    assert prepare("http://[::1]", {}, proxy=None).where == "[::1]:80"


def test_headers_of_the_job_go_out_and_ours_keep_their_meaning() -> None:
    headers = headers_of(authorization="Bearer 1|k", user_agent="mine", accept="text/html", Accept_Encoding="br")

    assert headers == {
        "host": "api.tess.im",
        "user-agent": "mine",
        "content-type": "application/json",
        "authorization": "Bearer 1|k",
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-length": "2",
    }


def test_every_fault_is_told_at_once_and_no_value_is_shown() -> None:
    headers = {"authorization": "Bearer secret\n", "x-é": "1", "content-length": "3", "x-team": "tëam", "ok": "yes"}

    with pytest.raises(JobError) as caught:
        prepare("ftp://user:secret@api.tess.im", headers, proxy="socks5://secret@p:1")

    assert caught.value.faults == (
        "provider.base_url: expected 'https://' and a host, got 'ftp://api.tess.im'",
        "provider.base_url: holds a user or password; name the key in provider.api_key",
        "header 'authorization': expected printable ASCII without space at either end, got something else",
        "header 'x-é': expected letters, digits and dashes only in a header's name",
        "header 'content-length': is set for each request; leave it out",
        "header 'x-team': expected printable ASCII without space at either end, got something else",
        "the proxy must be an http:// or https:// address; set provider.proxy, or name the host in NO_PROXY",
    )
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", ["Bearer ", " k", "a\rb", "a\0b", "k\n", "ключ"])
def test_a_header_that_could_not_be_sent_is_a_fault(value: str) -> None:
    with pytest.raises(JobError, match="header 'authorization'"):
        prepare("https://api.tess.im", {"authorization": value}, proxy=None)


@pytest.mark.parametrize(
    "base_url", ["", "api.tess.im", "https://", "https://api.tess.im:99999", "http://[::1", "https://a\nb"]
)
def test_an_address_that_is_none_is_a_fault(base_url: str) -> None:
    with pytest.raises(JobError, match=r"provider.base_url"):
        prepare(base_url, {}, proxy=None)


@pytest.mark.parametrize(
    ("variables", "base_url", "proxy"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://api.tess.im", "http://p:1"),
        ({"https_proxy": "p:1"}, "https://api.tess.im", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "https://api.tess.im", None),
        ({"ALL_PROXY": "http://p:1"}, "https://api.tess.im", "http://p:1"),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "tess.im"}, "https://api.tess.im", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://api.tess.im", None),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "mor.org"}, "https://api.tess.im", "http://p:1"),
        ({"HTTP_PROXY": "http://p:1"}, "http://127.0.0.1:8000", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://localhost:8000", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://[::1]:8000", None),
        ({"HTTP_PROXY": "http://p:1"}, "http://10.0.0.1:8000", "http://p:1"),
    ],
)
def test_proxy_variables_are_obeyed_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], base_url: str, proxy: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert prepare(base_url, {}, proxy=None).proxy == proxy


def test_a_proxy_that_is_named_goes_before_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://p:1")

    assert prepare("https://api.tess.im", {}, proxy="http://named:2").proxy == "http://named:2"
