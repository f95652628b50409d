"""Lanes with their lines: one for each key, and for each agent or model where these have an allowance of their own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from batchrunner.access import Access, granted, look_again
from batchrunner.errors import BadRow
from batchrunner.limits import Breaker, Concurrency, Connections, Lane, Stake
from batchrunner.stack import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.credentials import Credential, Secret
    from batchrunner.limits import Lease
    from batchrunner.providers.base import Provider
    from batchrunner.records import Endpoint, Item
    from batchrunner.spec import JobSpec
    from batchrunner.transport import Line, Wire
    from batchrunner.worker import Asks

MOST_CONCURRENCY = 10_000


def _forget(secret: Secret) -> None:
    """For channels that nothing is sent on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Opens the channels of a run. `share` is the part of every limit that this process may use.

    With a `lease` the part of a fixed concurrency alone: of the rates all processes have the whole together.
    """

    job: JobSpec
    provider: Provider
    endpoint: Endpoint
    credentials: tuple[Credential, ...]
    asks: Asks
    share: float = 1.0
    lease: Lease | None = None
    simulate: bool = False
    learn: Callable[[Secret], None] = _forget
    """Told every key that comes later, to keep it out of texts."""

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

    def open(
        self, wire: Wire, send_to: str, tell: Callable[..., None], *, connections: int, warn: Callable[[str], None]
    ) -> Callable[[str], list[Channel]]:
        """Makes the channels that serve one lane name, a channel for each key. `tell` hears what their lanes decide.

        All together keep to so many `connections`; `warn` hears it once when these are fewer than were asked for.
        """
        shared = Connections(connections)
        accesses = [self._access(wire, send_to, credential, tell) for credential in self.credentials]

        def open_channels(name: str) -> list[Channel]:
            keys = zip(self.credentials, accesses, strict=True)
            channels = [self._channel(credential.label, access, name, tell) for credential, access in keys]
            each = shared.share([channel.lane.concurrency for channel in channels])
            if each is not None:
                tell("concurrency_capped", concurrency=each, connections=connections)
                if self.job.limits.concurrency != "auto":
                    warn(_capped(each, connections))
            return channels

        return open_channels

    def _access(self, wire: Wire, send_to: str, credential: Credential, tell: Callable[..., None]) -> Access:
        def prepare(secret: Secret) -> Line:
            self.learn(secret)
            return wire.prepare(send_to, self._headers(credential, secret))

        tell = partial(tell, key=credential.label)
        if credential.grant is not None:
            return Access(None, fetch=granted(credential.grant, wire), prepare=prepare, tell=tell)
        line = wire.prepare(send_to, self._headers(credential, credential.key))
        return Access(line, fetch=look_again(credential), prepare=prepare, secret=credential.key, tell=tell)

    def _headers(self, credential: Credential, secret: Secret | None) -> dict[str, str]:
        if credential.grant is None or secret is None:
            return self.provider.headers(secret.reveal() if secret is not None else None, self.endpoint)
        # A token is a bearer's, whatever header the dialect has for keys (RFC 6750 section 2.1).
        return {**self.provider.headers(None, self.endpoint), "authorization": f"Bearer {secret.reveal()}"}

    def _channel(self, label: str, access: Access, name: str, tell: Callable[..., None]) -> Channel:
        label += f", {self.job.limits.per} {name}" if name else ""
        lane = Lane(
            label,
            concurrency=self._concurrency(),
            breaker=Breaker(down_s=self.job.retry.down_s),
            requests_per_minute=self._share(self.requests_per_minute()),
            tokens_per_minute=self._share(number(self.job.limits.tokens_per_minute)),
            share=self.share if self.lease is None else 1.0,
            stake=None if self.lease is None else Stake(lease=self.lease, lane=self._allowance(label)),
            longest_pause_s=self.job.retry.max_wait_s,
            tell=tell,
        )
        return Channel(lane=lane, access=access, label=label)

    def _allowance(self, label: str) -> str:
        """Names what is shared, the same in every process: who is asked, where, and with what; a key by where it is."""
        endpoint = self.endpoint
        workspace = f" workspace {endpoint.workspace_id}" if endpoint.workspace_id else ""
        simulated = "simulated " if self.simulate else ""
        return f"{simulated}{self.provider.name} {endpoint.base_url}{workspace} {label}"

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
        return limit if limit is None or self.lease is not None else limit * self.share


def _capped(each: int, connections: int) -> str:
    return (
        f"limits.concurrency is held at {each:,}: this process's limit of open files leaves {connections:,} "
        "for connections; raise the hard limit (ulimit -Hn) for more"
    )


def number(limit: Any) -> float | None:
    """A limit of the job as a number; None for none set and for `none`."""
    return None if limit is None or limit == "none" else float(limit)
