"""Tokens as a provider reported them: whole numbers or nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from batchrunner.providers.reading.text import whole
from batchrunner.records import UNKNOWN_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLDERS = ("usage", "usage_from_consumer", "usage_from_provider")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")


def reported(reply: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage object of a reply or chunk, under the first of its names that holds one with a count in it."""
    for name in _HOLDERS:
        if _counts(found := reply.get(name)):
            return found
    groq = reply.get("x_groq")
    return groq["usage"] if isinstance(groq, dict) and _counts(groq.get("usage")) else None


def _counts(found: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether that is a usage object with a count in it."""
    if not isinstance(found, dict):
        return False
    for name in _COUNTS:  # noqa: SIM110 (a generator costs more than all the rest, for every reply)
        if whole(found.get(name)) is not None:
            return True
    return False


def read_usage(found: Mapping[str, Any] | None) -> Usage:
    """Usage with None for whatever is missing or no count. A missing total is the sum when both parts are known."""
    if not found:
        return UNKNOWN_USAGE
    prompt = _either(found, "prompt_tokens", "input_tokens")
    completion = _either(found, "completion_tokens", "output_tokens")
    total = whole(found.get("total_tokens"))
    if found.get("total_tokens") is None and prompt is not None and completion is not None:
        total = whole(prompt + completion)
    cached = _detail(found, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=whole(found.get("prompt_cache_hit_tokens")) if cached is None else cached,
        reasoning_tokens=_detail(found, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
    )


def _either(found: Mapping[str, Any], name: str, other: str) -> int | None:
    count = whole(found.get(name))
    return whole(found.get(other)) if count is None else count


def _detail(found: Mapping[str, Any], groups: tuple[str, ...], name: str) -> int | None:
    for group in groups:
        if isinstance(details := found.get(group), dict):
            return whole(details.get(name))
    return None
