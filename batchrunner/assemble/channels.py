"""Lanes with their lines: one for each key, and for each agent or model where these have an allowance of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow
from batchrunner.limits import Breaker, Concurrency, Lane
from batchrunner.stack import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.credentials import Credential
    from batchrunner.providers.base import Provider
    from batchrunner.records import Endpoint, Item
    from batchrunner.spec import JobSpec
    from batchrunner.transport import Wire
    from batchrunner.worker import Asks

MOST_CONCURRENCY = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Opens the channels of a run. `share` is the part of every limit that this process may use."""

    job: JobSpec
    provider: Provider
    endpoint: Endpoint
    credentials: tuple[Credential, ...]
    asks: Asks
    share: float = 1.0

    def route(self) -> Callable[[Item], str]:
        """Names an item's lane: all the same, or by the agent or model that it asks."""
        per = self.job.limits.per
        if per == "key":
            return lambda item: ""
        name = "agent_id" if per == "agent" else "model"

        def by_ask(item: Item) -> str:
            try:
                return str(self.asks.ask(item.columns).get(name) or "") if item.fault is None else ""
            except BadRow:
                return ""

        return by_ask

    def open(self, wire: Wire, send_to: str, tell: Callable[..., None]) -> Callable[[str], list[Channel]]:
        """Makes the channels that serve one lane name, a channel for each key. `tell` hears what their lanes decide."""

        def open_channels(name: str) -> list[Channel]:
            return [self._channel(wire, send_to, credential, name, tell) for credential in self.credentials]

        return open_channels

    def _channel(
        self, wire: Wire, send_to: str, credential: Credential, name: str, tell: Callable[..., None]
    ) -> Channel:
        label = credential.label + (f", {self.job.limits.per} {name}" if name else "")
        key = credential.key.reveal() if credential.key is not None else None
        lane = Lane(
            label,
            concurrency=self._concurrency(),
            breaker=Breaker(down_s=self.job.retry.down_s),
            requests_per_minute=self._share(self.requests_per_minute()),
            tokens_per_minute=self._share(number(self.job.limits.tokens_per_minute)),
            tell=tell,
        )
        return Channel(lane=lane, line=wire.prepare(send_to, self.provider.headers(key, self.endpoint)), label=label)

    def requests_per_minute(self) -> float | None:
        limit = self.job.limits.requests_per_minute
        return self.provider.requests_per_minute if limit is None else number(limit)

    def _concurrency(self) -> Concurrency:
        setting = self.job.limits.concurrency
        per_key = self.job.provider.requests_per_key or self.provider.requests_per_key
        if setting != "auto":
            setting = max(1, int(int(setting) * self.share))
            return Concurrency(setting, most=min(per_key or MOST_CONCURRENCY, MOST_CONCURRENCY))
        return Concurrency("auto", most=per_key) if per_key else Concurrency("auto")

    def _share(self, limit: float | None) -> float | None:
        return None if limit is None else limit * self.share


def number(limit: Any) -> float | None:
    """A limit of the job as a number; None for none set and for `none`."""
    return None if limit is None or limit == "none" else float(limit)
