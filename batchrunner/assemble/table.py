"""The table of a run: today's input joined with its outcomes."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrunner import __version__, providers, sources, store, templates
from batchrunner.assemble.expecting import remembered
from batchrunner.assemble.places import copies_of
from batchrunner.assemble.prepare import options_of, with_matrix
from batchrunner.assemble.scoring import scorer_of
from batchrunner.assemble.selection import Selection
from batchrunner.errors import BadRow, JobError
from batchrunner.providers import conversation
from batchrunner.records import Endpoint
from batchrunner.schema import outcome_schema
from batchrunner.spec import ScoreSpec, StorageSpec, has_question, matrix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from batchrunner.assemble.prepare import Prepared
    from batchrunner.expect import Expectation
    from batchrunner.providers.base import Provider
    from batchrunner.scores import Scorer
    from batchrunner.spec import Matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Which input columns go into the results: all that are not set apart, or those named."""

    keep: list[str] | None
    apart: frozenset[str]
    has_turns: bool
    expectation: Expectation | None = None
    scorer: Scorer | None = None

    def schema(self, checked: sources.Checked) -> Any:
        """The carried columns alone."""
        return sources.kept_schema(checked, self._kept(checked), self._taken)

    def _kept(self, checked: sources.Checked) -> list[str]:
        """The carried columns as the input calls them, those too that scores look up."""
        kept = sources.kept_columns(checked, self.keep, apart=self.apart)
        return list(dict.fromkeys([*kept, *(self.scorer.reads if self.scorer else ())]))

    def results(self, checked: sources.Checked) -> Any:
        """The whole table's columns."""
        return store.result_schema(self.schema(checked), has_turns=self.has_turns, derived=self._derived)

    def layout(self, checked: sources.Checked) -> Any:
        """The same, with how those are made that come of the answers."""
        schema, steps = self.results(checked), [*self._steps(checked)]
        return store.Derived(schema=schema, steps=steps) if steps else schema

    def _steps(self, checked: sources.Checked) -> Iterator[Callable[[Any], Any]]:
        if self.expectation is not None:
            yield self.expectation.derived
        if self.scorer is not None:
            names = dict(zip(self._kept(checked), self.schema(checked).names, strict=True))
            as_json = frozenset(name for name, kind in checked.columns.items() if kind == "json")
            yield partial(self.scorer.derived, names=names, as_json=as_json)

    @property
    def _taken(self) -> list[str]:
        # Parts have `turns` always: an input's own is called otherwise whether its items have any or not.
        return [*outcome_schema(has_turns=True).names, *(column.name for column in self._derived)]

    @property
    def _derived(self) -> list[Any]:
        expected = [] if self.expectation is None else list(self.expectation.columns.values())
        return [*expected, *([] if self.scorer is None else [self.scorer.column])]

    def renamed(self, checked: sources.Checked) -> dict[str, str]:
        """Carried columns whose name the results have already, and what they are called there."""
        names = self._kept(checked)
        return {old: new for old, new in zip(names, self.schema(checked).names, strict=True) if old != new}

    def batches(
        self, source: sources.Input, checked: sources.Checked, *, selection: Selection | None = None
    ) -> Iterator[Any]:
        sharded = selection is not None and selection.shards > 1
        return sources.result_batches_input(
            source,
            checked,
            self._kept(checked),
            self._taken,
            shard=(selection.index, selection.shards) if selection is not None and sharded else None,
            stop=selection.stop if selection is not None else None,
        )


def carry(
    *,
    keep: list[str] | None,
    rows_are_data: bool,
    id_column: str | None,
    asker: templates.Asker,
    expectation: Expectation | None,
    scorer: Scorer | None,
    matrix: Matrix,
) -> Carry:
    """As the job says; else the id alone when rows are data, and all but request fields when rows are requests.

    With a matrix also who an item is in it.
    """
    if keep is None and rows_are_data:
        keep = [id_column] if id_column else []
    if keep is not None and matrix:
        keep = list(dict.fromkeys([*sources.CASE_COLUMNS, *keep]))
    return Carry(
        keep=keep,
        apart=asker.request_columns,
        has_turns=asker.has_turns,
        expectation=expectation,
        scorer=scorer,
    )


def carry_of(prepared: Prepared) -> Carry:
    job = prepared.ready.job
    keep = None if job.output.keep is None else list(job.output.keep)
    return carry(
        keep=keep,
        rows_are_data=job.rows_are_data,
        id_column=job.input.id,
        asker=prepared.asker,
        expectation=prepared.ready.expected.expectation,
        scorer=prepared.scorer,
        matrix=job.matrix,
    )


