"""What is asked of a token endpoint, and how its answers are read."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from batchrunner.credentials import Grant, Secret, read_token, token_form
from batchrunner.errors import RequestError
from batchrunner.records import Reply


def grant(**more: Any) -> Grant:
    return Grant(token_url="https://auth.example.com/t?x=1", client_id="me", client_secret=Secret("s e:c/ret"), **more)


def reply(body: Any, status: int = 200) -> Reply:
    return Reply(status=status, headers={}, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def refused(body: Any, status: int = 200) -> RequestError:
    with pytest.raises(RequestError) as error:
        read_token(grant(), reply(body, status))
    return error.value


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BearerToken"])
def test_a_bearers_token_may_be_called_so_in_several_ways(kind):
    assert read_token(grant(), reply({"access_token": "abc", "token_type": kind})).secret.reveal() == "abc"


def test_the_form_asks_for_client_credentials():
    form = token_form(grant(scope="a b", audience="https://api"))

    assert (form.origin, form.path) == ("https://auth.example.com", "/t?x=1")
    assert parse_qs(form.body.decode()) == {
        "grant_type": ["client_credentials"],
        "scope": ["a b"],
        "audience": ["https://api"],
    }
    assert form.headers["authorization"] == "Basic bWU6cytlJTNBYyUyRnJldA=="  # me:s+e%3Ac%2Fret


def test_or_has_the_client_in_its_body():
    form = token_form(grant(auth_method="client_secret_post"))

    assert parse_qs(form.body.decode())["client_secret"] == ["s e:c/ret"]
    assert "authorization" not in form.headers


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [(3600, 3600.0), ("3600", 3600.0), (0.5, 0.5), (0, None), (-1, None), ("soon", None), (None, None), (True, None)],
)
def test_a_token_lasts_as_long_as_it_says(expires_in, seconds):
    token = read_token(grant(), reply({"access_token": "abc", "token_type": "BEARER", "expires_in": expires_in}))

    assert token.secret.reveal() == "abc"
    assert token.lifetime_s == seconds
    assert "abc" not in repr(token)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_a_refused_client_ends_the_run(status):
    error = refused({"error": "invalid_client", "error_description": "no such client"}, status)

    assert (error.verdict, error.error_type, error.scope) == ("abort", "auth", "run")
    assert "auth.example.com" in str(error)
    assert "invalid_client: no such client" in str(error)


def test_what_an_endpoint_echoes_of_us_is_masked_even_where_its_words_are_cut():
    """Also as a header has it, and where the cut goes through a secret."""
    basic = token_form(grant()).headers["authorization"]
    long = "x" * 280
    texts = [basic, "s e:c/ret", "s+e%3Ac%2Fret", f"{long} {basic}", f"{long} s e:c/ret"]
    said = [str(refused({"error": "no", "error_description": text}, 401)) for text in texts]

    assert not [text for text in said if "bWU6" in text or "s e" in text or "s+e" in text]


def test_an_endpoints_words_are_one_line_that_can_be_written():
    said = str(refused({"error": "no", "error_description": "a\n\tb\ud800"}, 401))

    assert "no: a b?; correct" in said


def test_a_form_does_not_show_what_is_in_it():
    for method in ("client_secret_basic", "client_secret_post"):
        shown = repr(token_form(grant(auth_method=method)))
        assert "ret" not in shown.replace("secret", "")
        assert "bWU6" not in shown


def test_an_error_inside_a_200_is_a_refusal():
    assert refused({"error": "invalid_scope"}).verdict == "abort"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_an_endpoint_in_trouble_is_asked_again(status):
    assert (refused({"error": "busy"}, status).verdict, refused({}, status).error_type) == ("retry", "server")


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[1]", b"[" * 100_000, {}, {"access_token": ""}, {"access_token": 7}, {"access_token": "a b"},
     {"access_token": "a\nb"}, {"access_token": "\u00e9"}, {"access_token": "abc", "token_type": "mac"}],
)  # fmt: skip
def test_what_is_no_token_is_asked_for_again(body):
    assert (refused(body).verdict, refused(body).error_type) == ("retry", "server")
