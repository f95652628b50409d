"""A loopback server on raw sockets that misbehaves on cue and remembers what it saw.

A reply is a mapping in the form of the wire cases: `status`, `headers`, one of `body`, `body_json`,
`body_b64`, `body_gen`; `chunk_bytes`, `pause_ms`, `early_hints`; and `end`:

- `normal`: framed correctly; `cut`: closed before the end that the frame announced
- `close`: no length, the end of the connection is the end of the body; `rst`: reset in the middle
- `hang`: head and body, then silence; `drip_forever`: the body again and again, `pause_ms` apart, or `again` for ever
- `no_reply`: read the request, close; `early`: answer and close without reading the request's body
- `raw`: `raw` (text or bytes) word for word, then close; with `"keep": true` the connection stays open, with
  `"rst": true` it is reset; with `again` that follows for ever, `pause_ms` apart
- `refused`: nobody listens for `pause_ms` (300 unless told)

`framing` (`length`, `chunked`, `close`) overrides how the body's end is told.
"""

from __future__ import annotations

import asyncio
import base64
import http
import json
import socket
import struct
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio.from_thread import start_blocking_portal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Reply = Mapping[str, Any]

SHORT_BY = 64
"""How many bytes a cut reply promises and never sends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float
    """`time.monotonic` when its head had been read."""
    in_flight: int
    """How many requests were unanswered then, this one included."""
    connection: int
    """Which connection carried it, counted from 1."""

    def json(self) -> Any:
        return json.loads(self.body)


class Replies(deque["Reply"]):
    """What the next requests get, in order. A `refused` one takes effect as soon as it is at the head."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self._changed = changed

    def append(self, reply: Reply) -> None:
        super().append(reply)
        self._changed()

    def extend(self, replies: Iterable[Reply]) -> None:
        super().extend(replies)
        self._changed()


