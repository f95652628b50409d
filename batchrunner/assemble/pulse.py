"""Whether somebody works on a run: its lock tells it on this machine, its heartbeat on any other."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

STILL_S = 30.0
"""A heartbeat comes every two seconds; after so many the owner is gone, stuck, or busy with its results."""


def pulse(manifest: Mapping[str, Any], *, locked: bool, now: datetime | None = None) -> dict[str, Any]:
    """What the life of a run adds to its state: `alive`, `heartbeat_age_s`, and for a dead one since when.

    `locked` is whether its lock is held, as far as this machine can see.
    """
    age_s = _age_s(manifest.get("heartbeat_at"), now or datetime.now(UTC))
    elsewhere = manifest.get("host") not in (None, socket.gethostname())
    running = manifest.get("state") == "running"
    # A lock on another machine's own disk is not to be seen from here; its heartbeat is.
    beats = running and elsewhere and age_s is not None and age_s < STILL_S
    alive = locked or beats
    found: dict[str, Any] = {"alive": alive, "heartbeat_age_s": age_s, "dead_since": None}
    if running and not alive:
        found |= {
            "dead_since": manifest.get("heartbeat_at"),
            "reason": "its process has died",
            "retryable": True,
            "next": (manifest.get("call") or {}).get("command"),
        }
    return found


def _age_s(heartbeat_at: str | None, now: datetime) -> float | None:
    if heartbeat_at is None:
        return None
    return round(abs((now - datetime.fromisoformat(heartbeat_at)).total_seconds()), 1)
