"""Keys and tokens that do not last as long as the run: real processes, real servers, counted at both ends."""

from __future__ import annotations

import base64
import signal
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import pytest
from driving import batchrunner, finish, prompts, start, write_rows
from faulty_server import completion, serve_in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from faulty_server import Seen

SECRET = "canary-client-secret/+0123456789"
REFUSED = {"status": 401, "body_json": {"error": {"message": "Invalid authentication", "code": "invalid_api_key"}}}


@dataclass
class Doors:
    """A token endpoint and an API that lets in whoever holds a token of its own that has not ended."""

    lifetime_s: float = 3600.0
    tells: bool = True
    """Whether the endpoint says how long a token lasts."""
    given: dict[str, float] = field(default_factory=dict)
    """Tokens, and until when they are good."""
    late: int = 0
    """Requests with a token that had ended."""
    forms: list[dict[str, list[str]]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    replies: list[dict[str, Any]] = field(default_factory=list)
    """What the token endpoint answers first."""

    def __call__(self, seen: Seen) -> Any:
        if seen.path.startswith("/token"):
            return self._token(seen)
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if seen.at < self.given.get(token, 0.0):
            return completion(seen)
        self.late += token in self.given
        return REFUSED

    def _token(self, seen: Seen) -> Any:
        self.forms.append(parse_qs(seen.body.decode()))
        self.authorizations.append(seen.headers.get("authorization"))
        if self.replies:
            return self.replies.pop(0)
        token = f"canary-token-{len(self.given)}-0123456789"
        self.given[token] = time.monotonic() + self.lifetime_s
        told = {
            "access_token": token,
            "token_type": "Bearer",
            **({"expires_in": self.lifetime_s} if self.tells else {}),
        }
        return {"status": 200, "body_json": told}


@pytest.fixture
def server():
    with serve_in_thread() as running:
        yield running


def job(folder: Path, url: str, rows: int, **provider: Any) -> Path:
    write_rows(folder / "rows.jsonl", prompts(rows))
    told = {"kind": '"gateway"', "base_url": f'"{url}"', "requests_per_key": "500", **provider}
    lines = "\n".join(f"{name} = {value}" for name, value in told.items())
    path = folder / "job.toml"
    path.write_text(f'input = {{ path = "rows.jsonl" }}\n[provider]\n{lines}\n[limits]\nconcurrency = 500\n')
    return path


def oauth2(url: str, **more: str) -> str:
    told = {"token_url": f"{url}/token", "client_id": "me", "client_secret": "env:CLIENT_SECRET", **more}
    return "{ " + ", ".join(f'{name} = "{value}"' for name, value in told.items()) + " }"


def run(path: Path, *more: object) -> Any:
    return batchrunner("run", path, "--json", *more, env={"CLIENT_SECRET": SECRET})


def leaks(folder: Path, *texts: str) -> list[str]:
    """Where a secret of ours stands that should stand nowhere."""
    files = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    held = files | {f"text {number}": text.encode() for number, text in enumerate(texts)}
    return [name for name, data in held.items() if b"canary-" in data and not name.endswith(("key", "command.py"))]


@pytest.mark.parametrize(
    ("rows", "at_once", "lifetime_s", "latency_s"),
    [(400, 60, 1.6, 0.5), pytest.param(3_000, 500, 4.0, 1.5, marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_many_items_over_three_lifetimes_fetch_exactly_three_tokens(
    tmp_path, server, rows, at_once, lifetime_s, latency_s
):
    """One for each lifetime, however many ask at once; and no secret is left anywhere."""
    doors = server.default = Doors(lifetime_s=lifetime_s)
    server.latency_s = latency_s
    path = job(tmp_path, server.url, rows, oauth2=oauth2(server.url, scope="openid email"))

    ended = run(path, "--concurrency", at_once)

    assert ended.code == 0, ended.err
    assert ended.summary["items"]["succeeded"] == rows
    assert server.max_in_flight > at_once * 0.8
    # None, but those that this server itself reads late on a busy machine: they cost no token.
    assert doors.late <= rows // 50
    # One token a lifetime, however long the run takes on a busy machine: three on an idle one.
    times = [until - doors.lifetime_s for until in doors.given.values()]
    assert len(times) == len(doors.forms) >= 3
    assert min(later - earlier for earlier, later in pairwise(times)) > doors.lifetime_s * 0.9
    assert doors.forms[0] == {"grant_type": ["client_credentials"], "scope": ["openid email"]}
    basic = base64.b64decode(doors.authorizations[0].removeprefix("Basic ")).decode()
    assert basic == "me:canary-client-secret%2F%2B0123456789"
    assert leaks(tmp_path, ended.out, ended.err) == []


def test_a_token_that_is_refused_is_renewed_once_and_nothing_is_lost(tmp_path, server):
    """The endpoint says nothing of lifetimes: a 401 tells."""
    doors = server.default = Doors(lifetime_s=0.7, tells=False)
    server.latency_s = 0.02
    path = job(tmp_path, server.url, 400, oauth2=oauth2(server.url))

    ended = run(path, "--concurrency", 8, "--set", "limits.requests_per_minute=18000")

    assert ended.code == 0, ended.err
    assert 2 <= len(doors.forms) <= 5
    assert doors.late >= 1


def test_a_client_whose_tokens_are_never_good_ends_the_run_at_once(tmp_path, server):
    doors = server.default = Doors(lifetime_s=0.0, tells=False)
    path = job(tmp_path, server.url, 200, oauth2=oauth2(server.url))

    ended = run(path)

    assert ended.code == 12
    assert len(doors.forms) == 2
    assert len(server.seen) - 2 <= 6
    assert ended.summary["items"]["unfinished"] == 200
    assert leaks(tmp_path, ended.out, ended.err) == []


def test_a_client_that_is_refused_is_said_with_the_endpoints_words_and_without_the_secret(tmp_path, server):
    told = {"error": "invalid_client", "error_description": f"unknown secret {SECRET}"}
    doors = server.default = Doors(replies=[{"status": 401, "body_json": told}] * 9)

    ended = run(job(tmp_path, server.url, 50, oauth2=oauth2(server.url)))

    assert ended.code == 12
    assert "invalid_client: unknown secret ***" in ended.summary["reason"]
    assert len(server.seen) == len(doors.forms) <= 3
    assert leaks(tmp_path, ended.out, ended.err) == []


@pytest.mark.parametrize("status", [302, 307])
def test_an_endpoint_that_leads_elsewhere_is_not_followed_and_the_secret_stays(tmp_path, server, status):
    with serve_in_thread() as other:
        doors = Doors(replies=[{"status": status, "headers": {"Location": f"{other.url}/token"}, "body": ""}] * 9)
        server.default = doors

        ended = run(job(tmp_path, server.url, 3, oauth2=oauth2(server.url)))

        assert other.connections == 0
    assert ended.code == 12, ended.err
    assert len(doors.forms) == 1


@pytest.mark.slow
def test_an_endpoint_that_is_down_for_a_while_is_waited_for(tmp_path, server):
    odd = [{"status": 503, "body": "busy"}, {"end": "no_reply"}]
    doors = server.default = Doors(replies=odd)

    ended = run(job(tmp_path, server.url, 5, oauth2=oauth2(server.url, auth_method="client_secret_post")))

    assert ended.code == 0, ended.err
    assert ended.summary["possibly_billed"] == 0
    assert len(doors.given) == 1
    assert doors.forms[-1]["client_secret"] == [SECRET]
    assert doors.authorizations[-1] is None


@pytest.mark.slow
def test_azure_takes_a_token_as_a_bearer(tmp_path, server):
    server.default = Doors()
    path = job(
        tmp_path,
        server.url,
        3,
        kind='"azure"',
        deployment='"d"',
        api_version='"2024-10-21"',
        oauth2=oauth2(server.url, audience="https://cognitiveservices.azure.com"),
    )

    assert run(path).code == 0
    asked = [seen.headers for seen in server.seen if not seen.path.startswith("/token")]
    assert all("api-key" not in headers and headers["authorization"].startswith("Bearer ") for headers in asked)


@pytest.mark.slow
def test_a_plan_and_a_simulated_run_fetch_no_token(tmp_path, server):
    path = job(tmp_path, server.url, 3, oauth2=oauth2(server.url))

    assert batchrunner("plan", path, env={"CLIENT_SECRET": SECRET}).code == 0
    assert batchrunner("run", path, "--simulate").code == 0
    assert server.seen == []


@pytest.mark.parametrize(
    ("oauth2", "words"),
    [
        (
            '{ token_url = "https://x/t", client_id = "me" }',
            "client_secret: expected where the client's secret is kept",
        ),
        (
            '{ token_url = "https://x/t", client_id = "me", client_secret = "canary-literal" }',
            "a literal secret is ref",
        ),
        ('{ token_url = "https://x/t", client_id = "me", client_secret = "env:NOT_SET" }', "NOT_SET is not set"),
        ('{ token_url = "http://example.com/t", client_id = "me", client_secret = "env:CLIENT_SECRET" }', "plain http"),
        ('{ token_url = "https://x/t", client_id = "me", client_secret = "env:A", scop = "b" }', "mean 'scope'"),
        (
            '{ token_url = "https://x/t", client_id = "m", client_secret = "env:A", auth_method = "b" }',
            "client_secret_p",
        ),
    ],
)
def test_what_is_wrong_with_a_grant_is_said_before_anything_is_sent(tmp_path, server, oauth2, words):
    path = job(tmp_path, server.url, 3, oauth2=oauth2)

    ended = run(path)

    assert ended.code == 2
    assert words in ended.err
    assert "canary" not in ended.err + ended.out
    assert server.seen == []


def test_a_key_and_a_grant_are_one_too_many(tmp_path, server):
    path = job(tmp_path, server.url, 3, oauth2=oauth2(server.url), api_key='"env:X"')

    assert "expected either api_key or oauth2, got both" in run(path).err


def key_file(folder: Path, key: str) -> Path:
    path = folder / "my.key"
    path.write_text(f"{key}\n")
    path.chmod(0o600)
    return path


def test_a_key_file_that_was_changed_is_read_again_when_the_old_key_is_refused(tmp_path, server):
    path = key_file(tmp_path, "sk-canary-old-0123456789")
    answered = 0

    def doors(seen: Seen) -> Any:
        nonlocal answered
        old = seen.headers["authorization"].endswith("old-0123456789")
        answered += 1
        if answered == 20:
            key_file(tmp_path, "sk-canary-new-0123456789")
        return REFUSED if old and answered >= 20 else completion(seen)

    server.default = doors
    ended = run(job(tmp_path, server.url, 100, api_key=f'"file:{path}"'), "--concurrency", 4)

    assert ended.code == 0, ended.err
    assert ended.summary["items"]["succeeded"] == 100
    assert leaks(tmp_path, ended.out, ended.err) == []


@pytest.mark.slow
def test_a_command_is_run_again_when_its_key_is_refused(tmp_path, server):
    script = tmp_path / "command.py"
    script.write_text(
        "import pathlib\np = pathlib.Path('count')\nn = int(p.read_text()) + 1 if p.exists() else 1\n"
        "p.write_text(str(n))\nprint(f'sk-canary-{n}-0123456789')\n"
    )
    server.default = lambda seen: REFUSED if "canary-1-" in seen.headers["authorization"] else completion(seen)

    ended = run(job(tmp_path, server.url, 30, api_key=f'"command:{sys.executable} {script}"'))

    assert ended.code == 0, ended.err
    assert (tmp_path / "count").read_text() == "2"


def test_a_command_that_hangs_does_not_hold_up_the_end_of_a_run(tmp_path, server):
    script = tmp_path / "command.py"
    script.write_text(
        "import pathlib, time\np = pathlib.Path('hangs')\nif p.exists():\n    time.sleep(40)\n"
        "p.touch()\nprint('sk-canary-0123456789')\n"
    )
    server.default = REFUSED
    path = job(tmp_path, server.url, 5, api_key=f'"command:{sys.executable} {script}"')
    process = start("run", path, "--grace", "0.2s", "--json")
    while len(server.seen) < 3:
        time.sleep(0.02)
    signalled = time.monotonic()
    process.send_signal(signal.SIGTERM)

    assert finish(process).code == 143
    assert time.monotonic() - signalled < 10


@pytest.mark.parametrize("changed", [False, True])
def test_a_dead_key_in_a_file_costs_three_requests_and_another_dead_one_three_more(tmp_path, server, changed):
    path = key_file(tmp_path, "sk-canary-old-0123456789")

    def doors(seen: Seen) -> Any:
        if changed:
            key_file(tmp_path, "sk-canary-new-0123456789")
        return REFUSED

    server.default = doors
    ended = run(job(tmp_path, server.url, 100, api_key=f'"file:{path}"'))

    assert ended.code == 12
    assert len(server.seen) <= (6 if changed else 3)
    assert ended.summary["items"]["unfinished"] == 100