class FaultyServer:
    """An async context manager; `serve_in_thread` gives the same to synchronous tests."""

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self.replies = Replies(self._heed_refusal)
        self.replies_by_url: dict[str, Reply] = {}
        """Substring of the path to the reply that every such request gets; goes before the queue."""
        self.at_connect: deque[str] = deque()
        """What the next connections meet before a byte of theirs is read: `close`, `rst`, `hang` or `garbage`."""
        self.default: Reply | Callable[[Seen], Reply] = completion
        """What a request gets when nothing else is set."""
        self.latency_s = 0.0
        self.seen: list[Seen] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.connections = 0
        """How many were ever accepted."""
        self.port = 0
        self._ssl = ssl_context
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._serving)

    async def __aenter__(self) -> FaultyServer:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._serving, *filter(None, [self._accepting])]
        self._deafen()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One more turn of the loop: the transports close their sockets in it.
        await asyncio.sleep(0)

    async def quiet(self, *, within_s: float = 2.0) -> bool:
        """Whether every client closes its connections in that time."""
        if self._serving:
            await asyncio.wait(self._serving, timeout=within_s)
        return not self._serving

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=4096)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._accepting = self._loop.create_task(self._accept(self._listener))

    def _deafen(self) -> None:
        if self._listener is not None and self._accepting is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._accepting.cancel()
        self._listener = self._accepting = None

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listener)
            self.connections += 1
            task = self._loop.create_task(self._serve(connection, self.connections))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    def _heed_refusal(self) -> None:
        if not self.replies or self.replies[0].get("end") != "refused" or self._listener is None:
            return
        if threading.get_ident() == self._thread:
            self._refuse()
            return
        asyncio.run_coroutine_threadsafe(self._refuse_from_afar(), self._loop).result(5)

    async def _refuse_from_afar(self) -> None:
        self._refuse()

    def _refuse(self) -> None:
        self._deafen()
        for task in self._serving:
            task.cancel()
        self._loop.call_later(self.replies[0].get("pause_ms", 300) / 1000, self._listen_again)

    def _listen_again(self) -> None:
        if self.replies and self.replies[0].get("end") == "refused":
            self.replies.popleft()
        self._listen()
        self._heed_refusal()

    async def _serve(self, connection: socket.socket, number: int) -> None:
        if self.at_connect:
            await self._spoil(connection, self.at_connect.popleft())
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = asyncio.StreamReader(limit=2**24)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, connection, ssl=self._ssl)
        except OSError:  # the client did not like the certificate
            connection.close()
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, self._loop)
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError):
            transport.abort()
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _spoil(self, connection: socket.socket, how: str) -> None:
        with connection:
            if how == "garbage":
                await self._loop.sock_sendall(connection, b"SSH-2.0-OpenSSH_9.6\r\n")
            elif how == "hang":
                await self._loop.create_future()  # until the server ends
            elif how == "rst":
                _lose_at_close(connection)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        """Take one request and answer it. Whether the connection may carry another."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, headers = parse_head(head)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        at, in_flight = time.monotonic(), self.in_flight
        try:
            planned = self._planned(path)
            early = planned is not None and planned.get("end") == "early"
            body = b"" if early else await read_body(reader, headers)
            seen = Seen(
                method=method, path=path, headers=headers, body=body, at=at, in_flight=in_flight, connection=number
            )
            self.seen.append(seen)
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            keep = await answer(planned if planned is not None else self._usual(seen), reader, writer)
        finally:
            self.in_flight -= 1
        return keep and headers.get("connection", "").lower() != "close"

    def _planned(self, path: str) -> Reply | None:
        for part, reply in self.replies_by_url.items():
            if part in path:
                return reply
        if not self.replies:
            return None
        reply = self.replies.popleft()
        self._heed_refusal()
        return reply

    def _usual(self, seen: Seen) -> Reply:
        return self.default(seen) if callable(self.default) else self.default


@contextmanager
def serve_in_thread(*, ssl_context: ssl.SSLContext | None = None) -> Iterator[FaultyServer]:
    """A server in a thread of its own, for tests that have no event loop."""
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(portal.call(lambda: FaultyServer(ssl_context=ssl_context))) as server,
    ):
        yield server


def completion(seen: Seen) -> Reply:
    """A good answer that repeats the request's last message, streamed if that was asked for."""
    try:
        asked = json.loads(seen.body)
    except ValueError:
        return {"status": 400, "body_json": {"error": {"message": "the body is not JSON"}}}
    if not isinstance(asked, dict):
        return {"status": 400, "body_json": {"error": {"message": "the body is no object"}}}
    messages = asked.get("messages") or [{}]
    text, model = f"echo: {messages[-1].get('content')}", asked.get("model", "m")
    return streamed(text, model=model) if asked.get("stream") is True else plain(text, model=model)


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def plain(text: str, *, model: str = "m") -> Reply:
    """A whole chat completion as JSON."""
    message = {"role": "assistant", "content": text}
    return {
        "status": 200,
        "headers": {"Content-Type": "application/json"},
        "body_json": {
            "id": "c1", "object": "chat.completion", "created": 1763661600, "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USAGE,
        },
    }  # fmt: skip


def streamed(text: str, *, model: str = "m") -> Reply:
    """The same as server-sent events: two halves, the finish reason, the usage, `[DONE]`."""
    half = len(text) // 2
    chunks: list[dict[str, Any]] = [
        *({"choices": [{"index": 0, "delta": {"content": part}}]} for part in (text[:half], text[half:])),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
    ]
    events = [json.dumps({"id": "c1", "model": model, **chunk}) for chunk in chunks] + ["[DONE]"]
    return {
        "status": 200,
        "headers": {"Content-Type": "text/event-stream"},
        "body": "".join(f"data: {event}\n\n" for event in events),
    }


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = request_line.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    return method, path, {name.strip().lower(): value.strip() for name, value in pairs}


