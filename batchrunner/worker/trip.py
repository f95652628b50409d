"""An item on its way, and where a step takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from batchrunner.limits.budget import NOTHING, Reservation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.errors import BatchrunnerError, RequestError
    from batchrunner.records import Completion, Endpoint, Item, Outcome, Request, Usage


class Asks(Protocol):
    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """What a row asks for, as `Provider.build` takes it. Raises BadRow."""


class Wrong(Protocol):
    """Why an answer is not what was expected."""

    @property
    def error_type(self) -> Literal["invalid_output", "length"]: ...
    @property
    def said(self) -> str: ...


class Expects(Protocol):
    def fault(self, completion: Completion) -> Wrong | None:
        """What is wrong with an answer, None for nothing."""


class Pricing(Protocol):
    def cost(self, model: str | None, usage: Usage, *, asked: str | None = None) -> float | None:
        """USD, or None when the price or the tokens are unknown. `asked` is the model's name in the request."""


@dataclass(slots=True, kw_only=True)
class Trip:
    """An item on its way: what is sent for it, and what its attempts have come to so far."""

    item: Item
    began_at: float
    """Monotonic instant of the first preparation; the item's clock runs from here."""
    started_at: int
    """The same in microseconds since 1970 UTC, for the table."""
    request: Request | None = None
    own: str | None = None
    """The agent and model, where the row itself names them; None when they are the job's."""
    attempts: int = 0
    failures: int = 0
    """Failed attempts but for rate limits and those made while the lane was down."""
    unreadable: int = 0
    error: RequestError | None = None
    """What the item is exhausted with if its clock runs out while it waits."""
    retry: bool = False
    """Whether the next attempt is one, by `limits.RetryBudget`: the last one failed, and counts."""
    possibly_billed: int = 0
    failed_prompt_tokens: int | None = None
    failed_completion_tokens: int | None = None
    without: frozenset[str] = frozenset()
    reserved: Reservation = NOTHING
    session_fault: str | None = None
    """Why the item must not be asked: an earlier one of its session failed."""
    answers: tuple[Mapping[str, Any], ...] = ()
    """To the turns so far, those of an earlier run included."""
    wrong: tuple[Mapping[str, Any], ...] = ()
    """Answers that were not as expected, each with what is `wrong` with it: a better one was or is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """The item is to be tried again in `wait_s` seconds, or from `least_s` on if there is nothing else to send."""

    wait_s: float
    least_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """There is an answer that is to be kept; the item's next turn can be asked, or for a better answer."""

    turn: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """The item has no outcome in this run. `ends` is the error that ends the run, or its lane (`lane_only`)."""

    ends: BatchrunnerError
    lane_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the job says about every item."""

    endpoint: Endpoint
    item_s: float
    job_agent: str | None = None
    job_model: str | None = None
    keep_response: bool = True
    sent_changes: str | None = None
    """What `resend` changes, by name."""
    repairs: int = 0
    """How often an answer that is not as expected is asked to be mended."""
