"""What a run has come to: its outcomes, folded table by table in constant space."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batchrunner.report.spread import Spread
from batchrunner.report.timeline import Settled
from batchrunner.schema import SENT

if TYPE_CHECKING:
    import pyarrow as pa

TOKENS = (
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "failed_prompt_tokens",
    "failed_completion_tokens",
)
COLUMNS = (
    "item_id", "row", "status", "model", "finish_reason", "origin", "cost_usd", "attempts",
    "http_status", "error_type", "error", "started_at", "finished_at", "latency_s", "first_token_s", *TOKENS,
)  # fmt: skip
"""What is read of every outcome; texts only of the few that are shown."""
SLOWEST, SAMPLES, SAMPLED_TYPES = 10, 2, 8
MOST_KINDS = 1_000
"""Different models, or ways to finish: further ones are counted together."""
OTHER = "(others)"


@dataclass(slots=True, kw_only=True)
class Cause:
    """The failed items of one error type."""

    status: str
    error_type: str
    items: int = 0
    first_row: int = -1
    first_id: str = ""
    first_error: str = ""
    http: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True, kw_only=True)
class Sums:
    """What some outcomes used. A cost counts where it is known; `unpriced` is how many went out at an unknown one."""

    items: int = 0
    succeeded: int = 0
    attempts: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    unpriced: int = 0
    latency: Spread = field(default_factory=Spread)

    @property
    def known_cost_usd(self) -> float | None:
        return None if self.unpriced else self.cost_usd

    def add(self, frame: pl.DataFrame) -> None:
        self.items += len(frame)
        good = frame.filter(pl.col("status") == "succeeded")
        self.succeeded += len(good)
        self.latency.add(good["latency_s"])
        sums = frame.select(pl.col("attempts", "cost_usd", *TOKENS).sum()).row(0, named=True)
        self.attempts += sums["attempts"]
        self.cost_usd += sums["cost_usd"]
        self.tokens.update({name: sums[name] for name in TOKENS})
        self.unpriced += frame.select((pl.col("cost_usd").is_null() & (pl.col("attempts") > 0)).sum()).item()


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """An item that is shown by name. `source` numbers the table it came in, where its texts are."""

    item_id: str
    row: int
    source: int
    status: str
    seconds: float | None
    """From its first preparation to its outcome, waits included."""
    latency_s: float | None
    attempts: int
    model: str | None
    error_type: str | None
    error: str | None
    http_status: int | None


class Figures:
    """The sums, spreads and examples of a run's current outcomes. `by` names the column that groups them."""

    def __init__(self, *, by: str = "model") -> None:
        self.by = by
        self.all = Sums()
        self.groups: dict[str, Sums] = {}
        self.statuses: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.finishes: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.causes: dict[tuple[str, str], Cause] = {}
        self.first_token = Spread()
        self.settled = Settled()
        self.slowest: list[Shown] = []
        self.failed: dict[tuple[str, str], list[Shown]] = {}

    @property
    def latency(self) -> Spread:
        return self.all.latency

    def add(self, table: pa.Table, source: int) -> None:
        """Take in outcomes with at least `COLUMNS` and the grouping one."""
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        frame = _bought(frame.filter(pl.col("status").is_not_null()))
        if not len(frame):
            return
        self.all.add(frame)
        self._count(frame)
        for (name,), group in frame.group_by(self.by):
            self._group(str(name) if name is not None else "").add(group)
        used = pl.sum_horizontal(*(name for name in TOKENS if name.startswith(("p", "co", "failed"))))
        sent = frame.filter(pl.col("attempts") > 0)
        self.settled.add(sent.select("finished_at", "attempts", used.alias("tokens")))
        self.first_token.add(frame.filter(pl.col("status") == "succeeded")["first_token_s"])
        failed = frame.filter(pl.col("status") != "succeeded")
        if len(failed):
            self._fail(failed, source)
        self._slow(frame, source)

    def _group(self, name: str) -> Sums:
        if name not in self.groups and len(self.groups) >= MOST_KINDS:
            name = OTHER
        return self.groups.setdefault(name, Sums())

    def _count(self, frame: pl.DataFrame) -> None:
        for name, counter in (("status", self.statuses), ("origin", self.origins), ("finish_reason", self.finishes)):
            for value, number in frame[name].drop_nulls().value_counts().iter_rows():
                counter[value if value in counter or len(counter) < MOST_KINDS else OTHER] += number
        self.attempts.update(dict(frame["attempts"].value_counts().iter_rows()))

    def _fail(self, frame: pl.DataFrame, source: int) -> None:
        for (status, kind), group in frame.sort("row").group_by("status", "error_type", maintain_order=True):
            key = str(status), str(kind or "unknown")
            cause = self.causes.setdefault(key, Cause(status=key[0], error_type=key[1]))
            cause.items += len(group)
            cause.http.update(dict(group["http_status"].drop_nulls().value_counts().iter_rows()))
            first = group.row(0, named=True)
            if cause.first_row < 0 or first["row"] < cause.first_row:
                cause.first_row, cause.first_id = first["row"], first["item_id"]
                cause.first_error = first["error"] or ""
            samples = self.failed.setdefault(key, [])
            samples += [_shown(row, source) for row in group.head(SAMPLES).iter_rows(named=True)]
            samples.sort(key=lambda item: item.row)
            del samples[SAMPLES:]

    def _slow(self, frame: pl.DataFrame, source: int) -> None:
        took = (pl.col("finished_at") - pl.col("started_at")).dt.total_microseconds()
        slow = frame.filter(pl.col("attempts") > 0).with_columns(took.alias("took")).drop_nulls("took")
        rows = slow.top_k(SLOWEST, by="took").iter_rows(named=True)
        self.slowest += [_shown(row, source) for row in rows]
        self.slowest.sort(key=lambda item: -(item.seconds or 0))
        del self.slowest[SLOWEST:]

    @property
    def commonest(self) -> list[Cause]:
        """The causes of failure, the commonest first."""
        return sorted(self.causes.values(), key=lambda cause: (-cause.items, cause.first_row))

    def samples(self) -> list[Shown]:
        """A few failed items of each of the commonest causes."""
        commonest = self.commonest[:SAMPLED_TYPES]
        return [item for cause in commonest for item in self.failed[cause.status, cause.error_type]]


def _bought(frame: pl.DataFrame) -> pl.DataFrame:
    """The outcomes, copies of others among them without what was spent, and when, on their source."""
    spent = pl.col("attempts", "started_at", "finished_at", "latency_s", "first_token_s", *TOKENS)
    sent = pl.col("origin").fill_null("sent").is_in(SENT)
    return frame.with_columns(pl.when(sent).then(spent).name.keep()).with_columns(pl.col("attempts").fill_null(0))


def _shown(row: dict[str, Any], source: int) -> Shown:
    began, ended = row["started_at"], row["finished_at"]
    names = ("item_id", "row", "status", "latency_s", "attempts", "model", "error_type", "error", "http_status")
    seconds = (ended - began).total_seconds() if began and ended else None
    return Shown(source=source, seconds=seconds, **{name: row[name] for name in names})
