"""The run directory: what was paid for, kept so that no kill, crash or full disk loses or doubles it.

`open_run` takes hold of a run, `Writer` records outcomes in it, `view_run` reads one without holding it.
"""

from __future__ import annotations

from batchrunner.schema import OUTCOME
from batchrunner.store.checking import Report, check_run
from batchrunner.store.claim import Claim as RunClaim
from batchrunner.store.cleaning import Cleaned, clean
from batchrunner.store.commits import Commit
from batchrunner.store.conversations import begun
from batchrunner.store.copying import Open, Wanted, answers, copies, copy_for, count_copies, verdict_revised
from batchrunner.store.ledger import FAILED, Ledger
from batchrunner.store.lock import lock_is_held
from batchrunner.store.manifest import read_manifest, write_manifest
from batchrunner.store.matching import Keys, Matches, carried_ledger, match, outcome_index
from batchrunner.store.merging import merge_shards
from batchrunner.store.mirror import Mirror
from batchrunner.store.opening import open_run
from batchrunner.store.patience import Patience
from batchrunner.store.places import doubts, lock_path, unsure_file_system
from batchrunner.store.results import (
    RESULTS,
    Derived,
    build_results,
    check_target,
    current_results,
    read_frames,
    result_batches,
    result_schema,
    results_match,
    same_owner,
    tell_all,
)
from batchrunner.store.run import Epoch, Recovered, Run, entry
from batchrunner.store.settled import Spent, spent_on
from batchrunner.store.shards import ShardRun, open_shards, shard_folders
from batchrunner.store.spending import Failure, Quantiles, Totals, totals
from batchrunner.store.view import View, view_run
from batchrunner.store.writer import Writer

__all__ = [
    "answers",
    "Cleaned",
    "Commit",
    "Derived",
    "Epoch",
    "FAILED",
    "Failure",
    "Keys",
    "Ledger",
    "Matches",
    "Mirror",
    "Open",
    "OUTCOME",
    "Patience",
    "Quantiles",
    "RESULTS",
    "Recovered",
    "Report",
    "Run",
    "RunClaim",
    "Totals",
    "View",
    "Wanted",
    "Writer",
    "begun",
    "build_results",
    "carried_ledger",
    "check_run",
    "clean",
    "copies",
    "copy_for",
    "count_copies",
    "check_target",
    "current_results",
    "doubts",
    "entry",
    "lock_is_held",
    "lock_path",
    "match",
    "merge_shards",
    "open_shards",
    "shard_folders",
    "ShardRun",
    "Spent",
    "open_run",
    "outcome_index",
    "read_frames",
    "read_manifest",
    "result_batches",
    "result_schema",
    "same_owner",
    "spent_on",
    "tell_all",
    "results_match",
    "totals",
    "unsure_file_system",
    "verdict_revised",
    "view_run",
    "write_manifest",
]
