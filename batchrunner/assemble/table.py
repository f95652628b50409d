"""The table of a run: today's input joined with its outcomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchrunner import __version__, providers, sources, store, templates
from batchrunner.errors import BadRow, JobError
from batchrunner.records import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from batchrunner.assemble.prepare import Prepared
    from batchrunner.assemble.selection import Selection

RESULTS = "results.parquet"


def publish_results(run: store.Run, prepared: Prepared, selection: Selection) -> Path:
    """Put results.parquet in place, unless the one that is there says the same already. Raises StoreError."""
    job, source, checked = prepared.ready.job, prepared.ready.source, prepared.checked
    target = run.directory / RESULTS
    keep = kept_columns(job, prepared)
    metadata = {
        "job": job.name,
        "version": __version__,
        "params": dict(job.params),
        "fingerprint": dict(prepared.fingerprint),
        "keep": keep,
        "rows": selection.stop,
        "run_id": run.run_id,
        "epoch": run.commit.epoch,
        "sequence": run.commit.folded_through,
    }
    kept = sources.kept_schema(checked, keep, prepared.asker.request_columns)
    if not store.results_match(target, metadata):
        batches = sources.input_batches(source, checked, kept, takes=selection.takes, stop=selection.stop)
        store.build_results(run.view(), batches, target, kept=kept.schema, metadata=metadata, mode=job.output.mode)
    return target


def kept_columns(job: Any, prepared: Prepared) -> list[str] | None:
    """The input columns to carry: as the job says; else the id alone when rows are data, and what is no request field."""
    if job.output.keep is not None:
        return list(job.output.keep)
    if not job.rows_are_data:
        return None
    name = job.input.id
    return [name] if name else []


@dataclass(slots=True, kw_only=True)
class Table:
    """A run's table as it stands, for readers: live or dead, with kept columns where the input is still there."""

    view: store.View
    schema: Any
    warnings: tuple[str, ...] = ()
    remade: Remade | None = None
    _rows: dict[int, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[Any]:
        """Arrow batches in input order. Rows without an outcome have null for it."""
        if self.remade is None:
            yield from self.view.outcomes()
            return
        yield from store.result_batches(self.view, self.remade.batches(), kept=self.remade.kept.schema)

    def sent(self, row: int) -> str | None:
        """The body that is sent for a row, made again from the input; None when it cannot be."""
        return None if self.remade is None else self.remade.sent(row)


@dataclass(slots=True, kw_only=True)
class Remade:
    """The input and the templates of a run, made again from what its manifest remembers."""

    manifest: Mapping[str, Any]
    source: sources.Input
    checked: sources.Checked
    asker: templates.Asker
    kept: Any

    def batches(self) -> Iterator[Any]:
        return sources.input_batches(self.source, self.checked, self.kept)

    def sent(self, row: int) -> str | None:
        job = self.manifest["job"]
        provider = providers.load(job["provider"]["kind"])
        skip = bytearray(b"\1") * self.checked.rows
        skip[row] = 0
        base_url = provider.normalise(job["provider"].get("base_url") or provider.base_url or "http://127.0.0.1")
        for item in self.source.rows(skip=skip, stop=row + 1):
            try:
                ask = self.asker.ask(item.columns)
                return provider.build(ask, Endpoint(base_url=base_url)).body.decode()
            except BadRow as error:
                return f"nothing: {error}"
        return None


def open_table(directory: Path) -> Table:
    """The table of the run in `directory`. Raises RunError."""
    view = store.view_run(directory)
    manifest = store.read_manifest(directory / "run.json") or {}
    try:
        remade = _remake(manifest, view)
    except (JobError, KeyError) as error:
        warning = f"the input of this run cannot be read any more ({error}); its columns are left out"
        return Table(view=view, schema=store.OUTCOME, warnings=(warning,))
    return Table(view=view, schema=store.result_schema(remade.kept.schema), remade=remade)


def _remake(manifest: Mapping[str, Any], view: store.View) -> Remade:
    if not manifest:
        raise JobError("its manifest is missing")
    job, known, base = manifest["job"], view.commit.input, Path(manifest["input"]["base"])
    path = job["input"]["path"]
    path = str(view.directory.resolve() / "stdin.jsonl") if path == "-" else path
    source = sources.open_input(path, base=base, id_column=job["input"].get("id"))
    if source.fingerprint() != known["fingerprint"]:
        raise JobError("it has changed since")
    checked = sources.Checked.from_json(known["checked"])
    source.learn(checked)
    asker = templates.compile_request(job["request"], params=job["params"], base=base, columns=checked.columns)
    keep = job["output"].get("keep")
    if keep is None and ("prompt" in job["request"] or "messages" in job["request"]):
        keep = [job["input"]["id"]] if job["input"].get("id") else []
    kept = sources.kept_schema(checked, keep, asker.request_columns)
    return Remade(manifest=manifest, source=source, checked=checked, asker=asker, kept=kept)
