"""This machine's own place for what an object store cannot hold: journals, locks, copies of input."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

STATE_VARIABLE = "BATCHRUNNER_STATE_DIR"


def state_root(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """The first that is given: `--state-dir`, BATCHRUNNER_STATE_DIR, the user's state directory by XDG."""
    if given is not None:
        return given
    if environ.get(STATE_VARIABLE):
        return Path(environ[STATE_VARIABLE])
    home = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "batchrunner"


def run_directory(root: Path, address: str) -> Path:
    """Where this machine keeps the run at `address` while it works on it."""
    name = re.sub(r"[^A-Za-z0-9._=-]+", "-", address.rpartition("/")[2])[:80]
    return root / "runs" / f"{name}-{sha256(address.encode()).hexdigest()[:16]}"
