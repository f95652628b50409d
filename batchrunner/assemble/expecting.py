"""What a job expects of its answers: sent with every request where that helps, and remembered for readers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from batchrunner import expect, templates
from batchrunner.schema import RECORD

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from batchrunner.expect import Expectation
    from batchrunner.providers.base import Provider
    from batchrunner.spec import ExpectSpec, JobSpec
    from batchrunner.templates import Asker


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The expectation of a job, and the response_format that is sent of it."""

    expectation: Expectation | None = None
    response_format: Mapping[str, Any] | None = None

    def told(self) -> dict[str, Any] | None:
        """What the manifest keeps, so that readers need neither the file nor the class."""
        if self.expectation is None:
            return None
        found = self.expectation
        return {
            "schema": dict(found.schema),
            "prefix": found.prefix,
            "allow_length": found.allow_length,
            "response_format": self.response_format,
        }

    def ask(self, asker: Asker) -> Asker:
        """An asker whose requests have the response_format, unless job or row name another."""
        wanted = self.response_format
        if wanted is None or self.expectation is None:
            return asker
        make = asker.make
        asked = {
            **asker.asked,
            "expect.schema": dict(self.expectation.schema),
            "expect.response_format": wanted["type"],
        }
        return replace(asker, asked=asked, make=lambda columns: {"response_format": wanted, **make(columns)})


NOTHING = Expected()


def expected(spec: ExpectSpec, base: Path, provider: Provider) -> Expected:
    """Raises JobError for what is no schema, or cannot be found."""
    if spec.json_schema is None:
        return NOTHING
    schema = expect.load_schema(spec.json_schema, base)
    found = expect.expectation(schema, prefix=spec.prefix, allow_length=spec.allow_length, taken=RECORD.names)
    return Expected(expectation=found, response_format=_format(schema, spec.response_format, provider))


def remembered(told: Mapping[str, Any] | None) -> Expected:
    """The same from a manifest."""
    if not told:
        return NOTHING
    found = expect.expectation(told["schema"], prefix=told["prefix"], allow_length=told["allow_length"])
    return Expected(expectation=found, response_format=told["response_format"])


def _format(schema: Mapping[str, Any], mode: str, provider: Provider) -> dict[str, Any] | None:
    if mode == "auto":
        mode = "json_schema" if getattr(provider, "takes_json_schema", False) else "none"
    if mode == "json_schema":
        return {"type": mode, "json_schema": {"name": "answer", "schema": dict(schema)}}
    return None if mode == "none" else {"type": mode}


def compiled(job: JobSpec, columns: Collection[str], wanted: Expected) -> Asker:
    """What every row asks. Raises JobError."""
    asker = templates.compile_request(job.request, params=job.params, base=job.base, columns=columns, matrix=job.matrix)
    return wanted.ask(asker)
