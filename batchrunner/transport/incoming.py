"""One reply while it comes in: what it holds so far, and what its breaking off means."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import httpx

from batchrunner.errors import RequestError
from batchrunner.records import Reply
from batchrunner.transport.body import Body
from batchrunner.transport.failures import TRANSLATED, failure
from batchrunner.transport.inflate import Unreadable, too_large

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from batchrunner.transport.attempt import Attempt


class Incoming:
    """Takes one reply in.

    A reply with an error status is worth its status alone: trouble with its body only cuts it, and its clock is
    short. So is a stream whose `[DONE]` was read.
    """

    def __init__(self, attempt: Attempt, where: str, max_bytes: int) -> None:
        self.attempt = attempt
        self.where = where
        self._max_bytes = max_bytes
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: Body | None = None
        self._cut: str | None = None
        self._fault: Exception | None = None

    async def read(self, response: httpx.Response, stream: AsyncIterable[bytes]) -> None:
        """Take in the reply that `response` begins and `stream` goes on with."""
        if not self.begun(response.status_code, response.headers.raw):
            return
        try:
            async for chunk in stream:
                if not self.took(chunk):
                    return
        except TRANSLATED as error:
            self.ended(error)
        else:
            self.ended(None)

    def sent(self) -> None:
        """The whole request was handed to the network."""
        self.attempt.was_sent = True

    def begun(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """The head is in. Whether the body is wanted."""
        self.attempt.answered()
        self._status, self._headers = status, lowered(headers)
        if not 200 <= status < 300:
            self.attempt.refused()
        try:
            self._body = self._expected()
        except Unreadable as fault:
            return self._refused(fault)
        return True

    def took(self, data: bytes) -> bool:
        """The next bytes of the body are in. Whether more are wanted."""
        body = self._body
        assert body is not None
        try:
            if not body.done and body.feed(data):
                self.attempt.content()
        except Unreadable as fault:
            return self._refused(fault)
        if body.done:
            self.attempt.finish()
        return True

    def ended(self, error: Exception | None) -> None:
        """The reply is whole, or has broken off with `error`, or will not come."""
        body = self._body
        if error is not None and (body is None or not body.done):
            self._broken_by(error)
        if body is not None and self._fault is None:
            try:
                self._cut = body.end(cut=self._cut)
            except Unreadable as fault:
                self._refused(fault)
        self.attempt.finish()
        self.attempt.wake()

    def reply(self) -> Reply:
        """The reply, when there is one. Raises RequestError: what broke it off, or that a clock ran out before."""
        attempt = self.attempt
        if attempt.finished is None:
            self._broke(attempt.timeout(self.where))
            attempt.finish()
        if self._fault is not None:
            # Its traceback leads here: whoever still held it would hold the reply, in a circle.
            fault, self._fault, self._body = self._fault, None, None
            try:
                raise fault
            finally:
                del fault
        body = self._body
        events = body.events if body is not None else None
        return Reply(
            status=self._status,
            headers=self._headers,
            body=b"" if body is None or events is not None else body.content,
            events=events,
            done=body is not None and body.done,
            cut=self._cut,
            latency_s=attempt.seconds_to(attempt.finished) or 0.0,
            first_token_s=attempt.seconds_to(attempt.first_content),
        )

    def _expected(self) -> Body:
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._max_bytes:
            raise too_large(self._max_bytes)
        return Body(
            encoding=self._headers.get("content-encoding", ""),
            content_type=self._headers.get("content-type", ""),
            max_bytes=self._max_bytes,
        )

    def _broken_by(self, error: Exception) -> None:
        if self._body is not None and isinstance(error, httpx.RemoteProtocolError):
            self._cut = "the connection was closed before the end of the reply"
        elif isinstance(error, TRANSLATED):
            meant = failure(error, self.attempt, where=self.where, status=self._status or None)
            meant.__cause__ = error
            self._broke(meant)
        else:
            self._fault = error

    def _refused(self, fault: Unreadable) -> Literal[False]:
        self._broke(
            RequestError(
                str(fault), verdict=fault.verdict, error_type=fault.error_type, status=self._status, went_out=True
            )
        )
        self.attempt.finish()
        self.attempt.wake()
        return False

    def _broke(self, error: RequestError) -> None:
        if (self._status == 0 or 200 <= self._status < 300) and not self._may_be_whole(error):
            self._fault = error
        else:
            self._cut = str(error)

    def _may_be_whole(self, error: RequestError) -> bool:
        """A stream that has named a finish_reason may hold all that was paid for, and so may an object that has ended.

        Whoever reads it decides. An object that is followed by more than it may be has not ended.
        """
        if self._body is None:
            return False
        if self._body.events is None:
            if error.error_type not in _BROKEN_OFF:
                return False
            return _ENDED.search(self._body.content[-_TAIL_BYTES:]) is not None
        return any(_FINISHED.search(event.data) for event in self._body.events)


_BROKEN_OFF = frozenset({"connection", "timeout"})
_TAIL_BYTES = 64
_ENDED = re.compile(rb"\}\s*\Z")
_FINISHED = re.compile(r'"finish_reason"\s*:\s*"')


def lowered(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by their name in lower case; those that come twice are joined."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = _name(name), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


@lru_cache(maxsize=1024)
def _name(name: bytes) -> str:
    return name.decode("latin-1").lower()