async def read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if "chunked" not in headers.get("transfer-encoding", ""):
        return await reader.readexactly(int(headers.get("content-length", 0)))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def answer(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send `reply` as it says. Whether the connection may carry another request."""
    end = reply.get("end", "normal")
    if end == "no_reply":
        return False
    if end == "raw":
        return await _answer_raw(reply, reader, writer)
    body, framing = body_of(reply), framing_of(reply)
    if reply.get("early_hints"):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
    writer.write(head_of(reply, framing=framing, size=len(body) + SHORT_BY * (end in {"cut", "rst", "hang"})))
    await _send(writer, body, reply, chunked=framing == "chunked")
    if end == "drip_forever":
        await _drip(reader, writer, reply["again"].encode() if "again" in reply else body, reply, chunked=True)
    elif end == "hang":
        await reader.read(1)
    elif end == "rst":
        _reset(writer)
    elif end == "normal" and framing == "chunked":
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return end == "normal" and framing != "close" and not closes(reply)


async def _answer_raw(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    raw = reply["raw"]
    writer.write(raw if isinstance(raw, bytes) else raw.encode("latin-1"))
    await writer.drain()
    if "again" in reply:
        await _drip(reader, writer, reply["again"].encode("latin-1"), reply, chunked=False)
    if reply.get("rst"):
        _reset(writer)
    return bool(reply.get("keep"))


def closes(reply: Reply) -> bool:
    """Whether the reply's own headers end the connection."""
    named = {name.lower(): str(value) for name, value in reply.get("headers", {}).items()}
    return named.get("connection", "").lower() == "close"


def body_of(reply: Reply) -> bytes:
    if "body_json" in reply:
        return json.dumps(reply["body_json"], separators=(",", ":"), ensure_ascii=False).encode()
    if "body_b64" in reply:
        return base64.b64decode(reply["body_b64"])
    if "body_gen" in reply:
        made = reply["body_gen"]
        return f"{made['prefix']}{made['unit'] * made['count']}{made['suffix']}".encode()
    body = reply.get("body", b"")
    return body if isinstance(body, bytes) else str(body).encode()


def framing_of(reply: Reply) -> str:
    if "framing" in reply:
        return str(reply["framing"])
    names = {name.lower(): str(value) for name, value in reply.get("headers", {}).items()}
    if reply.get("end") == "close":
        return "close"
    if "content-length" in names:
        return "length"
    streams = "event-stream" in names.get("content-type", "")
    return "chunked" if streams or reply.get("end") in {"hang", "drip_forever"} else "length"


def head_of(reply: Reply, *, framing: str, size: int) -> bytes:
    status = reply.get("status", 200)
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Unknown"
    headers = dict(reply.get("headers", {}))
    if framing == "chunked":
        headers.setdefault("Transfer-Encoding", "chunked")
    elif framing == "length" and status not in {204, 304} and "content-length" not in {n.lower() for n in headers}:
        headers["Content-Length"] = str(size)
    values = ((name, one) for name, value in headers.items() for one in (value if isinstance(value, list) else [value]))
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in values)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(writer: asyncio.StreamWriter, body: bytes, reply: Reply, *, chunked: bool) -> None:
    step = reply.get("chunk_bytes") or max(len(body), 1)
    for start in range(0, len(body), step):
        piece = body[start : start + step]
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
        if step < len(body):
            await asyncio.sleep(reply.get("pause_ms", 0) / 1000)


async def _drip(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes, reply: Reply, *, chunked: bool
) -> None:
    """Send `body` for ever: until the client closes."""
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(1), reply.get("pause_ms", 100) / 1000)
            return
        await _send(writer, body, {**reply, "pause_ms": 0}, chunked=chunked)


def _reset(writer: asyncio.StreamWriter) -> None:
    _lose_at_close(writer.get_extra_info("socket"))
    writer.transport.abort()


def _lose_at_close(sock: Any) -> None:
    """Make the end of a connection a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
