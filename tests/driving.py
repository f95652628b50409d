"""Driving the product as users do: real processes, real sockets, real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from forking import call, forkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

COMMAND = [sys.executable, "-m", "batchrunner"]
KEYS = {"TESS_API_KEY", "OPENAI_API_KEY", "GATEWAY_API_KEY", "OPENTOOLS_API_KEY", "AZURE_OPENAI_API_KEY"} | {
    "TESS_WORKSPACE_ID"
}
TIMEOUT_S = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended: what it said, and how."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.last_line)
        return found

    def table(self) -> pl.DataFrame:
        return pl.read_parquet(self.last_line)


def environment(**more: str) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if name not in KEYS and "BATCHRUNNER" not in name}
    return {**plain, "PYTHONWARNINGS": "error::ResourceWarning", **more}


def start(
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    under: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """A command of ours as a child process with pipes; `under` another that runs it in its own place."""
    return subprocess.Popen(
        [*under, *COMMAND, *map(str, words)],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, timeout_s: float = TIMEOUT_S) -> Ended:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"did not end:\n{out}\n{err}") from None
    return Ended(code=process.returncode, out=out, err=err)


def batchrunner(
    *words: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Ended:
    """One command from start to end."""
    asked, where = environment(**(env or {})), cwd or Path.cwd()
    if stdin is None and forkable(env or {}):
        done = call([*map(str, words)], cwd=where, env=asked, timeout_s=timeout_s)
    else:
        command = [*COMMAND, *map(str, words)]
        given = stdin or b""
        done = subprocess.run(
            command, cwd=where, env=asked, input=given, capture_output=True, timeout=timeout_s, check=False
        )
    return Ended(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """A simulator in a process of its own, and what it saw."""

    url: str
    log: Path

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"

    def seen(self) -> list[dict[str, Any]]:
        """All requests so far. The simulator writes its log at least every half second."""
        time.sleep(0.7)
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def answered(self) -> Counter[str]:
        """How often each request body was answered with a 200."""
        return Counter(json.dumps(line["body"], sort_keys=True) for line in self.seen() if line["status"] == 200)


@contextmanager
def api(log: Path, **options: object) -> Iterator[Api]:
    """`batchrunner simulator` on a free port."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    process = start("simulator", "--port", 0, "--log", log, *words)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), (url, process.poll())
        yield Api(url=url, log=log)
    finally:
        process.terminate()
        process.communicate(timeout=10)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def prompts(count: int, *, prefix: str = "p", **columns: Any) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{n}", "prompt": f"Say {prefix} {n}", **columns} for n in range(count)]


def run_words(rows: Path, url: str, *more: object) -> Sequence[object]:
    """A run of a rows file against a simulator as Tess: no key needed, no limit."""
    return ["run", rows, "--provider", "tess", "--agent-id", 8794, "--base-url", url, "--rpm", "none", *more]