def publish_results(
    run: store.Run, prepared: Prepared, selection: Selection, *, overwrite: bool = False, anew: bool = False
) -> str:
    """Put results.parquet in place, unless the one that is there says the same already; give its place.

    Raises StoreError, and RunLocked where another process has the run on an object store.
    """
    if selection.shards == 1 and not run.ledger.unfinished:
        selection = Selection()  # Whatever was taken this time, the rest is there too.
    job, checked = prepared.ready.job, prepared.checked
    target, carried = run.directory / store.RESULTS, carry_of(prepared)
    marks = {
        "job": job.name,
        "version": __version__,
        "params": dict(job.params),
        "fingerprint": dict(prepared.fingerprint),
        "keep": carried.keep,
        "expect": prepared.ready.expected.told(),
        "scores": prepared.scorer.told() if prepared.scorer else None,
        "rows": selection.stop,
        "epoch": run.commit.epoch,
        "sequence": run.commit.folded_through,
    }
    if anew or not store.results_match(target, marks):
        view, count = run.view(), selection.count(checked)
        known = selection.shards == 1 and not len(carried.schema(checked)) and store.tell_all(view, count)
        store.build_results(
            view,
            count if known else carried.batches(prepared.ready.source, checked, selection=selection),
            target,
            schema=carried.layout(checked),
            metadata=marks,
            mode=job.output.mode,
            overwrite=overwrite,
        )
    return run.mirror.put_results() if run.mirror else str(target)


@dataclass(slots=True, kw_only=True)
class Table:
    """A run's table as it stands, for readers: live or dead, with kept columns where the input is still there."""

    view: store.View
    schema: Any
    warnings: tuple[str, ...] = ()
    remade: Remade | None = None
    made: Any = None
    """The results as they were made, where they cannot be made any more."""

    @property
    def variants(self) -> dict[str, dict[str, str]]:
        """Of a matrix, by the variant's name, which value of each field it has; none of other runs."""
        table = {} if self.remade is None else self.remade.manifest["job"].get("matrix")
        return matrix_of(table).choices if table else {}

    def batches(self) -> Iterator[Any]:
        """Arrow batches in input order. Rows without an outcome have null for it."""
        if self.made is not None:
            yield from self.made.iter_batches()
            return
        if self.remade is None:
            yield from self.view.outcomes()
            return
        with tempfile.TemporaryDirectory(prefix="batchrunner-") as scratch:
            layout = self.remade.carried.layout(self.remade.checked)
            yield from store.result_batches(self.view, self.remade.batches(), schema=layout, scratch=Path(scratch))

    @property
    def inputs(self) -> frozenset[Path]:
        """The files that the run reads."""
        return frozenset(file.path.resolve() for file in self.remade.source.parts) if self.remade else frozenset()

    def asked(self) -> Iterator[tuple[int, str, str]]:
        """Row by row in input order the path and the body that are sent; without rows that cannot be asked."""
        return iter(()) if self.remade is None else self.remade.asked()

    def sent(self, row: int) -> str | None:
        """The body that is sent for a row, made again from the input; None when it cannot be."""
        return self.sent_all([row]).get(row)

    def sent_all(self, rows: Collection[int]) -> dict[int, str]:
        """The same for several rows, in one pass over the input."""
        return {} if self.remade is None or not rows else self.remade.sent(rows)


@dataclass(slots=True, kw_only=True)
class Remade:
    """The input and the templates of a run, made again from what its manifest remembers."""

    manifest: Mapping[str, Any]
    source: sources.Input
    checked: sources.Checked
    asker: templates.Asker
    carried: Carry
    warnings: tuple[str, ...] = ()

    def batches(self) -> Iterator[Any]:
        taken = self.manifest.get("selection")
        selection = Selection(**taken) if taken else None
        return self.carried.batches(self.source, self.checked, selection=selection)

    def asked(self) -> Iterator[tuple[int, str, str]]:
        """The row, the path and the body of every request; the path from the server's root on, as batches have it."""
        provider, endpoint = self._dialect()
        root = urlsplit(endpoint.base_url).path.rstrip("/")
        for item in self.source.rows():
            try:
                request = conversation.build(provider, self.asker.ask(item.columns), endpoint)
            except BadRow:
                continue
            yield item.row, f"{root}{request.path}", request.body.decode()

    def _dialect(self) -> tuple[Provider, Endpoint]:
        job = self.manifest["job"]
        provider = providers.load(job["provider"]["kind"])
        base_url = provider.normalise(job["provider"].get("base_url") or provider.base_url or "http://127.0.0.1")
        return provider, Endpoint(base_url=base_url, options=options_of(job["provider"]))

    def sent(self, rows: Collection[int]) -> dict[int, str]:
        bodies: dict[int, str] = {}
        provider, endpoint = self._dialect()
        skip = bytearray(b"\1") * self.checked.rows
        for row in rows:
            skip[row] = 0
        for item in self.source.rows(skip=skip, stop=max(rows) + 1):
            try:
                ask = self.asker.ask(item.columns)
                bodies[item.row] = conversation.build(provider, ask, endpoint).body.decode()
            except BadRow as error:
                bodies[item.row] = f"nothing: {error}"
        return bodies


