"""One key for many tasks: fetched once, renewed early, and never a third one without a success."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from batchrunner.access import Access
from batchrunner.credentials import Secret, Token
from batchrunner.errors import JobError, RequestError

pytestmark = pytest.mark.anyio


class Keys:
    """Gives one key after another; an error in their place is raised."""

    def __init__(self, *keys: str | Exception, lifetime_s: float | None = None) -> None:
        self.keys, self.lifetime_s, self.fetches, self.now = list(keys), lifetime_s, 0, 0.0

    async def fetch(self) -> Token:
        self.fetches += 1
        await anyio.sleep(0.01)
        key = self.keys.pop(0)
        if isinstance(key, Exception):
            raise key
        return Token(secret=Secret(key), lifetime_s=self.lifetime_s)

    def access(self, line: Any = None, secret: str | None = None) -> Access:
        return Access(
            line,
            fetch=self.fetch,
            prepare=lambda secret: secret.reveal(),  # type: ignore[arg-type, return-value]
            secret=Secret(secret) if secret else None,
            clock=lambda: self.now,
        )


def down() -> RequestError:
    return RequestError("down", verdict="retry", error_type="server")


async def together(count: int, ask: Any) -> list[Any]:
    found: list[Any] = []

    async def one() -> None:
        try:
            found.append(await ask())
        except RequestError as error:
            found.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
    return found


async def test_five_hundred_who_wait_fetch_one():
    keys = Keys("a", lifetime_s=100.0)

    assert set(await together(500, keys.access().line)) == {"a"}
    assert keys.fetches == 1


async def test_a_token_is_renewed_shortly_before_it_ends():
    keys = Keys("a", "b", "c", lifetime_s=100.0)
    access = keys.access()
    await access.line()

    keys.now = 94.9
    assert access.current() == "a"
    keys.now = 95.1
    assert access.current() is None
    assert await access.line() == "b"


async def test_a_long_token_is_renewed_half_a_minute_early():
    keys = Keys("a", lifetime_s=3600.0)
    access = keys.access()
    await access.line()

    keys.now = 3569.0
    assert access.current() == "a"
    keys.now = 3571.0
    assert access.current() is None


async def test_who_waited_while_a_fetch_failed_need_not_fetch():
    keys = Keys(down(), "a")
    access = keys.access()

    found = await together(50, access.line)

    assert [str(error) for error in found] == ["down"] * 50
    assert keys.fetches == 1
    assert await access.line() == "a"


async def test_all_who_were_refused_with_the_old_key_get_the_new_one():
    keys = Keys("b")
    access = keys.access("a", "a")

    assert await together(20, lambda: access.renewed("a")) == [True] * 20  # type: ignore[arg-type]
    assert keys.fetches == 1
    assert access.current() == "b"


async def test_a_new_key_that_is_refused_before_it_came_through_is_the_last():
    keys = Keys("b", "c", "d")
    access = keys.access("a", "a")
    assert await access.renewed("a")  # type: ignore[arg-type]

    assert not await access.renewed("b")  # type: ignore[arg-type]
    access.accepted()
    assert await access.renewed("b")  # type: ignore[arg-type]


async def test_the_same_key_again_is_no_other():
    assert not await Keys("a").access("a", "a").renewed("a")  # type: ignore[arg-type]


async def test_a_key_that_cannot_be_looked_up_any_more_is_no_other():
    assert not await Keys(JobError("gone")).access("a", "a").renewed("a")  # type: ignore[arg-type]


async def test_a_key_that_cannot_change_is_what_it_is():
    access = Access("a")  # type: ignore[arg-type]

    assert access.current() == "a"
    assert not await access.renewed("a")  # type: ignore[arg-type]
