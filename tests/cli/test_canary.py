"""A key that is echoed in every way a server knows, looked for wherever a run leaves something."""

from __future__ import annotations

import base64
import html
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import polars as pl
import pytest
from driving import batchrunner, finish, start, write_rows
from faulty_server import completion, serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from driving import Ended
    from faulty_server import FaultyServer, Seen

KEY = "77|Starts/Here+with=a~canary4711-0123456789-abcdefghij"
SECRET = "Client/Secret+with=a~canary4711-0123456789-abcdefghij"
TOKEN = "Some.Token-that/does+not~canary4711-0123456789-last"
NEEDLE = "canary4711-0123456789"


def in_base64(text: str) -> Iterator[str]:
    """What of `text` stands in the base64 of any text around it."""
    for before in range(3):
        coded = base64.b64encode(b"\0" * before + text.encode()).decode().rstrip("=")
        yield coded[(before * 8 + 5) // 6 : -1]


TRACES = re.compile("|".join(map(re.escape, [NEEDLE, *in_base64(NEEDLE)])), re.IGNORECASE)


def traces(*texts: object) -> list[str]:
    """Where the needle shows, with what stands around it."""
    return [text[max(0, at.start() - 60) : at.end() + 9] for text in map(str, texts) for at in TRACES.finditer(text)]


def traces_in(folder: Path) -> list[str]:
    """The same of every file; those of tables are read, since they are packed."""
    found = []
    for path in filter(Path.is_file, folder.rglob("*")):
        texts = [path.read_bytes().decode("latin-1")]
        if path.suffix == ".parquet":
            texts += [str(pl.read_parquet(path).to_dicts()), str(pl.read_parquet_metadata(path))]
        found += [f"{path.name}: {trace}" for trace in traces(*texts)]
    return found


def error(message: Any, status: int = 400, **more: Any) -> dict[str, Any]:
    return {"status": status, "body_json": {"error": {"message": message, "type": "odd"}}, **more}


def page(text: str, status: int = 200, kind: str = "application/json") -> dict[str, Any]:
    return {"status": status, "headers": {"Content-Type": kind}, "body": text}


def word_for_word(text: str) -> dict[str, Any]:
    return {"end": "raw", "raw": text}


def echoes(key: str) -> dict[str, dict[str, Any]]:
    """Replies that give the key away, each in its own way."""
    coded = base64.b64encode(f"Bearer {key}".encode()).decode()
    escaped = "".join(f"\\u{ord(c):04x}" for c in key)
    stream = "text/event-stream"
    return {
        "as it is": error(f"bad key {key}, go away"),
        "as a bearer": error(f"header was 'Authorization: Bearer {key}'"),
        "in an address": error(f"GET /v1?key={quote(key, safe='')}&x=1 is wrong"),
        "in base64": error(f"got {coded} and {base64.urlsafe_b64encode(key.encode()).decode()}"),
        "in capitals": error(key.upper()),
        "in every field": {"status": 400, "body_json": {"error": dict.fromkeys(("message", "type", "code"), key)}},
        "in details": {"status": 422, "body_json": {"detail": [{"loc": [key], "msg": key, "type": key}]}},
        "in validation": {"status": 400, "body_json": {"error": "Validation failed", "messages": {key: [key]}}},
        "as PHP has it": page(r'{"error": {"message": "' + key.replace("/", r"\/") + '"', 400),
        "escaped": page('{"error": {"message": "' + escaped + '"}}', 400),
        "in a page": page(f"<html><body>Sent {html.escape(key)} and {key}</body></html>", 502, "text/html"),
        "cut by the cap": error("x" * (2_000 - 40) + key),
        "cut by the server": {**page('{"error": {"message": "' + key[:-3], 500), "end": "cut"},
        "in headers": error("no", 403, headers={"WWW-Authenticate": f'Bearer realm="{key}"', "X-Request-Id": key}),
        "in a hint": error("slow down", 500, headers={"Retry-After": key, "Retry-After-Ms": key}),
        "no JSON": page(f"oops {key}"),
        "no JSON, cut": page("o" * 160 + key),
        "no JSON in half": {**page('{"a": "' + key[:-3]), "end": "cut"},
        "no JSON, escaped": page("oops " + escaped),
        "another shape": page(json.dumps({key: 1, "b": key})),
        "no object": page(json.dumps([key])),
        "an error in a 200": page(json.dumps({"error": {"message": key, "code": key}})),
        "an error in a choice": page(json.dumps({"choices": [{"error": {"message": key, "code": 502}}]})),
        "a chunk that is none": page(f"data: {{{key}\n\ndata: [DONE]\n\n", kind=stream),
        "a stream's error": page(f'event: error\ndata: {{"error": {{"message": "{key}"}}}}\n\n', kind=stream),
        "a stream of another shape": page(f'data: {{"{key}": 1}}\n\n', kind=stream),
        "a reason": word_for_word(f"HTTP/1.1 500 {key}\r\nContent-Length: 0\r\n\r\n"),
        "no status line": word_for_word(f"HTTP/1.1 {key}\r\n\r\n"),
        "no HTTP": word_for_word(f"{key}\r\n\r\n"),
        "no header": word_for_word(f"HTTP/1.1 200 OK\r\n{key} \x00: x\r\n\r\n"),
        "no header's value": word_for_word(f"HTTP/1.1 200 OK\r\nX-Key: {key}\x00\r\n\r\n"),
        "no length": word_for_word(f"HTTP/1.1 200 OK\r\nContent-Length: {key}\r\n\r\n"),
        "no chunk": word_for_word(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n"),
        "no encoding": page("x") | {"headers": {"Content-Encoding": key}, "body": b"\xff" + key.encode()},
    }


def answers(key: str, lines: list[bytes], pid: Callable[[], int]) -> Callable[[Seen], Any]:
    """Gives each item the echo that its prompt names; notes the command line of who asks."""
    by_name = echoes(key)

    def answer(seen: Seen) -> Any:
        lines.append(Path(f"/proc/{pid()}/cmdline").read_bytes() if Path("/proc").exists() else b"")
        if seen.path.startswith("/token"):
            return {"status": 200, "body_json": {"access_token": key, "token_type": "bearer", "expires_in": 900}}
        assert seen.headers["authorization"] == f"Bearer {key}"
        return by_name.get(seen.json()["messages"][-1]["content"]) or completion(seen)

    return answer


def words(folder: Path, server: FaultyServer, *more: object) -> list[object]:
    """A run of an item for each echo, among good ones: a server that is in trouble all the time is not asked on."""
    asked = [{"id": f"{kind}{name}", "prompt": f"{kind}{name}"} for name in echoes(KEY) for kind in ("", "not ")]
    rows = write_rows(folder / "rows.jsonl", [{"id": "first", "prompt": "hi"}, *asked])
    options = ["--set", "retry.attempts=1", "--set", "limits.concurrency=1", "--out", folder / "run"]
    return [rows, "--provider", "openai", "--model", "m", "--base-url", server.url, *options, *more]


def run(folder: Path, key: str, *more: object, env: dict[str, str] | None = None) -> tuple[Ended, list[object]]:
    with serve_in_thread() as server:
        lines: list[bytes] = []
        asked = words(folder, server, *(str(word).replace("URL", server.url) for word in more))
        server.default = answers(key, lines, lambda: process.pid)
        process = start("run", *asked, env=env)
        ended = finish(process)
        assert len({seen.body for seen in server.seen} - {b""}) >= 2 * len(echoes(key)) + 1
    assert lines
    assert traces(*(line.decode() for line in lines)) == []
    return ended, asked


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_a_key_shows_nowhere_whatever_a_server_does_with_it(tmp_path):
    env = {"OPENAI_API_KEY": KEY}

    ended, asked = run(tmp_path, KEY, env=env)
    looking = [
        start("status", tmp_path / "run", "--json"),
        start("show", tmp_path / "run", "--failed", "--full"),
        start("export", tmp_path / "run"),
        start("plan", *asked, "--json", env=env),
    ]
    looks = [finish(process) for process in looking]

    assert ended.code == 3, ended.err
    assert {look.code for look in looks} == {0}
    assert traces(ended.out, ended.err, *(text for look in looks for text in (look.out, look.err))) == []
    assert traces_in(tmp_path) == []


def by_file(folder: Path) -> str:
    path = folder.with_name(folder.name + ".key")
    path.write_text(KEY)
    path.chmod(0o600)
    return f"file:{path}"


def by_command(folder: Path) -> str:
    return f"command:{sys.executable} -c \"print(open('{by_file(folder).removeprefix('file:')}').read())\""


@pytest.mark.slow  # 4 s
@pytest.mark.parametrize("where", [by_file, by_command], ids=["file", "command"])
def test_a_key_that_is_kept_elsewhere_shows_nowhere(tmp_path, where):
    ended, _ = run(tmp_path, KEY, "--set", f"provider.api_key={where(tmp_path)}", "--json")

    assert ended.code == 3, ended.err
    assert traces(ended.out, ended.err) == []
    assert traces_in(tmp_path) == []


@pytest.mark.slow
def test_a_client_secret_and_its_tokens_show_nowhere(tmp_path):
    grant = '{token_url = "URL/token", client_id = "me", client_secret = "env:CLIENT_SECRET"}'

    ended, _ = run(tmp_path, TOKEN, "--set", f"provider.oauth2={grant}", env={"CLIENT_SECRET": SECRET})

    assert ended.code == 3, ended.err
    assert traces(ended.out, ended.err) == []
    assert traces_in(tmp_path) == []


ENDS = {
    "refused": (12, error(f"no such key: {KEY}", 401)),
    "redirected": (12, {"status": 307, "headers": {"Location": f"http://{quote(KEY)}@127.0.0.1:9/?key={KEY}"}}),
    "down": (15, error(f"overloaded by {KEY}", 503)),
    "garbage": (15, word_for_word(f"{KEY}\r\n\r\n")),
    "later": (15, error(f"come back, {KEY}", 429, headers={"Retry-After": "86400"})),
    "out of quota": (12, {"status": 429, "body_json": {"error": {"code": "insufficient_quota", "message": KEY}}}),
    "all alike": (12, error(f"no such field: {KEY}", 422)),
}


MORE_ENDS = sorted(ENDS.keys() - {"refused", "down"})


@pytest.mark.parametrize("name", ["refused", "down", *(pytest.param(n, marks=pytest.mark.slow) for n in MORE_ENDS)])
def test_a_key_shows_not_in_why_a_run_ended(tmp_path, name):
    code, reply = ENDS[name]
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "prompt": "hi"} for n in range(30)])
    options = ["--base-url", "URL", "--set", "retry.down_s=1", "--progress-every", "1s"]
    with serve_in_thread() as server:
        server.default = reply
        asked = [str(word).replace("URL", server.url) for word in ("run", rows, "--model", "m", *options)]
        ended = batchrunner(*asked, "--provider", "openai", env={"OPENAI_API_KEY": KEY})

    assert ended.code == code, ended.err
    assert traces(ended.out, ended.err) == []
    assert traces_in(tmp_path) == []


BUGGY = """
from batchrunner.providers.openai import OpenAI


class Buggy(OpenAI):
    name = "buggy"

    def headers(self, key, endpoint):
        return {"authorization": int(key or 0)}


PROVIDER = Buggy()
"""


def test_a_key_shows_not_in_the_traceback_of_a_bug(tmp_path):
    (tmp_path / "buggy.py").write_text(BUGGY)
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "hi"}])
    asked = ["run", rows, "--provider", "buggy:PROVIDER", "--model", "m", "--base-url", "http://127.0.0.1:9"]
    options = ["--set", "provider.api_key=env:MY_KEY", "--json"]

    ended = batchrunner(*asked, *options, env={"PYTHONPATH": str(tmp_path), "MY_KEY": KEY})

    assert ended.code == 1
    assert "ValueError: invalid literal for int() with base 10" in ended.err
    assert traces(ended.out, ended.err) == []
    assert traces_in(tmp_path) == []
