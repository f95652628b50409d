"""One key for many tasks: fetched once, renewed early, and never a third one without a success."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import anyio
import pytest
from faulty_server import FaultyServer

from batchrunner.access import Access, granted, look_again
from batchrunner.credentials import Grant, Secret, Token, resolve
from batchrunner.errors import JobError, RequestError
from batchrunner.transport import Clocks, Wire

pytestmark = pytest.mark.anyio


class Keys:
    """Gives one key after another; an error in their place is raised."""

    def __init__(self, *keys: str | Exception, lifetime_s: float | None = None, takes_s: float = 0.0) -> None:
        self.keys, self.lifetime_s, self.takes_s = list(keys), lifetime_s, takes_s
        self.fetches, self.now = 0, 0.0

    async def fetch(self) -> Token:
        self.fetches += 1
        await anyio.sleep(0.01)
        self.now += self.takes_s
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


async def test_a_token_lives_from_when_it_was_asked_for():
    """The endpoint may have taken its time after it had made one."""
    keys = Keys("a", lifetime_s=100.0, takes_s=50.0)
    access = keys.access()
    await access.line()

    keys.now = 96.0
    assert access.current() is None


async def test_a_token_that_ends_at_once_is_still_one_for_all_who_waited():
    keys = Keys("a", "b", lifetime_s=1.0, takes_s=2.0)

    assert set(await together(50, keys.access().line)) == {"a"}
    assert keys.fetches == 1


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
    access.accepted("b")  # type: ignore[arg-type]
    assert await access.renewed("b")  # type: ignore[arg-type]


async def test_what_an_old_key_still_brings_in_proves_nothing_of_the_new_one():
    access = Keys("b", "c").access("a", "a")
    assert await access.renewed("a")  # type: ignore[arg-type]

    access.accepted("a")  # type: ignore[arg-type]
    assert not await access.renewed("b")  # type: ignore[arg-type]


async def test_a_refused_token_is_sent_no_more_while_its_endpoint_is_down():
    keys = Keys(down(), down(), "b", "c")
    access = keys.access("a", "a")

    found = await together(3, lambda: access.renewed("a"))  # type: ignore[arg-type]
    assert str(found[0]) == "down"
    assert found[1:] == [True, True]
    assert access.current() is None
    assert str((await together(1, access.line))[0]) == "down"
    assert await access.line() == "b"
    assert not await access.renewed("b")  # type: ignore[arg-type]
    assert keys.fetches == 3


async def test_the_same_key_again_is_no_other():
    assert not await Keys("a").access("a", "a").renewed("a")  # type: ignore[arg-type]


async def test_a_key_that_cannot_be_looked_up_any_more_is_no_other():
    assert not await Keys(JobError("gone")).access("a", "a").renewed("a")  # type: ignore[arg-type]


async def test_a_command_that_hangs_is_ended_when_nobody_waits_for_it(tmp_path):
    script = (
        "import pathlib, time; p = pathlib.Path('again'); print('sk-key', flush=True); p.exists() and time.sleep(30)"
    )
    reference = f"command:{sys.executable} -c {shlex.quote(script)}"
    where = {"variable": "X", "base_url": "https://a.b", "public_base_url": None, "base": tmp_path, "environ": {}}
    (credential,) = await anyio.to_thread.run_sync(lambda: resolve((reference,), **where))
    (tmp_path / "again").touch()
    fetch = look_again(credential)
    assert fetch is not None
    began = anyio.current_time()
    with anyio.move_on_after(0.3) as waited:
        await fetch()

    assert waited.cancelled_caught
    assert anyio.current_time() - began < 5


async def test_an_endpoint_that_is_silent_is_told_from_a_deadline_of_the_job():
    async with FaultyServer() as server, Wire(clocks=Clocks()) as wire:
        server.replies.append({"end": "hang"})
        fetch = granted(grant(server.url), wire, timeout_s=0.1)
        with pytest.raises(RequestError) as error:
            await fetch()

    assert (error.value.verdict, error.value.error_type, error.value.went_out) == ("retry", "timeout", False)
    assert str(error.value) == f"no token: {server.url.removeprefix('http://')} did not answer within 0.1 s"


async def test_a_reply_without_end_of_an_endpoint_rejects_no_item():
    async with FaultyServer() as server, Wire(clocks=Clocks(), max_reply_bytes=1000) as wire:
        server.replies.append({"status": 200, "body": "x" * 2000})
        with pytest.raises(RequestError) as error:
            await granted(grant(server.url), wire)()

    assert (error.value.verdict, error.value.error_type, error.value.went_out) == ("retry", "server", False)


def grant(url: str) -> Grant:
    return Grant(token_url=f"{url}/token", client_id="me", client_secret=Secret("canary-0123456789"))


async def test_a_key_that_cannot_change_is_what_it_is():
    access = Access("a")  # type: ignore[arg-type]

    assert access.current() == "a"
    assert not await access.renewed("a")  # type: ignore[arg-type]


async def test_five_hundred_at_once_over_three_lifetimes_fetch_exactly_three():
    """By a clock of its own, so exactly: nobody is handed a token that has ended, or is about to."""
    keys = Keys("a", "b", "c", "d", lifetime_s=100.0)
    access, given = keys.access(), set()

    for second in range(0, 280, 5):
        keys.now = float(second)
        handed = set(await together(500, lambda: _line_of(access)))
        given |= {(second, key) for key in handed}
        assert len(handed) == 1

    first = {key: min(second for second, handed in given if handed == key) for _, key in given}
    last = {key: max(second for second, handed in given if handed == key) for _, key in given}
    assert keys.fetches == 3
    assert sorted(first) == ["a", "b", "c"]
    assert all(last[key] - first[key] < 95 for key in first)


async def _line_of(access: Access) -> Any:
    return access.current() or await access.line()


async def test_an_item_that_is_refused_with_every_key_does_not_ask_for_keys_without_end():
    keys = Keys(*"bcdefgh")
    access, key = keys.access("a", "a"), "a"

    with anyio.move_on_after(0.5):
        while await access.renewed(key):  # type: ignore[arg-type]
            key = access.current()  # type: ignore[assignment]
            access.accepted(key)  # type: ignore[arg-type]

    assert (keys.fetches, key) == (5, "f")
