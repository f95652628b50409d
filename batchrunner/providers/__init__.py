"""Providers: one file per dialect, loaded by name; a user's own by `package.module:PROVIDER`."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import TYPE_CHECKING

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from batchrunner.providers.base import Provider

_NO_DIALECTS = {"base", "building", "contract", "conversation"}
_CONTRACT = (
    "name", "title", "base_url", "path", "key_variable", "streaming", "tools", "requests_per_minute",
    "requests_per_key", "normalise", "headers", "warnings", "build", "parse",
)  # fmt: skip
"""What `base.Provider` asks for; a user's own may lack something."""


def available() -> list[str]:
    """The names of the dialects that come with the package."""
    found = pkgutil.iter_modules(__path__)
    return sorted(module.name for module in found if not module.ispkg and module.name not in _NO_DIALECTS)


def load(kind: str) -> Provider:
    """The provider of that name. Raises JobError."""
    if ":" in kind:
        return _load_own(kind)
    if kind not in available():
        near = difflib.get_close_matches(kind, available(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; expected one of {', '.join(available())}"
        raise JobError(f"provider.kind: unknown provider {kind!r}{hint}")
    provider: Provider = importlib.import_module(f"{__name__}.{kind}").PROVIDER
    return provider


def own_address(provider: Provider) -> str | None:
    """Where the provider's key variable may be sent: its public address, or a pattern `https://*.example.com`."""
    pattern: str | None = getattr(provider, "own_hosts", None)
    return provider.base_url or pattern


def _load_own(kind: str) -> Provider:
    module, _, name = kind.partition(":")
    if not module or not name:
        raise JobError(f"provider.kind: expected 'package.module:PROVIDER', got {kind!r}")
    try:
        provider: Provider = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise JobError(f"provider.kind: {kind!r} cannot be imported ({error}); see that it is on PYTHONPATH") from None
    except AttributeError:
        raise JobError(
            f"provider.kind: module {module!r} has no {name!r}; expected 'package.module:PROVIDER'"
        ) from None
    missing = [word for word in _CONTRACT if not hasattr(provider, word)]
    if missing:
        raise JobError(f"provider.kind: {kind!r} is no provider: it has no {', '.join(missing)} (providers/base.py)")
    return provider
