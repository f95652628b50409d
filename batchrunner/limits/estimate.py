"""Tokens before they are known: for reservations, budgets and plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.records import fact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Request, Usage

CHARS_PER_TOKEN = 4.0
COMPLETION_TOKENS = 1_000
"""Assumed of a request that names no maximum, until some are settled."""
ENOUGH = 20
MOST_KINDS = 1_000
"""Agents and models beyond so many are taken together."""


@fact(frozen=True, slots=True, kw_only=True)
class Estimate:
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Estimator:
    """Guesses a request's tokens; learns from what requests of its agent and model really used.

    Lanes that differ in these thus have estimates of their own. `seen` starts the counts from earlier outcomes
    of the run: completion tokens to how often; they stand in for kinds that are not known well enough yet.
    """

    def __init__(self, seen: Mapping[int, int] | None = None) -> None:
        self._all = _Usage()
        self._kinds: dict[tuple[str | None, str | None], _Usage] = {}
        for tokens, count in (seen or {}).items():
            self._all.count(tokens, count)

    def estimate(self, request: Request) -> Estimate:
        kind = self._kinds.get((request.agent_id, request.model))
        used = self._all if kind is None or kind.total < ENOUGH else kind
        return Estimate(prompt_tokens=used.prompt(request), completion_tokens=used.completion(request))

    def learn(self, request: Request, usage: Usage) -> None:
        self._all.learn(request, usage)
        kind = self._kinds.get((request.agent_id, request.model))
        if kind is None and len(self._kinds) < MOST_KINDS:
            kind = self._kinds[request.agent_id, request.model] = _Usage()
        if kind is not None:
            kind.learn(request, usage)


class _Usage:
    """What requests of one kind have used."""

    __slots__ = ("_chars", "_counts", "_p95", "_prompt_tokens", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0
        self._p95 = 0
        self._chars = 0
        self._prompt_tokens = 0

    def prompt(self, request: Request) -> int:
        per_char = self._prompt_tokens / self._chars if self._chars else 1 / CHARS_PER_TOKEN
        return int(request.prompt_chars * per_char) + 8

    def completion(self, request: Request) -> int:
        most = request.max_tokens * request.choices if request.max_tokens else None
        if self.total < ENOUGH:
            return most or COMPLETION_TOKENS * request.choices
        return min(self.p95(), most) if most else self.p95()

    def learn(self, request: Request, usage: Usage) -> None:
        if usage.prompt_tokens and request.prompt_chars:
            self._chars += request.prompt_chars
            self._prompt_tokens += usage.prompt_tokens
        if usage.completion_tokens is not None:
            self.count(usage.completion_tokens, 1)

    def count(self, tokens: int, count: int) -> None:
        # Rounded to an eighth of its size: few distinct counts however many outcomes.
        step = max(1, 1 << max(0, tokens.bit_length() - 4))
        rounded = -(-tokens // step) * step
        self._counts[rounded] = self._counts.get(rounded, 0) + count
        self.total += count
        if self.total < 100 or self.total % 64 == 0:
            self._p95 = 0

    def p95(self) -> int:
        """Completion tokens that 95 of 100 requests stayed under."""
        if not self._p95:
            left = self.total * 0.05
            for tokens in sorted(self._counts, reverse=True):
                left -= self._counts[tokens]
                if left <= 0:
                    self._p95 = tokens
                    break
        return self._p95
