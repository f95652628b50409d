"""`run.json`: what people and schedulers read of a run, replaced whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import RunError
from batchrunner.store import files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_manifest(path: Path, manifest: Mapping[str, Any], mode: int = 0o640) -> None:
    """Replace the manifest, durably: one that a power cut left empty would be refused. Raises StoreError."""
    data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    with files.storing(path):
        files.write_whole(path, data, mode)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest, None where there is none. Raises RunError when it is not one."""
    try:
        manifest = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; see that the path and its permissions are right") from error
    except ValueError as error:
        raise RunError(f"{path}: not valid JSON ({error}); remove it, the next run writes it anew") from error
    if not isinstance(manifest, dict):
        raise RunError(f"{path}: expected a JSON object, got {type(manifest).__name__}; remove it")
    return manifest
