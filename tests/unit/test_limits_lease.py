"""Lanes that share an allowance, in virtual time: together they keep to it, and use it up."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from virtual import Bucket

from batchrunner.errors import RequestError
from batchrunner.limits import Breaker, Concurrency, Lane
from batchrunner.limits.lease import Account, Slice, Want, read_account
from batchrunner.limits.leased import Stake
from batchrunner.limits.pace import at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtual import Server

BEGAN = 1000.0


class Shared:
    """A lease in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock, self.accounts, self.taken = clock, {"lane": Account()}, Counter[str]()

    async def take(self, lane: str, want: Want) -> Slice:
        self.taken[lane] += 1
        return self.accounts[lane].take(want, self.clock())

    def pause(self, lane: str, seconds: float) -> None:
        self.accounts[lane].pause(seconds, self.clock())


@dataclass
class Member:
    """One process: a lane, how many requests it has to send from when on, and when it dies."""

    lane: Lane
    todo: int
    from_s: float = 0.0
    dies_s: float = 1e9
    sent: list[float] = field(default_factory=list)


class Party:
    """Several processes against one server. A timer is up to `late_s` late."""

    def __init__(self, server: Server | None = None, *, late_s: float = 0.0, latency_s: float = 0.1) -> None:
        self.now, self.server, self.late_s, self.latency_s = BEGAN, server, late_s, latency_s
        self.shared, self.chance = Shared(lambda: self.now), Random(7)
        self.members: list[Member] = []
        self.sent: list[float] = []
        self.refused = 0
        self.tokens, self.used = 100, 100
        self.told: list[tuple[str, dict[str, Any]]] = []

    def join(self, todo: int, *, from_s: float = 0.0, dies_s: float = 1e9, **limits: Any) -> Member:
        lane = Lane(
            "lane",
            concurrency=Concurrency("auto"),
            breaker=Breaker(down_s=3600),
            stake=Stake(lease=self.shared, lane="lane"),
            tell=lambda event, **fields: self.told.append((event, fields)),
            uniform=self.chance.uniform,
            clock=lambda: self.now,
            **limits,
        )
        lane.canary = None
        self.members.append(Member(lane=lane, todo=todo, from_s=from_s, dies_s=dies_s))
        return self.members[-1]

    def play(self, seconds: float = 1e9) -> Party:
        """Every step is one member's: it sends, or its timer is set to when it may."""
        steps = [(BEGAN + member.from_s, order, "send", 0.0, 0.0) for order, member in enumerate(self.members)]
        heapq.heapify(steps)
        while steps and steps[0][0] < BEGAN + seconds:
            at, order, kind, started_at, wait_s = heapq.heappop(steps)
            self.now, member = max(self.now, at), self.members[order]
            if self.now >= BEGAN + member.dies_s:
                continue
            if kind == "reply":
                self._reply(member, started_at, wait_s)
                continue
            after_s = self._step(member)
            if after_s == 0.0:
                wait = self._send(member)
                heapq.heappush(steps, (self.now + self.latency_s, order, "reply", self.now, wait))
            if member.todo or member.lane.in_flight:
                late_s = self.chance.uniform(0, self.late_s) if after_s > 0.001 else 0.0
                heapq.heappush(steps, (self.now + max(after_s, 0.0002) + late_s, order, "send", 0.0, 0.0))
        return self

    def _step(self, member: Member) -> float:
        """0 when a request may go, else when to look again."""
        lane = member.lane
        if not member.todo or lane.in_flight >= lane.slots:
            return 0.01
        if lane.paused_s() > 0:
            return lane.paused_s()
        wait_s = lane.throttle.wait_s(self.now)
        if wait_s == float("inf"):
            paused_s = result(lane.throttle.claim(self.tokens))
            lane.pause(paused_s)
            return max(1e-6, paused_s)
        if wait_s > 0:
            return wait_s
        assert lane.admit_now(self.tokens)
        return 0.0

    def _send(self, member: Member) -> float:
        member.lane.took(retry=False)
        member.todo, member.lane.in_flight = member.todo - 1, member.lane.in_flight + 1
        wait_s = self.server.wait_s(self.now) if self.server else None
        if wait_s is None:
            self.sent.append(self.now - BEGAN)
            member.sent.append(self.now - BEGAN)
        return -1.0 if wait_s is None else wait_s

    def _reply(self, member: Member, started_at: float, wait_s: float) -> None:
        member.lane.in_flight -= 1
        if wait_s < 0:
            member.lane.settle(reserved=self.tokens, used=self.used)
            member.lane.succeeded(latency_s=self.now - started_at)
            return
        self.refused += 1
        member.todo += 1
        member.lane.settle(reserved=self.tokens, used=0)
        error = RequestError("busy", verdict="retry", error_type="rate_limit", scope="lane", wait_s=wait_s or None)
        member.lane.failed(error, "item", started_at=started_at)


def result(coroutine: Any) -> Any:
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


def most_in_a_second(sent: Sequence[float]) -> int:
    sent, first, most = sorted(sent), 0, 0
    for last, at in enumerate(sent):
        while sent[first] <= at - 1.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("per_minute", [60.0, 90.0, 600.0, 6_000.0, 60_000.0])
@pytest.mark.parametrize("members", [1, 4])
def test_together_they_keep_to_the_rate_and_use_it_up(per_minute: float, members: int):
    party, rate, seconds = Party(late_s=0.002), per_minute / 60, 120.0 if per_minute < 6_000 else 12.0
    for _ in range(members):
        party.join(int(per_minute * 5), requests_per_minute=per_minute)

    party.play(seconds)

    settled = [at for at in party.sent if at >= seconds / 3]  # Until then `auto` finds its number of slots.
    assert 0.985 <= len(settled) / (rate * seconds * 2 / 3) <= 1.0 + 3 / (rate * seconds)
    assert most_in_a_second(party.sent) <= rate + at_once(per_minute) + 1
    shares = [len(member.sent) * members / len(party.sent) for member in party.members]
    assert max(shares) - min(shares) <= 0.1 + 2.0 / len(party.sent)


