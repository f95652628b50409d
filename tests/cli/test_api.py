"""Jobs from Python: frames in and out, within a running event loop, cancelled, and as outcomes settle."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anyio
import polars as pl
import pyarrow as pa
import pytest
from counting_server import counting
from driving import prompts, write_rows

import batchrunner
from batchrunner.errors import JobChanged, JobError, RunLocked
from batchrunner.sources import write_frame

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

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


async def by_scope(call: Awaitable[Any], begun: Awaitable[None]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call)
        await begun
        group.cancel_scope.cancel()


async def by_task(call: Awaitable[Any], begun: Awaitable[None]) -> None:
    task = asyncio.ensure_future(call)
    await begun
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("cancelled", [by_scope, by_task])
def test_a_call_that_is_cancelled_ends_when_its_run_has_drained(tmp_path, cancelled):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(500))

    with counting(latency=0.2) as server:

        def begun() -> None:
            while not server.books().asked.total():
                time.sleep(0.02)

        async def impatient() -> None:
            call = batchrunner.arun(rows, out=tmp_path / "run", **settings(server, concurrency=2))
            await cancelled(call, asyncio.to_thread(begun))

        asyncio.run(impatient())
        asked = server.books().asked.total()
        planned = batchrunner.plan(rows, out=tmp_path / "run", **settings(server))

    assert 0 < asked < 500
    assert planned["items"]["settled"] == asked


def test_what_keeps_a_run_from_going_on_is_the_same_fault_in_a_coroutine(tmp_path, server):
    rows, out = write_rows(tmp_path / "rows.jsonl", prompts(1)), tmp_path / "run"
    batchrunner.run(rows, out=out, **settings(server))
    other = settings(server, agent_id=2)

    async def listen() -> list[Any]:
        return [outcome async for outcome in batchrunner.stream(rows, out=out, **other)]

    for call in (lambda: batchrunner.arun(rows, out=out, **other), listen):
        with pytest.raises(JobChanged, match=r"request\.agent_id"):
            asyncio.run(call())


def test_a_job_is_a_dict_too(tmp_path, server):
    write_rows(tmp_path / "rows-mon.jsonl", [{"key": "a", "subject": "late"}])
    job = {
        "name": "triage",
        "params": {"ds": ""},
        "input": {"path": str(tmp_path / "rows-{{ params.ds }}.jsonl"), "id": "key"},
        "provider": {"kind": "tess", "base_url": server.url, "api_key": "none"},
        "request": {"agent_id": 1, "prompt": "About {{ subject }}"},
        "output": {"dir": str(tmp_path / "runs-{{ params.ds }}")},
        "prices": {"tess-6.1": {"input_per_million": 1, "output_per_million": 2}},
    }

    found = batchrunner.run(job, params={"ds": "mon"}, request={"temperature": 0})

    assert found.ok
    assert found.summary["name"] == "triage"
    assert found.path == str(tmp_path / "runs-mon")
    assert found.to_polars()["item_id"].to_list() == ["a"]


def test_progress_is_called_or_written_and_its_fault_drains_the_run(tmp_path, server, capsys):
    rows, seen = write_rows(tmp_path / "rows.jsonl", prompts(3)), []

    def broken(now: Any) -> None:
        raise ZeroDivisionError

    batchrunner.run(rows, out=tmp_path / "called", progress=seen.append, **settings(server))
    assert seen[0].total == 3
    assert capsys.readouterr() == ("", "")

    batchrunner.run(rows, out=tmp_path / "written", progress=True, **settings(server))
    assert "/3" in capsys.readouterr().err

    with pytest.raises(ZeroDivisionError):
        batchrunner.run(rows, out=tmp_path / "broken", progress=broken, **settings(server))
    assert batchrunner.plan(rows, out=tmp_path / "broken", **settings(server))["items"]["total"] == 3


def test_ctrl_c_drains_and_goes_on_as_ctrl_c(tmp_path, server):
    given = {**settings(server, concurrency=2), "out": str(tmp_path / "run")}
    script = f"import batchrunner; batchrunner.run(rows={prompts(200)!r}, **{given!r}); print('went on')"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while server.answered() < 5 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    again = batchrunner.run(rows=prompts(200), **given)

    assert "went on" not in out
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert again.ok
    assert server.books().asked.total() == 200


def test_rows_are_not_replaced_under_a_run_that_reads_them(tmp_path, server):
    slow = settings(server, concurrency=1, out=tmp_path / "run")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(batchrunner.run, rows=prompts(60), **slow)
        while server.answered() < 3 and not first.done():
            time.sleep(0.01)
        with pytest.raises(RunLocked, match="is in use with other rows"):
            batchrunner.run(rows=prompts(5, prefix="other"), **slow)
        with pytest.raises(RunLocked, match="is in use"):
            batchrunner.run(rows=prompts(60), **slow)
        later = batchrunner.run(rows=prompts(5, prefix="other"), wait_lock_s=30, **slow)

    assert first.result().ok
    assert first.result().summary["items"]["succeeded"] == 60
    assert later.to_polars()["item_id"].to_list() == [f"other{n}" for n in range(5)]


def test_variants_and_scores_are_settings_too(tmp_path, server):
    found = batchrunner.run(
        rows=[{"id": 1, "q": "red", "want": "red"}, {"id": 2, "q": "blue", "want": "green"}],
        matrix={"prompt": {"a": "Say {{ q }}", "b": "Tell {{ q }}"}, "repeats": 2},
        score=[{"name": "right", "kind": "contains", "expected": "{{ want }}"}],
        out=tmp_path / "run",
        **settings(server),
    )

    table = found.to_polars()
    assert table["item_id"].to_list()[:5] == ["1/a/1", "1/a/2", "1/b/1", "1/b/2", "2/a/1"]
    assert table["scores"].struct.field("right").to_list() == [1.0] * 4 + [0.0] * 4
    with pytest.raises(JobError, match=r"score: \[0\]\.kind: expected 'exact'"):
        batchrunner.run(rows=[], score=[{"name": "x", "kind": "y"}], out=tmp_path / "other", **settings(server))


def test_a_section_has_keys_of_any_kind(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(2, model="gpt-4.1"))
    prices = {"gpt-4.1": {"input_per_million": 1e6, "output_per_million": 0}}

    found = batchrunner.run(rows, out=tmp_path / "run", prices=prices, **settings(server))

    assert found.summary["cost_usd"] == found.summary["prompt_tokens"] > 0


@pytest.mark.real
def test_pandas_goes_in_and_comes_out(tmp_path, server):
    from real import needs

    needs.package("pandas", "pip install 'batchrunner[real]'")
    import pandas as pd

    rows = pd.DataFrame(prompts(4, note="x"), index=[7, 7, 8, 9])

    found = batchrunner.run(rows=rows, out=tmp_path / "run", **settings(server)).to_pandas()

    assert isinstance(found, pd.DataFrame)
    assert found["item_id"].tolist() == rows["id"].tolist()
    assert found["note"].tolist() == ["x"] * 4


USAGE = """
import asyncio
import batchrunner
import polars as pl

