"""Where a schema comes from: the job itself, a file beside it, or a pydantic class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from batchrunner.errors import JobError
from batchrunner.expect.importing import imported

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

AT = "expect.schema"


def load_schema(said: Mapping[str, Any] | str, base: Path) -> dict[str, Any]:
    """A schema as a job names it: the schema, `file:PATH` or `package.module:Model`. Raises JobError.

    Paths, and modules that are not installed, are relative to `base`.
    """
    if not isinstance(said, str):
        return dict(said)
    if said.startswith("file:"):
        return _of_file(base / said.removeprefix("file:"))
    return _of_model(said, base)


def _of_file(path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(path.read_bytes())
    except OSError as error:
        raise JobError(f"{AT}: {path}: {(error.strerror or str(error)).lower()}") from error
    except ValueError as error:
        raise JobError(f"{AT}: {path}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise JobError(f"{AT}: {path}: expected a JSON object, got {type(found).__name__}")
    return found


def _of_model(said: str, base: Path) -> dict[str, Any]:
    model = imported(said, base, at=AT, what="a class")
    if not hasattr(model, "model_json_schema"):
        raise JobError(f"{AT}: {said}: expected a pydantic model, got {type(model).__name__}")
    found: dict[str, Any] = model.model_json_schema()
    return found
