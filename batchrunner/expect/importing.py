"""A name of the user's own: `package.module:name`, beside the job or installed."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from pathlib import Path


def imported(said: str, base: Path, *, at: str, what: str) -> Any:
    """What `said` names; modules that are not installed are looked for in `base`. Raises JobError."""
    module, _, name = said.partition(":")
    folder = str(base.resolve())
    sys.path.insert(0, folder)
    try:
        found: Any = importlib.import_module(module)
        for step in name.split("."):
            found = getattr(found, step)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise JobError(
            f"{at}: {said}: {error}; expected {what} that can be imported, beside the job or installed"
        ) from error
    finally:
        sys.path.remove(folder)
    return found
