"""A name of the user's own: `package.module:name`, beside the job or installed."""

from __future__ import annotations

import importlib
import sys
from contextlib import redirect_stdout
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from batchrunner.errors import JobError


def imported(said: str, base: Path, *, at: str, what: str, fresh: set[str] | None = None) -> Any:
    """What `said` names; modules that are not installed are looked for in `base`. Raises JobError.

    One process may run several jobs, and a file may change between two: what lies beside the job is read again, but for
    modules in `fresh`, which then has this one too. What it prints goes where messages go.
    """
    module, _, name = said.partition(":")
    folder = str(base.resolve())
    if fresh is None or module not in fresh:
        _forget(module, folder, f"{at}: {said}")
    before = {*sys.modules}
    sys.path.insert(0, folder)
    try:
        with redirect_stdout(sys.stderr):
            found: Any = importlib.import_module(module)
        for step in name.split("."):
            found = getattr(found, step)
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: "
        raise JobError(
            f"{at}: {said}: {kind}{error}; expected {what} that can be imported, beside the job or installed"
        ) from error
    finally:
        sys.path.remove(folder)
        _OURS.update(each for each in {*sys.modules} - before if _lies_in(each, folder))
    if fresh is not None:
        fresh.add(module)
    if folder not in sys.path:
        sys.path.append(folder)  # For what a function imports when it is called.
    return found


_OURS: set[str] = set()
"""Modules that were loaded here, with those beside the job that they loaded themselves."""


def _lies_in(module: str, folder: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(folder)


def _forget(module: str, folder: str, at: str) -> None:
    """Let go of what was loaded here. Raises JobError where another module of that name is loaded, which would be taken
    instead."""
    for name in _OURS:
        sys.modules.pop(name, None)
    _OURS.clear()
    importlib.invalidate_caches()
    top = module.partition(".")[0]
    beside = PathFinder.find_spec(top, [folder])
    if beside is None or beside.origin is None or top not in sys.modules:
        return
    loaded = getattr(sys.modules[top], "__file__", None)
    if loaded is None or not Path(loaded).samefile(beside.origin):
        raise JobError(f"{at}: another module {top!r} is loaded already; call yours otherwise")
    del sys.modules[top]
