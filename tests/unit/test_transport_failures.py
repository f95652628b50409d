"""What each trouble of the wire means for an attempt."""

from __future__ import annotations

import errno
import ssl

import httpx
import pytest

from batchrunner.transport.attempt import Attempt, Clocks
from batchrunner.transport.failures import MEANING, TRANSLATED, failure
from batchrunner.transport.wording import NotHTTP

WHERE = "api.tess.im:443"


def attempt(*, sent: bool = False, reused: bool = False) -> Attempt:
    made = Attempt(lambda: 0.0, Clocks(), deadline=None)
    if sent:
        made.connected(reused=reused)
        made.sent()
    return made


def exceptions() -> list[type[Exception]]:
    """Every exception of httpx, as long as it is public."""
    public = [getattr(httpx, name) for name in httpx.__all__]
    return [kind for kind in public if isinstance(kind, type) and issubclass(kind, Exception)]


def raised(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)
    error.args = ("told",)
    return error


def test_every_exception_of_httpx_is_decided_on() -> None:
    assert set(MEANING) == set(exceptions())


@pytest.mark.parametrize("kind", exceptions(), ids=lambda kind: kind.__name__)
def test_every_exception_of_httpx_becomes_a_request_error(kind: type[Exception]) -> None:
    error = failure(raised(kind), attempt(sent=True), where=WHERE)

    assert issubclass(kind, TRANSLATED)
    assert f"({kind.__name__}: told)" in str(error)
    assert (error.verdict, error.error_type) == MEANING[kind]


def test_an_exception_of_a_later_httpx_means_what_its_base_means() -> None:
    class Newer(httpx.ReadTimeout): ...

    assert failure(Newer("x"), attempt(), where=WHERE).error_type == "timeout"


def test_an_error_without_a_word_is_named_by_its_class() -> None:
    error = failure(httpx.ReadError(""), attempt(sent=True), where=WHERE, status=200)

    assert str(error) == f"the connection to {WHERE} was lost in the middle of the reply (ReadError)"
    assert (error.status, error.went_out) == (200, True)


def test_what_did_not_go_out_whole_is_not_billed() -> None:
    error = failure(httpx.WriteError("broken pipe"), attempt(), where=WHERE)

    assert str(error) == f"the request could not be sent to {WHERE} (WriteError: broken pipe)"
    assert error.went_out is False


@pytest.mark.parametrize(
    ("sent", "reused", "status", "wait_s"),
    [(True, True, None, 0.0), (True, False, None, None), (True, True, 200, None)],
)
def test_only_a_stale_connection_is_tried_again_at_once(
    sent: bool, reused: bool, status: int | None, wait_s: float | None
) -> None:
    error = failure(httpx.RemoteProtocolError("x"), attempt(sent=sent, reused=reused), where=WHERE, status=status)

    assert error.wait_s == wait_s


def test_garbage_on_a_reused_connection_is_not_stale() -> None:
    told = failure(NotHTTP("400 bad header"), attempt(sent=True, reused=True), where=WHERE)

    assert (told.wait_s, str(told)) == (None, f"no answer from {WHERE} (RemoteProtocolError: 400 bad header)")


def test_a_timeout_on_a_reused_connection_is_not_stale() -> None:
    assert failure(httpx.ReadTimeout("x"), attempt(sent=True, reused=True), where=WHERE).wait_s is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_the_limit_of_open_files_is_found_however_deep(number: int) -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = ValueError("between")
    error.__cause__.__context__ = OSError(number, "too many")

    told = failure(error, attempt(), where=WHERE)

    assert "raise it with 'ulimit -n', or lower limits.concurrency" in str(told)
    assert (told.scope, told.wait_s, told.went_out) == ("machine", 0.0, False)


def test_a_certificate_is_the_same_for_every_item() -> None:
    error = httpx.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError(1, "bad")
    error.__cause__.verify_message = "self-signed certificate"

    told = failure(error, attempt(), where=WHERE)

    assert (told.verdict, told.scope) == ("abort", "run")
    assert "(self-signed certificate)" in str(told)
