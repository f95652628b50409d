"""Cleaning a run: what the store cannot know is looked up in the input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batchrunner.assemble.places import mirror_of
from batchrunner.assemble.table import remake
from batchrunner.errors import JobError, RunError
from batchrunner.store import clean, open_run, read_manifest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from batchrunner.assemble.places import Place
    from batchrunner.spec import StorageSpec
    from batchrunner.store import Cleaned


def clean_run(
    place: Place, *, storage: StorageSpec, environ: Mapping[str, str], drop_responses: bool
) -> tuple[Cleaned, tuple[str, ...]]:
    """Drop what no longer counts in a run; give what was dropped, and what its owner should know.

    Raises RunError, RunLocked, StoreError.
    """
    directory, mirror = place.directory, mirror_of(place, storage, environ)
    manifest = read_manifest(directory / "run.json") or {}
    mode = (manifest.get("job") or {}).get("output", {}).get("mode", "0640")
    with open_run(directory, create=False, mode=int(mode, 8), mirror=mirror) as run:
        manifest = read_manifest(directory / "run.json") or {}
        view, trouble = run.view(), ""
        try:
            source = remake(manifest, view).source
        except (JobError, KeyError) as error:
            source = None
            trouble = (
                f"the input cannot be looked at ({error}): what rows left it since the last run is not known, and "
                "theirs is kept; give the run's command once, then clean again"
            )

        def rows_of(item_ids: Collection[str]) -> dict[str, int]:
            if source is None:
                raise RunError(f"{place} has conversations that may go on, and {trouble}")
            wanted = set(item_ids)
            return {item.item_id: item.row for item in source.rows() if item.item_id in wanted}

        return clean(run, rows_of, drop_responses=drop_responses), (trouble,) if trouble else ()
