"""Being let in for as long as a run lasts: the prepared line with today's key, and another one once that has gone."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

from anyio import Lock, from_thread, to_thread

from batchrunner.credentials import Secret, Token, read_token, token_form
from batchrunner.errors import JobError, RequestError
from batchrunner.limits import renewals
from batchrunner.records import Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from batchrunner.credentials import Credential, Grant
    from batchrunner.transport import Line, Wire

TOKEN_S = 30.0
"""How long a token endpoint may take."""
MOST_EARLY_S = 30.0
EARLY_SHARE = 0.05
"""A token is renewed this long before it ends, or this share of its life, whichever is less."""
_GONE = -math.inf
"""When the key on a line ends that was refused: nothing more is sent with it."""


def _tell_nobody(event: str, **fields: object) -> None:
    """For keys whose changes nobody records."""


class Access:
    """One credential while a run lasts. Its lanes share it, and any number of tasks may ask at once.

    `fetch` looks for another key; None: there is none but the one that `line` was prepared with.
    `prepare` makes the line of a key. A key that was fetched since the last success and is refused is
    not followed by a third one.
    """

    def __init__(
        self,
        line: Line | None,
        *,
        fetch: Callable[[], Awaitable[Token]] | None = None,
        prepare: Callable[[Secret], Line] | None = None,
        secret: Secret | None = None,
        tell: Callable[..., None] = _tell_nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line, self._secret = line, secret
        self._fetch, self._prepare, self._tell, self._clock = fetch, prepare, tell, clock
        self._asked_at, self._ends_at = 0.0, math.inf
        self._unproven = False
        self._lock = Lock()
        self._renewals = renewals()
        self._fetches = 0
        self._trouble: RequestError | None = None
        """Of the last fetch."""

    def current(self) -> Line | None:
        """The line to send on now; None where `line` has to be awaited."""
        return self._line if self._clock() < self._ends_at else None

    async def line(self) -> Line:
        """The line to send on, with a new key where there is none or it is about to end. Raises RequestError."""
        before, known = self._fetches, self._line
        async with self._lock:
            # One that came meanwhile is for all who waited, however soon it ends.
            line = self.current() if self._line is known else self._line
            if line is None:
                reason = "first" if known is None else "refused" if self._ends_at == _GONE else "expiry"
                line = self._take(await self._fetched(before), reason=reason)
            return line

    def accepted(self, line: Line) -> None:
        """A request came through on `line`. An older one proves nothing of today's key."""
        if line is self._line:
            self._unproven = False

    async def renewed(self, refused: Line) -> bool:
        """Whether there is another key than the one on the line that was refused. Raises RequestError."""
        before = self._fetches
        async with self._lock:
            if refused is not self._line or self._ends_at == _GONE:
                return True  # Somebody else has found it meanwhile, or `line` goes on looking.
            if self._fetch is None or self._unproven:
                return False
            await self._renewals.acquire()
            try:
                token = await self._fetched(before)
            except JobError as error:
                self._tell("key_not_renewed", error=str(error))
                return False
            except RequestError:
                self._ends_at, self._unproven = _GONE, True
                raise
            if token.secret == self._secret:
                return False
            self._take(token, reason="refused")
            self._unproven = True
            return True

    async def _fetched(self, before: int) -> Token:
        """Another key; `before` are the fetches there had been when the caller began to wait for its turn."""
        assert self._fetch is not None
        if self._trouble is not None and self._fetches > before:
            # Five hundred who waited need not all find out for themselves.
            raise _same(self._trouble)
        self._fetches += 1
        self._trouble, self._asked_at = None, self._clock()
        try:
            return await self._fetch()
        except RequestError as error:
            self._trouble = error
            raise

    def _take(self, token: Token, *, reason: str) -> Line:
        assert self._prepare is not None
        self._line, self._secret = self._prepare(token.secret), token.secret
        self._ends_at = math.inf
        if token.lifetime_s is not None:
            # From when it was asked for: it began to live at some time between then and now.
            self._ends_at = self._asked_at + token.lifetime_s - min(MOST_EARLY_S, token.lifetime_s * EARLY_SHARE)
        self._tell("key_renewed", reason=reason, lifetime_s=token.lifetime_s)
        return self._line


def _same(error: RequestError) -> RequestError:
    return RequestError(
        str(error),
        verdict=error.verdict,
        error_type=error.error_type,
        scope=error.scope,
        wait_s=error.wait_s,
        status=error.status,
    )


def look_again(credential: Credential) -> Callable[[], Awaitable[Token]] | None:
    """Fetches a key from where it is kept; None where it cannot change."""
    again = credential.again
    if again is None:
        return None

    async def fetch() -> Token:
        # A command that hangs must not hold up the end of a run.
        found = await to_thread.run_sync(partial(again, check=from_thread.check_cancelled))
        assert found.key is not None
        return Token(secret=found.key)

    return fetch


def granted(grant: Grant, wire: Wire, *, timeout_s: float = TOKEN_S) -> Callable[[], Awaitable[Token]]:
    """Fetches tokens from an OAuth2 endpoint."""
    form = token_form(grant)
    line = wire.prepare(form.origin, form.headers)
    request = Request(path=form.path, body=form.body, stream=False, key="")

    async def fetch() -> Token:
        deadline = time.monotonic() + timeout_s
        try:
            reply = await wire.send(line, request, deadline=deadline)
        except RequestError as error:
            late = error.error_type == "timeout" and time.monotonic() >= deadline
            why = f"{grant.host} did not answer within {timeout_s:g} s" if late else str(error)
            raise _no_token(why, error) from error
        return read_token(grant, reply)

    return fetch


def _no_token(why: str, error: RequestError) -> RequestError:
    """Whatever happens to a request for a token costs nothing, and rejects no item."""
    passing = error.error_type if error.error_type in ("connection", "timeout") else "server"
    return RequestError(
        f"no token: {why}",
        verdict="abort" if error.verdict == "abort" else "retry",
        error_type=passing,
        scope=error.scope,
        wait_s=error.wait_s,
        status=error.status,
    )
