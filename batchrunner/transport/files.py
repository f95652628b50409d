"""The limit of open files: every connection is one."""

from __future__ import annotations

import resource
from contextlib import suppress

_ENOUGH = 1_048_576


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may go by itself. Gives the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    aim = _ENOUGH if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < aim:
        # macOS has a lower limit of its own, which it does not tell here.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (aim, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
