"""The limit of open files: every connection is one."""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from batchrunner.errors import RunError

MARGIN = 32
"""For parts, commits, the log, the input and name look-ups, while all connections are open."""
LEAST = 8
"""With fewer than these to open, a run would only fail later."""

_ENOUGH = 1_048_576
_USUALLY_OPEN = 32


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may go by itself. Gives the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    aim = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < aim:
        # macOS has a lower limit of its own, which it does not tell here.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def connections_left() -> int:
    """How many connections there may be at once: what the limit leaves beside what is open now and a margin.

    Raises RunError where it leaves too little for a run.
    """
    limit = raise_open_files()
    try:
        open_now = len(os.listdir("/dev/fd"))  # noqa: PTH208 (names alone, as cheap as can be)
    except OSError:
        open_now = _USUALLY_OPEN
    left = (_ENOUGH if limit == resource.RLIM_INFINITY else limit) - open_now
    if left < LEAST:
        raise RunError(
            f"this process may have {limit} open files and has {open_now}: too few are left for a run; "
            "raise the limit (ulimit -n)"
        )
    return max(1, left - MARGIN)