def open_table(directory: Path) -> Table:
    """The table of the run in `directory`. Raises RunError."""
    view = store.view_run(directory)
    manifest = store.read_manifest(directory / "run.json") or {}
    try:
        remade = remake(manifest, view)
    except (JobError, KeyError) as error:
        why = f"the input of this run cannot be read any more ({error})"
        made = store.current_results(view)
        if made is not None:
            warning = f"{why}; its results are read as they were made"
            return Table(view=view, schema=made.schema_arrow, made=made, warnings=(warning,))
        return Table(view=view, schema=store.OUTCOME, warnings=(f"{why}; its columns are left out",))
    schema = remade.carried.results(remade.checked)
    return Table(view=view, schema=schema, remade=remade, warnings=remade.warnings)


def remake(manifest: Mapping[str, Any], view: store.View) -> Remade:
    """Raises JobError or KeyError where the manifest, or the input it remembers, does not allow that."""
    if not manifest:
        raise JobError("its manifest is missing")
    job, known, base = manifest["job"], view.commit.input, Path(manifest["input"]["base"])
    id_column, only = job["input"].get("id"), job["input"].get("where")
    if job["input"]["path"] == "-":
        source = sources.open_spooled(view.directory / "stdin.jsonl", id_column=id_column, only=only)
    else:
        copies = copies_of(StorageSpec(**job.get("storage") or {}), os.environ)
        source = sources.open_input(job["input"]["path"], base=base, id_column=id_column, copies=copies, only=only)
    matrix = matrix_of(job.get("matrix") or {})
    source = with_matrix(source, matrix)
    if not _same_content(source.fingerprint(), known["fingerprint"]):
        raise JobError("it has changed since")
    checked = sources.Checked.from_json(known["checked"])
    source.learn(checked)
    wanted = remembered(manifest.get("expect"))
    asked = view.commit.asked
    plain = templates.compile_request(
        _as_asked(job["request"], "request", asked),
        params=job["params"],
        base=base,
        columns=checked.columns,
        matrix=matrix_of(_as_asked(job.get("matrix") or {}, "matrix", asked)),
    )
    asker = wanted.ask(plain)
    rows_are_data = has_question({*job["request"], *matrix.fields})
    scorer, lack = _scorer(manifest, base, checked)
    carried = carry(
        keep=job["output"].get("keep"),
        rows_are_data=rows_are_data,
        id_column=id_column,
        asker=asker,
        expectation=wanted.expectation,
        scorer=scorer,
        matrix=matrix,
    )
    return Remade(manifest=manifest, source=source, checked=checked, asker=asker, carried=carried, warnings=lack)


def _same_content(now: Mapping[str, Any], then: Mapping[str, Any]) -> bool:
    """A file that was touched or copied holds the same: for a reader its size and ends tell."""

    def told(found: Mapping[str, Any]) -> dict[str, Any]:
        files = [{key: value for key, value in file.items() if key != "mtime_ns"} for file in found["files"]]
        return {**found, "files": files}

    return now == then or told(now) == told(then)


def _as_asked(said: Any, at: str, asked: Mapping[str, Any]) -> Any:
    """The job's templates with the texts of their files as they were when it asked: the files may be others by now."""
    if isinstance(said, dict):
        return {name: _as_asked(inner, f"{at}.{name}", asked) for name, inner in said.items()}
    if isinstance(said, list):
        return [_as_asked(inner, f"{at}.{number}", asked) for number, inner in enumerate(said)]
    return asked.get(at, said) if isinstance(said, str) and said.startswith("file:") else said


def _scorer(manifest: Mapping[str, Any], base: Path, checked: sources.Checked) -> tuple[Scorer | None, tuple[str, ...]]:
    """The scores of a run, or why there are none: what they are made with may be gone, and the rest is still there."""
    job = manifest["job"]
    try:
        scorer = scorer_of(
            [ScoreSpec(**score) for score in job.get("score") or ()],
            params=job["params"],
            base=base,
            columns=checked.columns,
            simulate=bool((manifest.get("call") or {}).get("given", {}).get("simulate")),
        )
    except JobError as error:
        return None, (f"the scores of this run cannot be made any more ({error}); they are left out",)
    return scorer, ()
