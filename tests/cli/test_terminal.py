"""Foreign text that would steer a terminal or be rich's markup, on its way to every place where people read."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from driving import COMMAND, batchrunner, environment, write_rows
from faulty_server import serve_in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\r\x00[bold red]markup[/bold red]"
STEERS = frozenset("\x1b\x07\x9b\u202e\u2066\r\x00")


@pytest.fixture
def url() -> Iterator[str]:
    """A server whose every word is evil."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": EVIL}, "finish_reason": f"stop{EVIL}"}]
    good = {"id": EVIL, "model": EVIL, "choices": choices, "usage": {"prompt_tokens": 5}}

    def answer(seen: Any) -> Any:
        error = {"message": EVIL, "type": EVIL, "code": EVIL}
        bad = {"status": 400, "headers": {"X-Request-Id": "\x9b31m"}, "body_json": {"error": error}}
        down = {"status": 503, "body_json": {"error": error}}
        asked = seen.body
        return down if b"down" in asked else bad if b"bad" in asked else {"status": 200, "body_json": good}

    with serve_in_thread() as server:
        server.default = answer
        yield server.url


def words(folder: Path, url: str, *prompts: str) -> Sequence[object]:
    rows = [{"id": f"{number} {EVIL}", "prompt": f"{prompt} {EVIL}"} for number, prompt in enumerate(prompts)]
    path = write_rows(folder / "rows.jsonl", rows)
    options = ["--model", "m", "--base-url", url, "--out", folder / "run", "--set", "retry.down_s=1"]
    return [path, "--provider", "openai", *options]


def steered(*texts: str) -> set[str]:
    return STEERS & set("".join(texts))


def test_what_people_read_cannot_steer_their_terminal(tmp_path, url):
    asked = words(tmp_path, url, "good", "bad", "good")

    ended = batchrunner("run", *asked)
    looks = [
        batchrunner("status", tmp_path / "run"),
        batchrunner("show", tmp_path / "run", "--full"),
        batchrunner("plan", *asked),
    ]

    assert ended.code == 3
    assert "[bold red]markup" in looks[1].out
    assert steered(ended.err, ended.out, *(look.out + look.err for look in looks)) == set()


@pytest.mark.slow
def test_why_a_run_ended_cannot_steer_a_terminal(tmp_path, url):
    ended = batchrunner("run", *words(tmp_path, url, *["down"] * 5), "--progress-every", "1s")

    assert (ended.code, "evil" in ended.err) == (15, True)
    assert steered(ended.err, ended.out) == set()


@pytest.mark.slow
def test_a_live_display_shows_foreign_text_as_it_is_and_nothing_of_its_colours(tmp_path, url):
    """The display's own control sequences move the cursor; those of a server do nothing."""
    seen = on_a_terminal("run", *words(tmp_path, url, *["down"] * 5))

    signs = ("\x1b]0;owned", "\x1b[2J\x9b", "\x9b31m", "\u202e", "\u2066", "\x00")
    assert "[bold red]mark" in seen
    assert [sign for sign in signs if sign in seen] == []


def on_a_terminal(*asked: object) -> str:
    """Everything that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, asked)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(TERM="xterm")
    )
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how Linux says that the other end is gone
        while some := os.read(ours, 2**16):
            shown += some
    os.close(ours)
    assert process.wait(10) == 15
    return shown.decode()
