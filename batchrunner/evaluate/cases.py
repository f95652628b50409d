"""What is compared: the numbers of every item, by group and case. No texts, so that long runs fit into memory."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa

from batchrunner.errors import JobError
from batchrunner.schema import SENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_GROUPS = 50
NONE, EMPTY = "(none)", "(empty)"
"""What a group is called whose value is null, or no text."""
SCORE = "score:"
"""In front of a score's name, as a column of the items."""
_READ = (
    "row", "item_id", "case_id", "status", "origin", "attempts", "text", "refusal", "cost_usd", "latency_s",
    "prompt_tokens", "completion_tokens", "scores",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run's table: its name among those compared, and its rows in batches as `results.parquet` has them."""

    name: str
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Every item with an outcome: `run`, `row`, `group`, `case`, what it cost and took, a `score:NAME` for each score.

    Time, tokens and `sent` are those of what was sent, not of copies.
    """

    items: pl.DataFrame
    groups: Sequence[str]
    """Their names, in order of appearance; an item's `group` is a number of one."""
    scores: Sequence[str]
    by: str | None
    """The column that groups; None where the runs alone do."""
    unfinished: int
    """Items without an outcome, that are left out."""


@dataclass(slots=True, kw_only=True)
class _Groups:
    """The groups met so far, numbered."""

    by: str | None
    several: bool
    numbers: dict[tuple[int, str | None], int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def number(self, run: int, name: str, value: str | None) -> int:
        key = (run, value)
        if key not in self.numbers:
            if len(self.names) >= MOST_GROUPS:
                by = f"--by {self.by}: " if self.by else ""
                raise JobError(
                    f"{by}more than {MOST_GROUPS} groups; expected a column with few values, such as variant or model"
                )
            self.numbers[key] = len(self.names)
            self.names.append(self._free(self._name(name, value)))
        return self.numbers[key]

    def _name(self, run: str, value: str | None) -> str:
        if self.by is None:
            return run
        told = NONE if value is None else value or EMPTY
        return f"{run}/{told}" if self.several else told

    def _free(self, name: str) -> str:
        """The name, or one that can be told from it where another group is called so."""
        numbered = (f"{name} ({number})" for number in range(2, MOST_GROUPS + 2))
        return name if name not in self.names else next(each for each in numbered if each not in self.names)


def gather_cases(runs: Sequence[Run], by: str | None) -> Cases:
    """Read each run once. Groups are the values of the column `by`, or the runs, or both where there are several.

    A case is known by its `case_id`, else by its `item_id`. Raises JobError for a column that does not group.
    """
    if by is not None:
        for run in runs:
            _check(run, by)
    groups, frames, unfinished = _Groups(by=by, several=len(runs) > 1), [_empty()], 0
    for number, run in enumerate(runs):
        names = [name for name in dict.fromkeys([*_READ, by]) if name in run.schema.names]
        for batch in run.batches:
            frame = pl.from_arrow(batch.select(names))
            assert isinstance(frame, pl.DataFrame)
            settled = frame.filter(pl.col("status").is_not_null())
            unfinished += len(frame) - len(settled)
            if len(settled):
                frames.append(_numbers(settled, _grouped(settled, (number, run.name), groups), number))
    items = pl.concat(frames, how="diagonal")
    scores = [name.removeprefix(SCORE) for name in items.columns if name.startswith(SCORE)]
    return Cases(items=items, groups=groups.names, scores=scores, by=by, unfinished=unfinished)


def _check(run: Run, by: str) -> None:
    names = run.schema.names
    if by not in names:
        near = difflib.get_close_matches(by, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f" (found: {', '.join(names)})"
        raise JobError(f"--by {by}: {run.name} has no such column{hint}")
    kind = run.schema.field(by).type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise JobError(f"--by {by}: its values are {run.schema.field(by).type}; expected a column of single values")


def _grouped(frame: pl.DataFrame, run: tuple[int, str], groups: _Groups) -> pl.Series:
    """The number of each row's group."""
    if groups.by is None:
        return pl.repeat(groups.number(*run, None), len(frame), dtype=pl.UInt16, eager=True).alias("group")
    values = frame[groups.by].cast(pl.String, strict=False)
    numbers = {value: groups.number(*run, value) for value in values.unique(maintain_order=True)}
    none = numbers.pop(None, 0)
    if not numbers:
        return pl.repeat(none, len(frame), dtype=pl.UInt16, eager=True).alias("group")
    return values.replace_strict(numbers, default=none, return_dtype=pl.UInt16).alias("group")


def _numbers(frame: pl.DataFrame, group: pl.Series, run: int) -> pl.DataFrame:
    sent = pl.col("origin").fill_null("sent").is_in(SENT) & (pl.col("attempts").fill_null(0) > 0)
    item = pl.col("item_id").cast(pl.String)
    case = pl.coalesce(pl.col("case_id").cast(pl.String), item) if "case_id" in frame.columns else item
    tokens = pl.col("prompt_tokens") + pl.col("completion_tokens")
    said = pl.coalesce("text", "refusal")
    return frame.select(
        pl.lit(run, pl.UInt16).alias("run"),
        pl.col("row"),
        group,
        case.alias("case"),
        (pl.col("status") == "succeeded").alias("succeeded"),
        sent.alias("sent"),
        pl.col("cost_usd"),
        (sent & pl.col("cost_usd").is_null()).alias("unpriced"),
        pl.when(sent).then(tokens).alias("tokens"),
        pl.when(sent).then("latency_s").alias("latency_s"),
        pl.when(said.is_not_null()).then(said.hash(seed=0)).alias("said"),
        *_scores(frame.schema.get("scores")),
    )


def _scores(kind: pl.DataType | None) -> list[pl.Expr]:
    """The scores as numbers; what is no number counts as not scored."""
    if not isinstance(kind, pl.Struct):
        return []
    known = [each.name for each in kind.fields if each.dtype.is_numeric() or each.dtype == pl.Boolean]
    found = {name: pl.col("scores").struct.field(name).cast(pl.Float64) for name in known}
    return [pl.when(number.is_finite()).then(number).alias(f"{SCORE}{name}") for name, number in found.items()]


def _empty() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "run": pl.UInt16, "row": pl.Int64, "group": pl.UInt16, "case": pl.String, "succeeded": pl.Boolean,
            "sent": pl.Boolean, "cost_usd": pl.Float64, "unpriced": pl.Boolean, "tokens": pl.Int64,
            "latency_s": pl.Float64, "said": pl.UInt64,
        }
    )  # fmt: skip
