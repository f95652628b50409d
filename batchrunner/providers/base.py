"""What a provider is: a vendor's dialect, pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Completion, Endpoint, Reply, Request


class Provider(Protocol):
    """How one vendor spells a chat completion.

    Pure: no I/O, no clock, no shared state. Every method may be called from many tasks at once.
    """

    name: str
    title: str
    """What `batchrunner providers` calls it."""
    base_url: str | None
    """The vendor's public address in normalised form; None where every customer has another.

    A dialect may then name them all in `own_hosts`, as `https://*.example.com`: its key variable serves those.
    """
    path: str
    """The request path behind the base URL, for people; placeholders in braces."""
    key_variable: str
    """The environment variable that holds the key, unless the job names another source."""
    streaming: str
    """For people: what the dialect does with `stream`."""
    tools: str
    """For people: what the dialect takes as `tools`."""
    requests_per_minute: float | None
    """The default limit where the vendor's is known; None: learned."""
    requests_per_key: int | None
    """How many requests one key may have in flight; None: any number.

    Where that, or anything else of the dialect, needs a reason, the dialect may give it in `note`, for people.
    One whose servers may long be silent may say so in `first_byte_s`: the default of that clock, in seconds.
    One that is known to take a JSON Schema as `response_format` may say so in `takes_json_schema`.
    """

    def normalise(self, base_url: str) -> str:
        """The base URL as `Endpoint` wants it, from any form seen in vendors' samples. Raises JobError."""

    def headers(self, key: str | None, endpoint: Endpoint) -> dict[str, str]:
        """Headers that authenticate and route a request; no key, no authorization header. Raises JobError."""

    def warnings(self, endpoint: Endpoint) -> tuple[str, ...]:
        """What a person should know before a run: once, not for every request."""

    def build(self, ask: Mapping[str, Any], endpoint: Endpoint, *, without: frozenset[str] = frozenset()) -> Request:
        """Turn what a row asks into the request to send. Same ask, same request. Raises BadRow.

        `ask` holds `messages` (list of objects) and chat-completion fields, `agent_id`, `session_id`
        and `extra` (object of further root fields). `without` names fields to leave out of the body;
        they still count in the request's key.
        """

    def parse(self, reply: Reply, *, max_wait_s: float = 300.0) -> Completion:
        """Read a reply. Raises RequestError when it holds no completion, and nothing else, ever.

        A wait hint above `max_wait_s` gives the verdict defer.
        """
