"""Jobs from Python: frames in and out, within a running event loop, cancelled, and as outcomes settle."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import polars as pl
import pyarrow as pa
import pytest
from counting_server import counting
from driving import prompts, write_rows

import batchrunner
from batchrunner.errors import JobError
from batchrunner.sources import write_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from counting_server import Counting


@pytest.fixture
def server() -> Iterator[Counting]:
    with counting(latency=0.02) as running:
        yield running


def settings(server: Counting, **more: Any) -> dict[str, Any]:
    return {"provider": "tess", "agent_id": 1, "base_url": server.url, "api_key": "none", "rpm": "none", **more}


@pytest.mark.parametrize("kind", ["polars", "arrow", "dicts"])
def test_a_table_goes_in_and_comes_out_and_the_same_call_again_buys_nothing(tmp_path, server, kind):
    rows: Any = prompts(10, note="x")
    given = {"polars": pl.DataFrame(rows), "arrow": pa.Table.from_pylist(rows), "dicts": rows}[kind]

    first = batchrunner.run(rows=given, out=tmp_path / "run", **settings(server))
    again = batchrunner.run(rows=given, out=tmp_path / "run", **settings(server))
    more = batchrunner.run(rows=[*rows, {"id": "new", "prompt": "Say new"}], out=tmp_path / "run", **settings(server))

    assert first.ok
    assert again.ok
    assert more.ok
    assert server.books().asked.total() == 11
    table = more.to_polars()
    assert table["item_id"].to_list() == [*(row["id"] for row in rows), "new"]
    assert table["text"][-1].startswith("echo: Say new")
    assert table["note"].to_list() == ["x"] * 10 + [None]
    assert first.to_arrow().num_rows == 11


def test_templates_over_rows_in_memory(tmp_path, server):
    rows = [{"id": 1, "subject": "late"}, {"id": 2, "subject": "lost"}]

    found = batchrunner.run(rows=rows, out=tmp_path / "run", prompt="About {{ subject }}", **settings(server))

    assert [text.rpartition(" ")[0] for text in found.to_polars()["text"]] == ["echo: About late", "echo: About lost"]


def test_it_works_while_a_loop_is_running(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    async def notebook() -> tuple[Any, Any]:
        blocking = batchrunner.run(rows, out=tmp_path / "one", **settings(server))
        return blocking, await batchrunner.arun(rows, out=tmp_path / "two", **settings(server))

    one, two = asyncio.run(notebook())

    assert one.ok
    assert two.ok
    assert server.books().asked.total() == 10


def test_outcomes_come_as_they_settle_and_who_stops_listening_drains(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(500))
    call = settings(server, concurrency=2)

    async def some() -> list[str]:
        found = []
        stream = batchrunner.stream(rows, out=tmp_path / "run", **call)
        async for outcome in stream:
            found.append(outcome.item_id)
            if len(found) == 5:
                break
        await stream.aclose()
        return found

    assert len(asyncio.run(some())) == 5
    asked = server.books().asked.total()
    assert 5 <= asked < 100
    planned = batchrunner.plan(rows, out=tmp_path / "run", **call)
    assert planned["items"]["to_buy"] == 500 - asked


def test_a_call_that_is_cancelled_drains_first(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(500))

    async def impatient() -> None:
        with anyio.move_on_after(1.5):
            await batchrunner.arun(rows, out=tmp_path / "run", **settings(server, concurrency=2))

    anyio.run(impatient)

    asked = server.books().asked.total()
    assert 0 < asked < 500
    assert batchrunner.plan(rows, out=tmp_path / "run", **settings(server))["items"]["settled"] == asked


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"rows": [{"prompt": "x"}]}, "out: expected a directory"),
        ({}, "job: expected a job file, a rows file, or rows in memory"),
        ({"rows": 3, "out": "run"}, "rows: expected a table of polars, pandas or pyarrow"),
        ({"rows": [{"prompt": "x"}], "out": "run", "frobnicate": 1}, "frobnicate: no such setting"),
        ({"rows": [{"prompt": "x"}], "out": "run", "limits": {"rmp": 1}}, "unknown key 'rmp' in [limits]"),
    ],
)
def test_faults_are_exceptions_with_our_words(tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(batchrunner.JobError) as fault:
        batchrunner.run(provider="tess", agent_id=1, **call)

    assert said in str(fault.value)


def test_importing_it_loads_little():
    code = "import sys, batchrunner; print(sorted({'polars', 'pyarrow', 'httpx', 'aiohttp'} & set(sys.modules)))"

    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_answers_of_a_simulated_call_are_not_taken_for_real_ones(tmp_path, server):
    rows = prompts(4)

    simulated = batchrunner.run(rows=rows, out=tmp_path / "runs/mon", simulate=True, **settings(server))
    reuse = {"reuse": {"from": str(tmp_path / "runs/*"), "dedupe": False}}
    real = batchrunner.run(rows=rows, out=tmp_path / "runs/tue", **settings(server), **reuse)

    assert simulated.ok
    assert real.ok
    assert set(real.to_polars()["origin"]) == {"sent"}
    assert server.books().asked.total() == 4


def test_a_key_that_only_later_dicts_have_is_sent_too(tmp_path):
    path = write_frame([{"prompt": "a"}, {"prompt": "b", "system": "Be brief"}], tmp_path / "rows.parquet")

    assert pl.read_parquet(path)["system"].to_list() == [None, "Be brief"]


def test_rows_that_parquet_cannot_keep_are_told(tmp_path):
    with pytest.raises(JobError, match="cannot be kept as Parquet"):
        write_frame([{"prompt": "a", "empty": {}}], tmp_path / "rows.parquet")
