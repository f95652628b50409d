"""What an answer is expected to be: found in its text, held against a JSON Schema, put into declared columns."""

from __future__ import annotations

from batchrunner.expect.expectation import Expectation, Fault, expectation
from batchrunner.expect.finding import candidates
from batchrunner.expect.importing import imported
from batchrunner.expect.schemas import load_schema

__all__ = ["candidates", "Expectation", "expectation", "Fault", "imported", "load_schema"]
