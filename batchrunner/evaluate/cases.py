"""What is compared: the numbers of every item, by group and case. No texts, so that large runs fit."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from batchrunner.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

NONE = "(none)"
"""The group of items whose column is null."""
MOST_GROUPS = 50
SCORE = "score:"
"""In front of a score's name, as a column."""
NUMBERS = (
    "cost_usd", "latency_s", "prompt_tokens", "completion_tokens", "failed_prompt_tokens", "failed_completion_tokens",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run's table: `name` as it is called among others, and its rows in batches as `results.parquet` has them."""

    name: str
    columns: Sequence[str]
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """Every item that has an outcome: `run` (its number), `row`, `group`, `case`, what it scored, cost and took."""

    items: pl.DataFrame
    groups: Sequence[str]
    """In order of appearance."""
    scores: Sequence[str]
    paired: bool
    """Whether any case is in several groups."""
    by: str | None
    """The column that groups; None where the runs alone do."""


def gather_cases(runs: Sequence[Run], by: str | None) -> Cases:
    """Read the runs once. Groups are the values of `by`, or the runs where there are several, or both.

    A case is known by its `case_id`, else by its `item_id`. Raises JobError for a column that is not there.
    """
    for run in runs:
        if by is not None and by not in run.columns:
            near = difflib.get_close_matches(by, run.columns, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f" (found: {', '.join(run.columns)})"
            raise JobError(f"--by {by}: {run.name} has no such column{hint}")
    frames: list[pl.DataFrame] = []
    names: dict[str, None] = {}
    for number, run in enumerate(runs):
        alone = run.name if len(runs) > 1 else None
        for batch in run.batches:
            frame = _numbers(batch, number, by, alone)
            names |= dict.fromkeys(frame["group"].unique(maintain_order=True))
            if len(names) > MOST_GROUPS:
                raise JobError(
                    f"--by {by}: more than {MOST_GROUPS} groups; expected a column with few values, such as variant"
                )
            frames.append(frame)
    if not frames:
        raise JobError("nothing to compare: no item has an outcome yet")
    items = pl.concat(frames, how="diagonal")
    scores = [name.removeprefix(SCORE) for name in items.columns if name.startswith(SCORE)]
    paired = (items.group_by("case").agg(pl.col("group").n_unique())["group"] > 1).any()
    return Cases(items=items, groups=[*names], scores=scores, paired=paired, by=by)


def _numbers(batch: pa.RecordBatch, number: int, by: str | None, alone: str | None) -> pl.DataFrame:
    names = batch.schema.names
    wanted = ["row", "item_id", "status", "attempts", *NUMBERS]
    wanted += [name for name in ("case_id", "scores", "text", by) if name is not None and name in names]
    frame = pl.from_arrow(batch.select(list(dict.fromkeys(wanted))))
    assert isinstance(frame, pl.DataFrame)
    frame = frame.filter(pl.col("status").is_not_null())
    label = pl.lit(alone or "") if by is None else pl.col(by).cast(pl.String, strict=False).fill_null(NONE)
    if by is not None and alone is not None:
        label = pl.format("{} {}", pl.lit(alone), label)
    case = pl.coalesce("case_id", "item_id") if "case_id" in names else pl.col("item_id")
    scores = frame.select(pl.col("scores").struct.unnest()) if "scores" in names else pl.DataFrame()
    return frame.select(
        pl.lit(number).alias("run"),
        pl.col("row"),
        label.alias("group"),
        case.cast(pl.String).alias("case"),
        (pl.col("status") == "succeeded").alias("succeeded"),
        (pl.col("cost_usd").is_null() & (pl.col("attempts") > 0)).alias("unpriced"),
        pl.col("text").hash(seed=0).alias("said") if "text" in names else pl.lit(None, pl.UInt64).alias("said"),
        *(pl.col(name) for name in NUMBERS),
        *(scores[name].alias(f"{SCORE}{name}") for name in scores.columns),
    )