@pytest.mark.parametrize(("per_s", "expected"), [(8_000, 7_700), (200_000, 9_500)])
def test_processes_that_are_slower_than_the_rate_do_not_wait_for_each_other(per_s: int, expected: int):
    """Each can send 5,000 a second, and leaves to the other what it cannot use."""
    party = Party(latency_s=0.02)
    for _ in range(2):
        party.join(60_000, requests_per_minute=per_s * 60)

    party.play(4.0)

    settled = [at for at in party.sent if at >= 2.0]
    assert expected <= len(settled) / 2.0 <= per_s * 1.01
    assert most_in_a_second(party.sent) <= per_s * 1.03


def test_who_has_nothing_to_send_takes_nothing():
    party = Party()
    busy, idle = party.join(6_000, requests_per_minute=600), party.join(0, requests_per_minute=600)
    late = party.join(6_000, from_s=30.0, requests_per_minute=600)

    party.play(60.0)

    assert len(idle.sent) == 0
    assert len([at for at in busy.sent if at < 30]) == pytest.approx(300, rel=0.02)
    assert len(late.sent) == pytest.approx(150, rel=0.05)
    assert len(party.sent) == pytest.approx(600, rel=0.02)


def test_what_a_dead_process_held_is_free_again():
    party = Party(late_s=0.002)
    for dies_s in (1e9, 1e9, 1e9, 20.1):
        party.join(60_000, dies_s=dies_s, requests_per_minute=6_000)

    party.play(40.0)

    after = [at for at in party.sent if 20 <= at < 40]
    assert len(after) == pytest.approx(2_000, rel=0.02)
    assert len([at for at in after if at < 21]) >= 100 - 26


def test_a_refusal_pauses_all_of_them():
    """The server refuses one of them; the other is told before it sends its next slice, and asks in vain but once."""
    party = Party(Bucket(50.0, 0.5, 5.0))
    party.join(500, requests_per_minute=6_000)
    party.join(500, requests_per_minute=6_000)

    party.play(60.0)

    first = [at for at in party.sent if at < 4.0]
    assert max(first) < 1.5
    assert party.refused < 0.25 * len(party.sent)


def test_the_lower_of_two_rates_counts_for_both():
    party = Party(late_s=0.002)
    low, high = party.join(6_000, requests_per_minute=600), party.join(6_000, requests_per_minute=1_200)

    party.play(60.0)

    assert len(party.sent) == pytest.approx(600, rel=0.03)
    assert len(low.sent) == pytest.approx(len(high.sent), rel=0.1)
    assert [fields["requests_per_minute"] for event, fields in party.told if event == "lease_lowered"] == [600]


def test_a_lower_rate_is_forgotten_with_who_named_it():
    party = Party(late_s=0.002)
    party.join(100, requests_per_minute=600)
    party.join(60_000, requests_per_minute=1_200)

    party.play(90.0)

    assert len([at for at in party.sent if at >= 60]) == pytest.approx(600, rel=0.03)


@pytest.mark.parametrize(("estimate", "used"), [(100, 100), (150, 100), (80, 100), (2_000, 2_000)])
def test_tokens_are_shared_by_what_was_really_used(estimate: int, used: int):
    party, seconds = Party(late_s=0.002), 120.0
    party.tokens, party.used = estimate, used
    for _ in range(4):
        party.join(60_000, tokens_per_minute=60_000)

    party.play(seconds)

    settled = [at for at in party.sent if at >= 20]
    assert len(settled) * used / 1_000 == pytest.approx(100.0, rel=0.06)


def test_both_limits_hold_together():
    party = Party(late_s=0.002)
    for tokens_per_minute in (60_000, 60_000, 60_000):
        party.join(60_000, requests_per_minute=600, tokens_per_minute=tokens_per_minute)

    party.play(60.0)

    assert len(party.sent) == pytest.approx(600, rel=0.04)


def test_an_announced_limit_is_shared_too():
    party = Party(late_s=0.002)
    members = [party.join(60_000) for _ in range(2)]
    for member in members:
        member.lane.announced(requests=600)

    party.play(60.0)

    assert len(party.sent) == pytest.approx(600, rel=0.03)


def test_a_rate_that_refusals_teach_is_kept_to_below_the_shared_one():
    """The limit that was set is too high by far: each learns its own, and refusals become few."""
    party = Party(Bucket(50.0, 1.0, 1.0), late_s=0.002)
    for _ in range(2):
        party.join(60_000, requests_per_minute=6_000)

    party.play(240.0)

    accepted = [at for at in party.sent if at >= 120]
    assert 0.9 <= len(accepted) / (50 * 120) <= 1.01
    assert party.shared.taken["lane"] <= 2 * 240 * 8


def test_a_rate_that_is_learned_alone_needs_few_slices():
    """Nothing is set: the lease shares the pauses, and is asked when a request may go, not before."""
    party = Party(Bucket(1.0, 1.0, 1.0), late_s=0.002)
    for _ in range(2):
        party.join(1_000)

    party.play(240.0)

    assert 0.5 <= len(party.sent) / 240 <= 1.05
    assert party.shared.taken["lane"] <= 4 * (len(party.sent) + party.refused)


def test_an_account_survives_being_written_down():
    account = Account()
    account.take(Want(per_minute=60.0, tokens_per_minute=1_000.0, tokens=50), 5.0)

    assert read_account(json.loads(json.dumps(asdict(account)))) == account
