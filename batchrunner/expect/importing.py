"""A name of the user's own: `package.module:name`, beside the job or installed."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from batchrunner.errors import JobError


def imported(said: str, base: Path, *, at: str, what: str) -> Any:
    """What `said` names; modules that are not installed are looked for in `base`. Raises JobError."""
    module, _, name = said.partition(":")
    folder = str(base.resolve())
    _forget(module, folder, f"{at}: {said}")
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


_OURS: set[str] = set()
"""Modules that were loaded here."""


def _forget(module: str, folder: str, at: str) -> None:
    """One process may run several jobs, and a file may change between two: what lies beside the job is read again.

    Raises JobError where another module of that name is loaded, which would be taken instead.
    """
    top = module.partition(".")[0]
    beside = PathFinder.find_spec(top, [folder])
    if beside is None or beside.origin is None:
        return
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if top in sys.modules and top not in _OURS and (loaded is None or not Path(loaded).samefile(beside.origin)):
        raise JobError(f"{at}: another module {top!r} is loaded already; call yours otherwise")
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
    _OURS.add(top)
    importlib.invalidate_caches()
