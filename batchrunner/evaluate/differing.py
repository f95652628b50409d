"""The cases that groups do not agree on: in their scores, or where there are none in outcomes and answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from batchrunner.evaluate.cases import SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchrunner.evaluate.cases import Cases

TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A case in one group: how many items it has there, and where the first of them is."""

    group: str
    scores: Mapping[str, float | None]
    items: int
    succeeded: int
    run: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    case: str
    score: str | None
    """The one that is furthest apart; None where there are no scores."""
    answers_differ: bool
    seen: Sequence[Seen]
    """In each group that has it, the baseline first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    count: int
    shown: Sequence[Differing]


def differing(folded: pl.DataFrame, cases: Cases, order: Sequence[int], *, most: int) -> Found:
    """The cases that differ, the furthest apart first, then by their id; the first `most` of them in full."""
    apart = _spreads(folded, cases.scores) if cases.scores else _kinds(folded)
    ranked = apart.filter(pl.col("most") > TIE).sort("most", "case", descending=[True, False])
    chosen = ranked.head(most)
    rows = folded.join(chosen.select("case"), on="case", how="semi")
    seen: dict[str, dict[int, Seen]] = {}
    for row in rows.iter_rows(named=True):
        seen.setdefault(row["case"], {})[row["group"]] = _seen(row, cases)
    shown = [
        Differing(
            case=row["case"],
            score=row["score"],
            answers_differ=row["answers"],
            seen=[seen[row["case"]][number] for number in order if number in seen[row["case"]]],
        )
        for row in chosen.iter_rows(named=True)
    ]
    return Found(count=len(ranked), shown=shown)


def _answers() -> pl.Expr:
    """Whether groups that answered have said something else, whichever repeat said it."""
    return (pl.col("said").filter(pl.col("said").list.len() > 0).n_unique() > 1).alias("answers")


def _spreads(folded: pl.DataFrame, scores: Sequence[str]) -> pl.DataFrame:
    """How far groups are apart in each case, by the score where they are furthest; of one that spans more than 1 as a
    share of its range."""
    names = [f"{SCORE}{name}" for name in scores]
    ranges = folded.select((pl.col(name).max() - pl.col(name).min()).alias(name) for name in names).row(0, named=True)
    spreads = [
        ((pl.col(name).max() - pl.col(name).min()) / max(ranges[name] or 0.0, 1.0)).alias(name) for name in names
    ]
    found = folded.group_by("case").agg(_answers(), *spreads).with_columns(pl.col(names).fill_null(0.0))
    widest = pl.concat_list(names).list
    named = pl.lit(pl.Series(scores)).gather(widest.arg_max())
    return found.select("case", "answers", widest.max().alias("most"), named.alias("score"))


def _kinds(folded: pl.DataFrame) -> pl.DataFrame:
    """Cases with another share of successes in another group first, then those with other answers."""
    share = pl.col("succeeded") / pl.col("items")
    found = folded.group_by("case").agg(_answers(), (share.max() - share.min()).alias("outcomes"))
    most = pl.when(pl.col("outcomes") > TIE).then(1 + pl.col("outcomes")).otherwise(pl.col("answers").cast(pl.Float64))
    return found.select("case", "answers", most.alias("most"), pl.lit(None, pl.String).alias("score"))


def _seen(row: Mapping[str, Any], cases: Cases) -> Seen:
    return Seen(
        group=cases.groups[row["group"]],
        scores={name: row[f"{SCORE}{name}"] for name in cases.scores},
        items=row["items"],
        succeeded=row["succeeded"],
        run=row["first"]["run"],
        row=row["first"]["row"],
    )
