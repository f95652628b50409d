"""Makes sample_data/ from the texts in sample_texts/: `python jobs/make_sample_data.py [DIRECTORY]`.

The same texts give the same rows on every machine: chance comes from `random.Random.random` alone, whose sequence
Python promises to keep.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

T = TypeVar("T")

HERE = Path(__file__).parent
SEED = 20261120
TICKETS = 1000
DAY = datetime(2026, 11, 20, tzinfo=UTC)
AGENTS = {"classification": 8795, "extraction": 8795, "coding": 8801}
GENERAL_AGENT = 8794
CITIES = (("Porto", 1), ("Recife", 1), ("Lyon", 1), ("Osaka", 1), ("Mombasa", 2), ("Leipzig", 1), ("Haifa", 1))
TIERS = (("free", 30), ("pro", 40), ("business", 22), ("enterprise", 8))
PRIORITIES = ((None, 30), ("low", 15), ("normal", 35), ("high", 15), ("urgent", 5))
SENTENCES = ((1, 10), (2, 20), (3, 28), (4, 22), (5, 12), (6, 8))
ATTACHMENTS = ((0, 70), (1, 20), (2, 7), (5, 3))
SUBJECT_STYLES: Sequence[tuple[Callable[[str], str], int]] = (
    (str, 80),
    ("Re: {}".format, 8),
    ("Fwd: {}".format, 4),
    (str.lower, 5),
    ("{} !!".format, 3),
)
BODY_STYLES: Sequence[tuple[Callable[[str], str], int]] = (
    (str, 86),
    (lambda text: "<p>" + text.replace("\n\n", "</p><p>").replace("\n", "<br>") + "</p>", 6),
    (lambda text: text.replace("\n", "\r\n"), 4),
    (lambda text: f"{text}\n\n> On Nov 18, 2026, support@atlas.example wrote:\n> Did this solve your problem?", 4),
)

PROMPTS = pa.schema(
    [
        ("id", pa.string()),
        ("agent_id", pa.int64()),
        ("language", pa.string()),
        ("topic", pa.string()),
        ("system", pa.string()),
        ("prompt", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("temperature", pa.float64()),
        ("expected", pa.string()),
    ]
)
SUPPORT_TICKETS = pa.schema(
    [
        ("ticket_id", pa.string()),
        ("created_at", pa.timestamp("us", tz="UTC")),
        ("customer_tier", pa.string()),
        ("language", pa.string()),
        ("subject", pa.string()),
        ("body", pa.string()),
        ("product", pa.string()),
        ("attachments", pa.int32()),
        ("priority", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Chance:
    """Choices that repeat."""

    random: Random

    def below(self, end: int) -> int:
        return int(self.random.random() * end)

    def one(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """Up to `count` different options, in their own order."""
        drawn = sorted(range(len(options)), key=lambda _: self.random.random())[:count]
        return [options[index] for index in sorted(drawn)]

    def weighted(self, options: Sequence[tuple[T, int]]) -> T:
        return self.one([option for option, weight in options for _ in range(weight)])


def prompts(chance: Chance) -> list[dict[str, Any]]:
    """Fifty requests, most of them ordinary and some odd, without the keys that they do not need."""
    rows = []
    for number, text in enumerate(texts("prompts"), start=1):
        filled = with_deliveries(text, chance) if text["topic"] == "long input" else text
        row = {"id": f"p{number:02}", "agent_id": AGENTS.get(text["topic"], GENERAL_AGENT), **filled}
        rows.append({name: row[name] for name in PROMPTS.names if name in row})
    return rows


def with_deliveries(text: dict[str, Any], chance: Chance) -> dict[str, Any]:
    """The prompt with about 8 kB of deliveries in it, and the answer that follows from them."""
    deliveries = [(48000 + number, chance.weighted(CITIES), max(0, chance.below(90) - 50)) for number in range(460)]
    late = Counter(city for _, city, minutes in deliveries if minutes)
    lines = "\n".join(f"{number}, {city}, {minutes}" for number, city, minutes in deliveries)
    return {**text, "prompt": text["prompt"].format(deliveries=lines), "expected": late.most_common(1)[0][0]}


def tickets(chance: Chance) -> list[dict[str, Any]]:
    """A day of support tickets, in order of arrival; no two bodies are the same."""
    written = texts("tickets")
    bodies: dict[str, dict[str, Any]] = {}
    while len(bodies) < TICKETS:
        row = ticket(written, chance)
        bodies.setdefault(row["body"], row)
    arrived = sorted(bodies.values(), key=lambda row: row["created_at"])
    return [{"ticket_id": f"T-{number:06}", **row} for number, row in enumerate(arrived, start=1)]


def ticket(written: Mapping[str, Any], chance: Chance) -> dict[str, Any]:
    name = chance.weighted([(name, language["weight"]) for name, language in written["languages"].items()])
    language, product = written["languages"][name], chance.one(written["products"])
    topic = chance.one(list(language["topics"]))
    # The mean of three draws: most tickets arrive around noon.
    at = DAY + timedelta(seconds=sum(chance.below(86_400) for _ in range(3)) // 3)
    told = [*language["topics"][topic]["details"], *language["context"]]
    told += language["symptoms"] if topic in written["technical"] else []
    subject, problem = chance.one(language["topics"][topic]["problems"])
    known = facts(language, product, at, chance)
    return {
        "created_at": at,
        "customer_tier": chance.weighted(TIERS),
        "language": name,
        "subject": chance.weighted(SUBJECT_STYLES)(subject.format(**known)),
        "body": chance.weighted(BODY_STYLES)(body(language, problem, told, chance).format(**known)),
        "product": product,
        "attachments": chance.weighted(ATTACHMENTS),
        "priority": chance.weighted(PRIORITIES),
    }


def body(language: Mapping[str, Any], problem: str, told: Sequence[str], chance: Chance) -> str:
    """One to six sentences, most with a greeting, many with a signature; placeholders are still to be filled."""
    sentences = [problem, *chance.some(told, chance.weighted(SENTENCES) - 1)]
    if len(sentences) > 1 and chance.below(3):
        sentences[-1] = chance.one(language["asks"])
    greeting = [chance.one(language["greetings"])] if chance.below(4) else []
    signature = [chance.one(language["signatures"])] if chance.below(5) < 2 else []
    return "\n\n".join([*greeting, " ".join(sentences), *signature])


def facts(language: Mapping[str, Any], product: str, at: datetime, chance: Chance) -> dict[str, Any]:
    """What the placeholders of a ticket stand for."""
    began = at - timedelta(days=1 + chance.below(9), minutes=chance.below(600))
    return {
        "product": product,
        "order": f"{chance.one('ABKR')}-{10_000 + chance.below(90_000)}",
        "contract": f"C{100_000 + chance.below(900_000)}",
        "amount": language["money"].format(units=9 + chance.below(400), cents=chance.below(100)),
        "days": 2 + chance.below(12),
        "count": 13 + chance.below(80),
        "version": f"5.{chance.below(20)}.{chance.below(10)}",
        "date": language["date"].format(day=began.day, month=began.month),
        "time": f"{began:%H:%M}",
        "name": chance.one(language["names"]),
    }


def texts(name: str) -> Any:
    return json.loads((HERE / "sample_texts" / f"{name}.json").read_text(encoding="utf-8"))


def write(directory: Path) -> None:
    """The three files of sample data, in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    asked = prompts(Chance(Random(SEED)))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked)
    (directory / "prompts.jsonl").write_bytes(lines.encode())
    for name, rows, schema in (
        ("prompts", asked, PROMPTS),
        ("tickets", tickets(Chance(Random(SEED + 1))), SUPPORT_TICKETS),
    ):
        table = pa.Table.from_pylist(rows, schema=schema)
        pq.write_table(table, directory / f"{name}.parquet", compression="zstd", row_group_size=250)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "sample_data")
