"""One reply while it comes in: what it holds so far, and what its breaking off means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

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

    async def read(self, response: httpx.Response, stream: AsyncIterable[bytes]) -> None:
        """Take in the reply that `response` begins and `stream` goes on with. Raises RequestError."""
        self.attempt.answered()
        self._status, self._headers = response.status_code, lowered(response.headers.raw)
        if not 200 <= self._status < 300:
            self.attempt.refused()
        try:
            body = self._body = self._expected()
            await self._take(stream, body)
            self._cut = body.end(cut=self._cut)
        except Unreadable as fault:
            self._broke(
                RequestError(
                    str(fault), verdict=fault.verdict, error_type=fault.error_type, status=self._status, went_out=True
                )
            )
        self.attempt.finish()

    def reply(self) -> Reply:
        """The reply, when there is one. Raises RequestError if a clock ran out before."""
        attempt = self.attempt
        if attempt.finished is None:
            self._broke(attempt.timeout(self.where))
            attempt.finish()
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

    async def _take(self, stream: AsyncIterable[bytes], body: Body) -> None:
        try:
            async for chunk in stream:
                if not body.done and body.feed(chunk):
                    self.attempt.content()
                if body.done:
                    self.attempt.finish()
        except httpx.RemoteProtocolError:
            if not body.done:
                self._cut = "the connection was closed before the end of the reply"
        except TRANSLATED as error:
            if not body.done:
                self._broke(failure(error, self.attempt, where=self.where, status=self._status))

    def _broke(self, error: RequestError) -> None:
        if (self._status == 0 or 200 <= self._status < 300) and not self._may_be_whole(error):
            raise error
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
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
