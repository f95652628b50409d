"""Replies that are too much: refused, while the run goes on and its memory stays what it was."""

from __future__ import annotations

import time
import zlib
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from driving import finish, start, write_rows
from faulty_server import completion, serve_in_thread

if TYPE_CHECKING:
    import subprocess

    from driving import Ended
    from faulty_server import FaultyServer, Seen

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")

JSON = {"Content-Type": "application/json"}
SSE = {"Content-Type": "text/event-stream"}


def bomb(megabytes: int) -> bytes:
    """That many megabytes of blanks as gzip, a thousandth of it."""
    engine, blanks = zlib.compressobj(wbits=16 + zlib.MAX_WBITS), b" " * 2**20
    return b"".join(engine.compress(blanks) for _ in range(megabytes)) + engine.flush()


def endless(head: str, again: str) -> dict[str, Any]:
    return {"end": "raw", "raw": f"HTTP/1.1 200 OK\r\n{head}", "again": again, "pause_ms": 0}


STREAM = "Content-Type: text/event-stream\r\n\r\n"
TOO_MUCH: dict[str, dict[str, Any]] = {
    "bomb": {"headers": {**JSON, "Content-Encoding": "gzip"}, "body": bomb(400)},
    "streamed bomb": {"headers": {**SSE, "Content-Encoding": "gzip"}, "body": bomb(400)},
    "70 MB": {
        "headers": JSON,
        "body_gen": {"prefix": '{"a":"', "unit": "y", "count": 70_000_000, "suffix": '"}'},
        "chunk_bytes": 2**18,
    },
    "32 MB and more": endless("Transfer-Encoding: chunked\r\n\r\n", "10000\r\n" + "y" * 2**16 + "\r\n"),
    "5 GB told": {"headers": {**JSON, "Content-Length": str(5 * 2**30)}, "body": "{", "end": "hang"},
    "a line without end": endless(STREAM, "data: " + "y" * 2**16),
    "events without end": endless(STREAM, "data: 1\n\n" * 2**12),
    "a head without end": endless("", "X-Filler: " + "y" * 2**12 + "\r\n"),
}
BROKEN = {"a head without end": "connection"}


class Peak(Thread):
    """Follows the peak of a process's memory until it ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{process.pid}/status")
        self.kilobytes = 0
        self.start()

    def run(self) -> None:
        while "VmHWM" in (told := self._told()):
            self.kilobytes = int(told.split("VmHWM:")[1].split()[0])
            time.sleep(0.01)

    def _told(self) -> str:
        try:
            return self._status.read_text()
        except OSError:
            return ""


def run(tmp_path: Path, server: FaultyServer, *, each: int, concurrency: int) -> tuple[Ended, int]:
    """A run of good rows and of `each` row that gets too much, and the megabytes that it took at its peak."""

    def answer(seen: Seen) -> Any:
        return TOO_MUCH.get(seen.json()["messages"][-1]["content"]) or completion(seen)

    server.default = answer
    asked = [*["good"] * 5, *list(TOO_MUCH) * each, *["good"] * 5]
    rows = [{"id": f"{number} {prompt}", "prompt": prompt} for number, prompt in enumerate(asked)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    told = {"retry.attempts": 2, "limits.concurrency": concurrency, "timeouts.idle_s": 20, "timeouts.first_byte_s": 20}
    words = [word for key, value in told.items() for word in ("--set", f"{key}={value}")]
    process = start("run", path, "--provider", "openai", "--model", "m", "--base-url", server.url, "--json", *words)
    peak = Peak(process)
    ended = finish(process, timeout_s=300)
    return ended, peak.kilobytes // 1024


@pytest.mark.parametrize(
    ("each", "concurrency", "megabytes"), [(1, 4, 300), pytest.param(8, 8, 500, marks=pytest.mark.slow)]
)
def test_too_much_is_refused_in_little_memory_and_the_run_goes_on(tmp_path, each, concurrency, megabytes):
    with serve_in_thread() as server:
        ended, peak = run(tmp_path, server, each=each, concurrency=concurrency)

    print(peak)
    assert ended.code == 3, ended.err
    assert ended.summary["items"]["succeeded"] == 10
    table = pl.read_parquet(ended.summary["results"])
    for prompt in TOO_MUCH:
        [kind] = set(table.filter(pl.col("item_id").str.ends_with(prompt))["error_type"])
        assert kind == BROKEN.get(prompt, "response_too_large"), prompt
    assert peak < megabytes
