"""From a job to a running run: the one place that wires sources, providers, store, transport and limits together."""

from batchrunner.assemble.ending import fatal
from batchrunner.assemble.invocation import Invocation, Redo
from batchrunner.assemble.invoke import invoke
from batchrunner.assemble.merge import merge_runs
from batchrunner.assemble.places import Place, bring, place_of
from batchrunner.assemble.plan import plan
from batchrunner.assemble.reparse import reparse
from batchrunner.assemble.state import state_of
from batchrunner.assemble.table import Table, open_table
from batchrunner.assemble.upkeep import clean_run

__all__ = [
    "bring",
    "clean_run",
    "fatal",
    "Invocation",
    "invoke",
    "merge_runs",
    "open_table",
    "Place",
    "place_of",
    "plan",
    "Redo",
    "reparse",
    "state_of",
    "Table",
]
