"""Everything this package raises on purpose, each with the exit code it ends the command with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence

Verdict = Literal["retry", "reject", "defer", "abort"]
Scope = Literal["item", "lane", "agent", "run", "machine"]
ErrorType = Literal[
    "auth", "permission", "billing", "not_found", "bad_request", "too_large", "context_length", "content_filter",
    "rate_limit", "conflict", "timeout", "server", "overloaded", "connection", "truncated", "malformed", "empty",
    "provider_error", "redirect", "response_too_large", "bad_row", "session", "invalid_output", "length",
]  # fmt: skip


class BatchrunnerError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code = 1


class JobError(BatchrunnerError):
    """The job cannot start as written. Holds every fault that was found, one sentence each."""

    exit_code = 2

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults: Sequence[str] = faults


class RunError(BatchrunnerError):
    """The run directory cannot be used: not found, damaged, unwritable or not ours."""

    exit_code = 10


class RunLocked(RunError):
    """Another process is working on this run."""

    exit_code = 11


class ProviderRefused(BatchrunnerError):
    """The provider refuses every request alike: key, permission, billing, agent, model or a field."""

    exit_code = 12


class JobChanged(RunError):
    """The job now asks something else: settled items would be bought again. The ways out follow, a line each."""

    exit_code = 13

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))


class DeadlineReached(BatchrunnerError):
    """The deadline of this invocation passed."""

    exit_code = 14


class ProviderUnavailable(BatchrunnerError):
    """The provider is down, or asks to come back later than `retry.max_wait_s`."""

    exit_code = 15


class StoreError(BatchrunnerError):
    """Results could not be written: disk full, I/O error, read-only. `full`: making room is all that helps."""

    exit_code = 16

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class BudgetReached(BatchrunnerError):
    """The next request would overshoot the cap on money or tokens."""

    exit_code = 17


class BadRow(BatchrunnerError):
    """One row cannot be asked as it stands. Becomes a `rejected` outcome; never leaves worker."""


class RequestError(BatchrunnerError):
    """One attempt failed. Never leaves worker.

    `scope` says whose trouble it is; `machine` is ours: nothing was sent, and no attempt is spent.
    `wait_s` is the server's hint in seconds, if it gave one. `went_out` says that the request was
    handed to the network whole, so that the provider may bill it. `without` names a request field
    which the server refused and which the next attempt leaves out. The tokens are what the failed
    attempt reported, None for unknown.
    """

    def __init__(
        self,
        message: str,
        *,
        verdict: Verdict,
        error_type: ErrorType,
        scope: Scope = "item",
        wait_s: float | None = None,
        status: int | None = None,
        went_out: bool = False,
        without: str | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        super().__init__(message)
        self.verdict: Verdict = verdict
        self.error_type: ErrorType = error_type
        self.scope: Scope = scope
        self.wait_s = wait_s
        self.status = status
        self.went_out = went_out
        self.without = without
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = completion_tokens
        self.headers: Mapping[str, str] | None = None
        """Those of the reply that said so, for what they tell of limits."""


class Interrupted(BatchrunnerError):
    """A signal asked the run to end; 128 and the signal's number is the exit code."""

    def __init__(self, number: signal.Signals, when: str = "") -> None:
        super().__init__(f"interrupted by {number.name}{when}")
        self.exit_code = 128 + number
