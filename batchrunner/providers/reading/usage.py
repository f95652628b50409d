"""Tokens as a provider reported them: whole numbers or nothing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from batchrunner.records import UNKNOWN_USAGE, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("usage", "usage_from_consumer", "usage_from_provider")
_MOST = 2**63 - 1
_DIGITS = re.compile(r"[0-9]{1,19}")


def reported(reply: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The usage object of a reply or chunk, under any of its names."""
    for name in NAMES:
        if isinstance(found := reply.get(name), dict):
            return found
    groq = reply.get("x_groq")
    found = groq.get("usage") if isinstance(groq, dict) else None
    return found if isinstance(found, dict) else None


def read_usage(found: Mapping[str, Any] | None) -> Usage:
    """Usage with None for whatever is missing or no count. A missing total is the sum when both parts are known."""
    if not found:
        return UNKNOWN_USAGE
    prompt = tokens(found.get("prompt_tokens", found.get("input_tokens")))
    completion = tokens(found.get("completion_tokens", found.get("output_tokens")))
    total = tokens(found.get("total_tokens"))
    if total is None and "total_tokens" not in found and prompt is not None and completion is not None:
        total = prompt + completion
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=total,
        cached_tokens=_detail(found, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
        reasoning_tokens=_detail(found, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
    )


def tokens(value: Any) -> int | None:
    """A whole count from 0 to 2^63-1, also written as digits or as a whole float; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value)
    return value if isinstance(value, int) and 0 <= value <= _MOST else None


def _detail(found: Mapping[str, Any], groups: tuple[str, ...], name: str) -> int | None:
    for group in groups:
        if isinstance(details := found.get(group), dict):
            return tokens(details.get(name))
    return None
