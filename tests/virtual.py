"""A lane against a server of known limits, in virtual time: minutes of sending in milliseconds."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from batchrunner.errors import RequestError
from batchrunner.limits import Breaker, Concurrency, Lane

if TYPE_CHECKING:
    from collections.abc import Mapping


class Server(Protocol):
    def wait_s(self, now: float) -> float | None:
        """None when the request is let in, else the Retry-After of its refusal."""


class Bucket:
    """Refills at `rate` a second up to `burst` seconds' worth; refusals say `after_s`, or when there is room."""

    def __init__(self, rate: float, burst_s: float, after_s: float | None) -> None:
        self.rate, self.most, self.after_s = rate, max(1.0, rate * burst_s), after_s
        self.level, self.at = self.most, 0.0

    def wait_s(self, now: float) -> float | None:
        self.level, self.at = min(self.most, self.level + (now - self.at) * self.rate), now
        if self.level >= 1.0:
            self.level -= 1.0
            return None
        return self.after_s if self.after_s is not None else (1.0 - self.level) / self.rate


class Window:
    """Lets `limit` in within any `length_s`; refusals say when the oldest leaves, or `after_s`."""

    def __init__(self, limit: int, length_s: float, after_s: float | None = None) -> None:
        self.limit, self.length_s, self.after_s = limit, length_s, after_s
        self.seen: deque[float] = deque()

    def wait_s(self, now: float) -> float | None:
        while self.seen and self.seen[0] <= now - self.length_s:
            self.seen.popleft()
        if len(self.seen) < self.limit:
            self.seen.append(now)
            return None
        return self.after_s if self.after_s is not None else self.seen[0] + self.length_s - now


class Fickle:
    """Refuses a share of the requests, whatever their rate."""

    def __init__(self, share: float, after_s: float) -> None:
        self.share, self.after_s, self.chance = share, after_s, Random(7)

    def wait_s(self, now: float) -> float | None:
        return self.after_s if self.chance.random() < self.share else None


@dataclass
class Played:
    seconds: float = 0.0
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    told: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def refused_share(self) -> float:
        return len(self.refused) / (len(self.refused) + len(self.accepted))

    def used(self, rate: float) -> float:
        return len(self.accepted) / (rate * self.seconds)

    def pauses(self) -> int:
        return sum(event == "lane_paused" for _, event, _ in self.told)

    def by_second(self) -> Counter[int]:
        return Counter(int(at) for at in self.accepted)

    def rates(self) -> list[float]:
        return [f["requests_per_minute"] / 60 for _, e, f in self.told if e in ("rate_learned", "rate_raised")]


def play(
    server: Server,
    rows: int,
    *,
    latency_s: float = 0.1,
    refusal_s: float = 0.002,
    concurrency: int | str = "auto",
    client_s: float = 0.0003,
    most_s: float = 3600.0,
    stalls: Mapping[float, float] | None = None,
    **limits: Any,
) -> Played:
    """Send `rows` requests over one lane, refused ones again; each takes the client `client_s` to send.

    `stalls`: at some instants what is sent for so long reaches the server together.
    """
    now, played, chance = 1000.0, Played(), Random(3)
    lane = Lane(
        "lane",
        concurrency=Concurrency(concurrency),
        breaker=Breaker(down_s=3600),
        tell=lambda event, **fields: played.told.append((now - 1000.0, event, fields)),
        uniform=chance.uniform,
        clock=lambda: now,
        **limits,
    )
    replies: list[tuple[float, float, float | None]] = []
    todo = rows
    while todo or replies:
        if todo and lane.in_flight < lane.slots and lane.admit_now(100):
            lane.took(retry=False)
            todo, lane.in_flight = todo - 1, lane.in_flight + 1
            arrives = max(
                (at + length for at, length in (stalls or {}).items() if at <= now - 1000 < at + length), default=0.0
            )
            wait_s = server.wait_s(max(now, 1000 + arrives))
            (played.accepted if wait_s is None else played.refused).append(now - 1000.0)
            heapq.heappush(replies, (now + (latency_s if wait_s is None else refusal_s), now, wait_s))
            now += client_s
            continue
        opens = now + max(lane.paused_s(), lane.throttle.wait_s(now), 1e-6)
        if not replies or (todo and lane.in_flight < lane.slots and opens < replies[0][0]):
            now = opens
            continue
        at, started_at, wait_s = heapq.heappop(replies)
        now = max(now, at)
        if wait_s is None:
            lane.succeeded(latency_s=now - started_at)
            lane.canary = None
        else:
            todo += 1
            error = RequestError("busy", verdict="retry", error_type="rate_limit", scope="lane", wait_s=wait_s or None)
            lane.failed(error, "item", started_at=started_at)
        lane.in_flight -= 1
        if now - 1000.0 > most_s:
            break
    played.seconds = now - 1000.0
    return played
