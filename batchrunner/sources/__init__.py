"""Where items come from: files, one format each, checked once and then streamed."""

from __future__ import annotations

from batchrunner.sources._cases import Cases, Ways
from batchrunner.sources._check import check
from batchrunner.sources._checked import Checked, Repeats
from batchrunner.sources._files import available
from batchrunner.sources._frames import write_frame
from batchrunner.sources._identity import place, shard_of
from batchrunner.sources._input import Input, load, open_input, open_spooled
from batchrunner.sources._kept import kept_columns, kept_schema, result_batches_input
from batchrunner.sources.base import CASE_COLUMNS, MAX_ROW_BYTES

__all__ = [
    "available",
    "CASE_COLUMNS",
    "Cases",
    "check",
    "Checked",
    "Input",
    "kept_columns",
    "kept_schema",
    "load",
    "MAX_ROW_BYTES",
    "open_input",
    "open_spooled",
    "place",
    "Repeats",
    "result_batches_input",
    "shard_of",
    "Ways",
    "write_frame",
]
