"""The column `scores`: a number for each score of the job, for every item that succeeded."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from batchrunner.errors import BadRow, JobError
from batchrunner.expect import imported
from batchrunner.scores.measures import MEASURES, NOTHING, numeric, part, regex
from batchrunner.templates import compile_values

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime
    from pathlib import Path

    from batchrunner.spec import ScoreSpec

SCORES = "scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge said of an answer, and of when the answers are that it looked at: of later ones it said nothing."""

    value: float
    as_of: datetime


Judgements = Mapping[str, Sequence[Judgement]]
"""By item id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """The scores of a job."""

    specs: Sequence[ScoreSpec]
    expected: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    """By the score's name what a row expects."""
    reads: Sequence[str]
    """Columns of the input that this looks up."""
    functions: Mapping[str, Callable[[dict[str, Any]], object]]
    judge: Callable[[str], Judgements]
    """What a score's judge says, by the score's name; read when first asked."""
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)
    """By score how often none could be made, in this process so far, and why first."""
    matched: set[str] = field(default_factory=set)
    """Scores whose judge knew any of the items; and `scores` once any item was looked at."""

    def told(self) -> list[dict[str, Any]]:
        """What the scores were made of; another one when judges have said more."""
        return [{**spec.model_dump(mode="json", exclude_none=True), **self._judged(spec)} for spec in self.specs]

    def _judged(self, spec: ScoreSpec) -> dict[str, Any]:
        if spec.kind != "judge":
            return {}
        said = sorted(
            (item, each.value, str(each.as_of)) for item, found in self.judge(spec.name).items() for each in found
        )
        return {"judged": len(said), "digest": blake2b(orjson.dumps(said), digest_size=8).hexdigest()}

    def notes(self) -> Iterator[str]:
        """What a person should know once the column is made."""
        for spec in self.specs:
            if spec.kind == "judge" and not self.judge(spec.name):
                what = f"a number at {spec.field!r}" if spec.field else "a single number"
                yield (
                    f"score {spec.name}: {spec.run} has no answer with {what} yet, or cannot be read; run the judge's "
                    "job, then reparse this one"
                )
            elif spec.kind == "judge" and spec.name not in self.matched and SCORES in self.matched:
                yield f"score {spec.name}: {spec.run} has judged none of these items; its input.id has to be item_id"
            faults = self.faults.get(spec.name)
            if faults and spec.kind == "judge":
                yield (
                    f"score {spec.name}: {faults[0]:,} answers are newer than their grades, the first {faults[1]}; "
                    "run the judge's job, then reparse this one"
                )
            elif faults:
                how = f"{spec.function} gave none" if spec.function else "could not be made"
                yield f"score {spec.name}: {how} for {faults[0]:,} items, the first {faults[1]}"

    @property
    def column(self) -> pa.Field:
        return pa.field(SCORES, pa.struct([pa.field(spec.name, pa.float64()) for spec in self.specs]))

    def derived(self, batch: pa.RecordBatch, names: Mapping[str, str], as_json: frozenset[str]) -> pa.RecordBatch:
        """Results with the column in them. `names` says what the input's columns are called there; those of `as_json`
        hold values that are written as JSON."""
        # A function may want any column; the texts of all of them are a lot to hold.
        needed = ["item_id", "status", "text", "finished_at", *(names[name] for name in self.reads)]
        looked_at = batch if self.functions else batch.select([name for name in needed if name in batch.schema.names])
        rows = [row if row["status"] == "succeeded" else None for row in looked_at.to_pylist()]
        wanted = [None if row is None else self._expected(row, names, as_json) for row in rows]
        found = {spec.name: self._scores(spec, rows, wanted) for spec in self.specs}
        arrays = [pa.array(values, pa.float64()) for values in found.values()]
        column = pa.StructArray.from_arrays(arrays, fields=[*self.column.type])
        return pa.RecordBatch.from_arrays([*batch.columns, column], [*batch.schema.names, SCORES])

    def _expected(self, row: Mapping[str, Any], names: Mapping[str, str], as_json: frozenset[str]) -> Mapping[str, Any]:
        columns = {name: row[names[name]] for name in self.reads}
        for name in as_json & columns.keys():
            columns[name] = None if columns[name] is None else orjson.loads(columns[name])
        expected = dict(self.expected(columns))
        for name, value in expected.items():
            if isinstance(value, BadRow):
                self._note(name, row, str(value))
                expected[name] = None
        return expected

    def _scores(
        self, spec: ScoreSpec, rows: Sequence[dict[str, Any] | None], wanted: Sequence[Mapping[str, Any] | None]
    ) -> list[float | None]:
        if spec.kind == "judge":
            judged = self.judge(spec.name)
            known = [row["item_id"] for row in rows if row is not None]
            self.matched.update([SCORES] if known else [], () if judged.keys().isdisjoint(known) else [spec.name])
            return [
                None if row is None else self._judged_of(spec.name, row, judged.get(row["item_id"], ())) for row in rows
            ]
        if spec.kind == "python":
            return [None if row is None else self._called(spec.name, row) for row in rows]
        said = [None if row is None else part(row["text"] or "", spec.field) for row in rows]
        if spec.kind == "regex":
            return _by_pattern(spec, said, wanted)
        measure = MEASURES[spec.kind]
        scores: list[float | None] = []
        for row, value, expected in zip(rows, said, wanted, strict=True):
            if row is None or expected is None or not _is_known(expected[spec.name]):
                scores.append(None)
                continue
            scores.append(measure(value, expected[spec.name], spec))
            if spec.kind == "number" and scores[-1] is None:
                self._note(spec.name, row, f"expected is no number: {expected[spec.name]!s:.60}")
        return scores

    def _judged_of(self, name: str, row: Mapping[str, Any], said: Sequence[Judgement]) -> float | None:
        """The mean of what was said of this answer; of one that came later nothing was."""
        answered_at = row.get("finished_at")
        values = [each.value for each in said if answered_at is None or each.as_of >= answered_at]
        if said and not values:
            count, first = self.faults.get(name, (0, str(row["item_id"])))
            self.faults[name] = (count + 1, first)
        return sum(values) / len(values) if values else None

    def _called(self, name: str, row: dict[str, Any]) -> float | None:
        """What the user's function says of a row; nothing where it raises, which must not cost the results.

        It gets a row of its own, and what it prints goes where messages go.
        """
        try:
            with redirect_stdout(sys.stderr):
                found = self.functions[name](dict(row))
            score = None if found is None or isinstance(found, str) else numeric(found)
            said = (
                None if found is None or score is not None else f"gave {found!s:.60}, expected a number, true or false"
            )
        except (Exception, SystemExit) as error:
            score, said = None, f"{type(error).__name__}: {error!s:.200}"
        if said is not None:
            self._note(name, row, said)
        return score

    def _note(self, name: str, row: Mapping[str, Any], said: str) -> None:
        count, first = self.faults.get(name, (0, f"{row['item_id']}: {said}"))
        self.faults[name] = (count + 1, first)


