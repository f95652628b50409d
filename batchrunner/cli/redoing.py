"""From a run and an expression to an invocation that buys the matching items again, for `redo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner import spec
from batchrunner.assemble import Redo, open_table, state_of
from batchrunner.cli.options import load_job, place_of
from batchrunner.cli.running import run_asked
from batchrunner.cli.targets import find_place
from batchrunner.errors import JobError, RunError
from batchrunner.report import matching

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.cli.notice import Notice
    from batchrunner.cli.targets import Found

SENT = "request."
NOT_AGAIN = (
    "limit", "fresh", "accept_change", "salvage", "overwrite", "skip_exit_code", "as_json", "quiet", "place",
)  # fmt: skip
"""Options of the run's last call that a redo does not take over."""


def redo(target: str, where: str, changes: tuple[str, ...], given: Mapping[str, Any], notice: Notice) -> int:
    """Buy again the items of TARGET for which `where` is true. Returns the exit code."""
    found = find_place(target, given)
    call_target, options = call_of(target, found, given)
    job = load_job(call_target, options)
    changed = dict(spec.parse_set(text) for text in changes)
    for key in changed:
        if not key.startswith(SENT):
            raise JobError(f"--set {key}: redo changes what is sent; expected a key of [request] such as request.model")
    table = open_table(found.directory)
    ids = [item_id for frame in matching(table.batches(), where) for item_id in frame["item_id"].to_list()]
    now = place_of(job, options)
    if now.address != found.address or (not now.address and now.directory.resolve() != found.directory.resolve()):
        raise RunError(f"{target}: its job now keeps its run in {now}; give that one")
    changed_job = load_job(call_target, options, changes=changed).job if changed else None
    return run_asked(
        job,
        call_target,
        options,
        notice,
        redo=Redo(ids=frozenset(ids), changed=changed_job, changes=", ".join(sorted(changed))),
    )


def call_of(target: str, found: Found, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The target and options that the run was last called with, with what this call gives on top."""
    if Path(target).is_file():
        return target, dict(given)
    call = state_of(found.directory).get("call")
    if not call or "target" not in call:
        raise RunError(f"{found}: its manifest does not say which job it is of; give the job file instead")
    kept = {name: value for name, value in call["given"].items() if name not in NOT_AGAIN}
    return call["target"], {
        **kept,
        **{name: value for name, value in given.items() if value},
        "place": str(found),
    }