call: batchrunner.Settings = {"provider": "tess", "agent_id": 1, "rpm": "none", "simulate": True}

async def main() -> list[str]:
    found = await batchrunner.arun({"input": {"path": "x.jsonl"}}, out="run", **call)
    frame: pl.DataFrame = found.to_polars()
    print(found.ok, frame.height, found.notes, found.summary["exit"])
    return [outcome.item_id async for outcome in batchrunner.stream(rows=frame, out="run", **call)]

try:
    run: batchrunner.Run = batchrunner.run("job.toml", progress=lambda now: print(now.done), max_failed="1%")
except batchrunner.BatchrunnerError as error:
    print(error, batchrunner.plan(rows=[{"prompt": "x"}], out="run", request={"temperature": 0})["items"])
asyncio.run(main())
"""
WRONG = """
batchrunner.run("job.toml", rmp=5)
batchrunner.run("job.toml", limit="5")
"""


@pytest.mark.slow
def test_calls_are_typed(tmp_path):
    (tmp_path / "usage.py").write_text(USAGE + WRONG)
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path / "cache", "usage.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout

    errors = [line for line in said.splitlines() if ": error:" in line and line.startswith("usage.py")]
    assert len(errors) == 2, said
    assert "rmp" in errors[0]
    assert '"limit"' in errors[1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"rows": [{"prompt": "x"}]}, "out: expected a directory"),
        ({}, "job: expected a job file, a rows file, a dict, or rows in memory"),
        ({"rows": 3, "out": "run"}, "rows: expected a table of polars, pandas or pyarrow"),
        ({"job": {"input": {"path": "x.jsonl"}}}, "out: expected a directory for the run, since a dict has no place"),
        ({"job": {"inptu": {}}, "out": "run"}, "job: unknown key 'inptu'; did you mean 'input'?"),
        ({"rows": [{"prompt": "x"}], "out": "s3://bucket/run"}, "expected a directory of this machine"),
        ({"rows": [{"prompt": "x"}], "out": "run", "rpm": -5}, "rpm: expected a number above 0"),
        ({"rows": [{"prompt": "x"}], "out": "run", "frobnicate": 1}, "frobnicate: no such setting"),
        ({"rows": [{"prompt": "x"}], "out": "run", "limits": {"rmp": 1}}, "unknown key 'rmp' in [limits]"),
    ],
)
def test_faults_are_exceptions_with_our_words(tmp_path, monkeypatch, call, said):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(JobError) as fault:
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


def test_planning_and_refused_calls_leave_the_rows_of_a_run_alone(tmp_path, server):
    out = tmp_path / "run"
    batchrunner.run(rows=[{"id": "a", "prompt": "Say a"}], out=out, **settings(server))
    kept = (tmp_path / "run.rows.parquet").read_bytes()
    other = [{"id": "a", "prompt": "Say b"}, {"id": "c", "prompt": "Say c"}]

    planned = batchrunner.plan(rows=other, out=out, **settings(server))
    with pytest.raises(JobError):
        batchrunner.run(rows=other, out=out, **settings(server), prompt="{{ nothing }}")

    assert planned["items"]["total"] == 2
    assert (tmp_path / "run.rows.parquet").read_bytes() == kept
    assert not [*tmp_path.glob(".*")]


def test_calls_at_once_never_answer_with_each_others_rows(tmp_path, server):
    """One of them is told that the other one is at work, or comes after it."""

    async def both(number: int) -> list[object]:
        out = tmp_path / str(number)
        calls = [[{"id": f"{name}{n}", "prompt": f"Say {name}"} for n in range(30)] for name in "ab"]
        given = settings(server)
        return await asyncio.gather(
            *(batchrunner.arun(rows=rows, out=out, **given) for rows in calls), return_exceptions=True
        )

    for number in range(5):
        found = asyncio.run(both(number))
        refused = [each for each in found if isinstance(each, BaseException)]
        assert all(isinstance(each, RunLocked) for each in refused), refused
        for name, run in zip("ab", found, strict=True):
            if isinstance(run, batchrunner.Run):
                assert {row["item_id"][0] for row in run.to_arrow().to_pylist()} == {name} or len(refused) == 0


def test_rows_given_as_the_job_are_refused_in_words(tmp_path, server):
    with pytest.raises(JobError, match="rows in memory are given as rows="):
        batchrunner.run([{"id": "a", "prompt": "Say a"}], out=tmp_path / "run", **settings(server))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"limit": 0}, "limit: expected a whole number of items, 1 or more, got 0"),
        ({"limit": True}, "limit: expected a whole number"),
        ({"limit": "2"}, "limit: expected a whole number"),
        ({"wait_lock_s": "1m"}, "wait_lock_s: expected seconds, 0 or more, got '1m'"),
        ({"grace_s": -1}, "grace_s: expected seconds"),
        ({"simulate": "no"}, "simulate: expected True or False, got 'no'"),
        ({"progress": "x"}, "progress: expected True, False or a function"),
    ],
)
def test_what_is_said_of_a_call_is_checked(tmp_path, server, given, said):
    with pytest.raises(JobError, match=re.escape(said)):
        batchrunner.run(rows=[{"id": "a", "prompt": "x"}], out=tmp_path / "run", **settings(server), **given)
