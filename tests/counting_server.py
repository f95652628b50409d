"""An API server in a process of its own that is fast, fails at set rates, and counts what each life of a run asked.

The life is the request's API key, so that what a killed client has left in a socket is booked to that client.
`GET /books` gives the counts. Answers repeat: the same question gets the same words, whatever befell it before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

if TYPE_CHECKING:
    from collections.abc import Iterator

FAILS_AT_MOST = 2
"""Attempts of one question that may go wrong, so that every item has its answer in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What one life of a run asked and was answered, by question."""

    asked: Counter[str]
    answered: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    lives: dict[str, Life]
    by_fault: dict[str, int]
    most_in_flight: int

    @property
    def asked(self) -> Counter[str]:
        return sum((life.asked for life in self.lives.values()), Counter())

    @property
    def answered(self) -> Counter[str]:
        return sum((life.answered for life in self.lives.values()), Counter())

    @property
    def unanswered(self) -> int:
        return (self.asked - self.answered).total()

    def asked_again(self) -> dict[str, int]:
        """By life: how many of its questions a later one asked again."""
        found, later = {}, set[str]()
        for name, life in reversed(self.lives.items()):
            found[name] = len(later & life.asked.keys())
            later |= life.asked.keys()
        return found


@dataclass(frozen=True, slots=True)
class Counting:
    """The server from the outside."""

    url: str

    def books(self) -> Books:
        with urllib.request.urlopen(f"{self.url}/books") as reply:
            told = json.load(reply)
        lives = {
            name: Life(asked=Counter(asked), answered=Counter(answered))
            for name, (asked, answered) in told["lives"].items()
        }
        return Books(lives=lives, by_fault=told["by_fault"], most_in_flight=told["most_in_flight"])

    def answered(self) -> int:
        """How many questions have had an answer: cheap to ask."""
        with urllib.request.urlopen(f"{self.url}/answered") as reply:
            return int(reply.read())


@contextmanager
def counting(**options: object) -> Iterator[Counting]:
    words = [str(word) for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Counting(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.communicate(timeout=10)


# In the server's process.


class Counts:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lives: dict[str, tuple[Counter[str], Counter[str]]] = {}
        self.attempts: Counter[str] = Counter()
        self.by_fault: Counter[str] = Counter()
        self.answered = set[str]()
        self.in_flight = self.most_in_flight = 0

    def life(self, name: str) -> tuple[Counter[str], Counter[str]]:
        return self.lives.setdefault(name, (Counter(), Counter()))

    def fault(self, question: str) -> str | None:
        """What goes wrong with this attempt: a matter of the question and of how often it was asked."""
        self.attempts[question] += 1
        attempt = self.attempts[question]
        if attempt > FAILS_AT_MOST:
            return None
        drawn = share(f"{attempt} {question}")
        for name in ("reset", "error", "throttle", "cut"):
            drawn -= getattr(self.options, name)
            if drawn < 0:
                self.by_fault[name] += 1
                return name
        return None

    def books(self) -> dict[str, Any]:
        return {"lives": self.lives, "by_fault": self.by_fault, "most_in_flight": self.most_in_flight}


class Connection(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self.counts, self.unread, self.timer = counts, b"", None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.unread += data
        while (end := self.unread.find(b"\r\n\r\n")) >= 0:
            head, start = self.unread[:end], end + 4
            size = int(header(head, b"content-length") or 0)
            if len(self.unread) < start + size:
                return
            body, self.unread = self.unread[start : start + size], self.unread[start + size :]
            self.take(head, body)

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.counts.in_flight -= 1

    def take(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET"):
            told = self.counts.books() if b"/books" in head else len(self.counts.answered)
            self.transport.write(framed(b"200 OK", b"application/json", orjson.dumps(told)))
            return
        counts, asked = self.counts, orjson.loads(body)
        life = header(head, b"authorization").rpartition(b" ")[2].decode()
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        question = asked["messages"][-1]["content"]
        counts.life(life)[0][question] += 1
        latency_s = counts.options.slow if "slow" in question else counts.options.latency * (0.5 + share(question))
        self.timer = asyncio.get_running_loop().call_later(latency_s, self.give, life, question, asked.get("stream"))

    def give(self, life: str, question: str, streamed: bool | None) -> None:
        self.timer = None
        self.counts.in_flight -= 1
        fault = self.counts.fault(question)
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
        elif fault == "error":
            self.transport.write(framed(b"500 Internal Server Error", b"application/json", b'{"error":"down"}'))
        elif fault == "throttle":
            self.transport.write(
                framed(b"429 Too Many Requests", b"application/json", b'{"error":"busy"}', b"retry-after-ms: 20\r\n")
            )
        elif fault == "cut":
            whole = self.answer(question, streamed)
            self.transport.write(whole[: len(whole) * 2 // 3])
            self.transport.close()
        else:
            self.counts.life(life)[1][question] += 1
            self.counts.answered.add(question)
            self.transport.write(self.answer(question, streamed))

    def answer(self, question: str, streamed: bool | None) -> bytes:
        options = self.counts.options
        size = options.large_bytes if share(f"size {question}") < options.large else options.reply_bytes
        text = f"echo: {question} {random.Random(question).randbytes(size // 2).hex()}"
        usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
        if not streamed:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            body = orjson.dumps({"id": "c1", "object": "chat.completion", "choices": [choice], "usage": usage})
            return framed(b"200 OK", b"application/json", body)
        pieces = [0, len(text) // 3, len(text) // 2, len(text)]
        chunks: list[Any] = [{"choices": [{"delta": {"content": text[a:b]}}]} for a, b in pairwise(pieces)]
        chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": usage}]
        events = [orjson.dumps({"id": "c1", **chunk}) for chunk in chunks] + [b"[DONE]"]
        return framed(b"200 OK", b"text/event-stream", b"".join(b"data: %b\n\n" % event for event in events))


def share(text: str) -> float:
    """A number from 0 to 1 that is always the same for the same text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def header(head: bytes, name: bytes) -> bytes:
    _, found, rest = head.lower().partition(b"\r\n%b:" % name)
    return rest.partition(b"\r\n")[0].strip() if found else b""


def framed(status: bytes, kind: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, kind, more, len(body), body)


async def serve(options: argparse.Namespace) -> None:
    counts, loop = Counts(options), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(counts), "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("reset", "error", "throttle", "cut", "large", "latency", "slow"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    parser.add_argument("--reply-bytes", type=int, default=80)
    parser.add_argument("--large-bytes", type=int, default=200_000)
    uvloop.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