def _is_known(expected: Any) -> bool:
    return expected is not None and expected != [] and not (isinstance(expected, str) and not expected.strip())


def _by_pattern(spec: ScoreSpec, said: Sequence[Any], wanted: Sequence[Mapping[str, Any] | None]) -> list[float | None]:
    texts = [None if value is None else "" if value is NOTHING else str(value) for value in said]
    scores: list[float | None] = []
    for text, found, expected in zip(texts, regex(texts, spec), wanted, strict=True):
        if text is None or expected is None:
            scores.append(None)
        elif spec.expected is None:
            scores.append(float(found is not None))
        elif _is_known(expected[spec.name]):
            scores.append(0.0 if found is None else MEASURES["exact"](found, expected[spec.name], spec))
        else:
            scores.append(None)
    return scores


def compile_scores(
    specs: Sequence[ScoreSpec],
    *,
    params: Mapping[str, str],
    base: Path,
    columns: Sequence[str],
    judge: Callable[[str], Judgements],
) -> Scorer | None:
    """The scorer of rows with these columns, None of a job without scores. Raises JobError with every fault found."""
    if not specs:
        return None
    faults: list[str] = []
    functions: dict[str, Callable[[dict[str, Any]], object]] = {}
    fresh: set[str] = set()
    for spec in specs:
        try:
            if spec.kind == "regex":
                regex([""], spec)
            _refuse_name(spec, columns)
            if spec.function is not None:
                functions[spec.name] = _function(spec, base, fresh)
        except JobError as error:
            faults += error.faults
    values = {spec.name: spec.expected for spec in specs}
    try:
        expected, reads = compile_values(values, section="score", params=params, base=base, columns=columns)
    except JobError as error:
        raise JobError(*faults, *error.faults) from error
    if faults:
        raise JobError(*faults)
    return Scorer(specs=specs, expected=expected, reads=reads, functions=functions, judge=judge)


def _refuse_name(spec: ScoreSpec, columns: Collection[str]) -> None:
    """A column's name where its value is meant would score wrongly without a word."""
    if isinstance(spec.expected, str) and spec.expected in columns:
        name = spec.expected
        raise JobError(
            f"score.{spec.name}.expected: {name!r} is a column; write '{{{{ {name} }}}}' for its value, or "
            f"\"{{{{ '{name}' }}}}\" for that word"
        )


def _function(spec: ScoreSpec, base: Path, fresh: set[str]) -> Callable[[dict[str, Any]], object]:
    found = imported(spec.function or "", base, at=f"score.{spec.name}.function", what="a function", fresh=fresh)
    if not callable(found):
        raise JobError(f"score.{spec.name}.function: {spec.function}: expected a function, got {type(found).__name__}")
    return found  # type: ignore[no-any-return]
