"""Runs on buckets: real stores on loopback, real kills, another machine, and the server's own count."""

from __future__ import annotations

import gzip
import io
import json
import random
import signal
import time
from typing import TYPE_CHECKING

import polars as pl
import pytest
from counting_server import counting
from crash.moments import Moment
from driving import batchrunner, finish, prompts, run_words, start, write_rows
from real import needs

needs.to_be_collected("obstore", "pip install 'batchrunner[cloud]'")

from real.buckets import Bucket, azure, meddled, s3, s3_at  # noqa: E402 (only with obstore)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

IN_FLIGHT = 10


@pytest.fixture(params=["s3", "az"])
def bucket(request, tmp_path) -> Iterator[Bucket]:
    with (s3 if request.param == "s3" else azure)(tmp_path) as found:
        yield found


@pytest.fixture
def s3_bucket(tmp_path) -> Iterator[Bucket]:
    with s3(tmp_path) as found:
        yield found


def words_of(rows: object, url: str, bucket: Bucket, *more: object) -> list[object]:
    out = f"{bucket.address}/runs/tickets"
    settings = ["--concurrency", IN_FLIGHT, "--out", out, "--flush-every", "1s", "--json"]
    endpoint = bucket.env.get("AZURE_STORAGE_ENDPOINT")
    return [*run_words(rows, url, *settings), *(["--set", f"storage.endpoint={endpoint}"] if endpoint else []), *more]  # type: ignore[arg-type]


def life(bucket: Bucket, name: str, *, state: Path | None = None) -> Mapping[str, str]:
    """The environment of one life, perhaps on another machine: one with a state directory of its own."""
    return {**bucket.env, "TESS_API_KEY": name, **({"BATCHRUNNER_STATE_DIR": str(state)} if state else {})}


def table_of(bucket: Bucket) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(bucket.get("runs/tickets/results.parquet")))


def check_whole(bucket: Bucket, rows: list[dict[str, object]]) -> None:
    """Every row once, with its own answer."""
    table = table_of(bucket)
    assert table["item_id"].to_list() == [row["id"] for row in rows]
    assert set(table["status"]) == {"succeeded"}
    assert [text.rpartition(" ")[0] for text in table["text"]] == [f"echo: {row['prompt']}" for row in rows]


def test_a_run_on_a_bucket_from_its_start_to_its_cleaning(tmp_path, bucket):
    rows = prompts(40)
    place = f"{bucket.address}/runs/tickets"
    bucket.put("in/rows-1.jsonl", "".join(json.dumps(row) + "\n" for row in rows[:20]).encode())
    bucket.put("in/rows-2.jsonl.gz", gzip.compress("".join(json.dumps(row) + "\n" for row in rows[20:30]).encode()))
    with counting(latency=0.02) as server:
        words = words_of(f"{bucket.address}/in/rows-*", server.url, bucket)
        plan = ["plan", *(word for word in words[1:] if word not in ("--flush-every", "1s", "--json"))]
        planned = batchrunner(*plan, env=life(bucket, "plan"))
        first = batchrunner(*words, env=life(bucket, "first"))
        second = batchrunner(*words, env=life(bucket, "second"))
        bucket.put("in/rows-3.jsonl", "".join(json.dumps(row) + "\n" for row in rows[30:]).encode())
        third = batchrunner(*words, env=life(bucket, "third"))
        asked = {name: one.asked.total() for name, one in server.books().lives.items()}

    assert "30 to buy" in planned.out, planned.err
    assert [first.code, second.code, third.code] == [0, 0, 0], (first.err, second.err, third.err)
    assert first.summary["run"] == place
    assert first.summary["results"] == f"{place}/results.parquet"
    assert asked == {"first": 30, "third": 10}
    check_whole(bucket, rows)
    assert not [name for name in bucket.names("runs/tickets") if name.endswith("lock") or "probe" in name]

    if bucket.address.startswith("s3"):
        commands = ("status", "export", "report", "fsck", "clean")
        look = {command: batchrunner(command, place, env=bucket.env) for command in commands}
        assert {name: ended.code for name, ended in look.items()} == dict.fromkeys(look, 0), look
        assert "40 succeeded" in look["status"].out
        assert len(look["export"].out.splitlines()) == 40
        assert f"run      {place}" in look["report"].out
        assert "sound" in batchrunner("fsck", place, env=bucket.env).out


def test_killed_on_one_machine_the_run_goes_on_there_without_buying_what_its_journal_has(tmp_path, bucket):
    rows = prompts(200)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.05) as server:
        words = words_of(source, server.url, bucket, "--flush-every", "1h")
        process = start(*words, env=life(bucket, "killed"))
        Moment(80).wait(process, server)
        process.kill()
        finish(process)
        last = batchrunner(*words, env=life(bucket, "last"))
        again = server.books().asked_again()["killed"]

    assert last.code == 0, last.err
    assert again <= IN_FLIGHT
    check_whole(bucket, rows)


def test_a_machine_that_is_lost_costs_what_was_settled_since_the_last_part(tmp_path, bucket):
    """The local state is gone, and another machine goes on: no row missing, none twice, little bought again."""
    rows = prompts(300)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.1) as server:
        words = words_of(source, server.url, bucket)
        process = start(*words, env=life(bucket, "lost", state=tmp_path / "one"))
        Moment(250).wait(process, server)
        process.kill()
        finish(process)
        commit = json.loads(bucket.get(bucket.names("runs/tickets/commits")[-1]))["commit"]
        in_parts = sum(part["rows"] for part in commit["parts"])
        last = batchrunner(*words, env=life(bucket, "last", state=tmp_path / "two"))
        books = server.books()

    assert last.code == 0, last.err
    assert in_parts >= 100
    assert books.lives["last"].asked.total() == len(rows) - in_parts
    # About a hundred a second, a part a second: what was settled since the last one, and what was in flight.
    assert books.asked_again()["lost"] <= books.lives["lost"].asked.total() - in_parts
    assert "its journal is not here" in last.err + last.out
    check_whole(bucket, rows)


@pytest.mark.parametrize("machines", ["a", "ab"])
def test_kill_after_kill_loses_nothing(tmp_path, s3_bucket, machines):
    """At any moment, of starting and ending too. With two machines each life is on either of them."""
    chance, rows = random.Random(7), prompts(400)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    lives = []
    with counting(latency=0.05) as server:
        words = words_of(source, server.url, s3_bucket)
        for number in range(10):
            state = tmp_path / chance.choice(machines)
            process = start(*words, env=life(s3_bucket, f"life-{number}", state=state))
            moment = Moment(min(400, 45 * number + 20)) if number % 3 else Moment(0, chance.uniform(0.4, 2.0))
            moment.wait(process, server)
            process.kill()
            lives.append(finish(process))
        ended = batchrunner(*words, env=life(s3_bucket, "last", state=tmp_path / "a"))
        again = server.books().asked_again()

    assert {one.code for one in lives} <= {0, -signal.SIGKILL}, [one.err for one in lives]
    assert ended.code == 0, ended.err
    check_whole(s3_bucket, rows)
    if len(machines) == 1:
        assert max(again.values()) <= IN_FLIGHT, again


def test_two_processes_on_one_address(tmp_path, bucket):
    rows = prompts(100)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.2) as server:
        words = words_of(source, server.url, bucket, "--concurrency", 2)
        process = start(*words, env=life(bucket, "one", state=tmp_path / "one"))
        Moment(4).wait(process, server)
        second = batchrunner(*words, env=life(bucket, "two", state=tmp_path / "two"))
        patient = start(*words, "--wait-lock", "1m", env=life(bucket, "three", state=tmp_path / "three"))
        first = finish(process)
        third = finish(patient)
        lives = server.books().lives

    assert second.code == 11
    assert second.summary["retryable"] is True
    assert "is in use by pid" in second.summary["reason"]
    assert first.code == third.code == 0, (first.err, third.err)
    assert lives.keys() == {"one"}


def lock_of_another(*, expiry_s: float) -> bytes:
    process = {"pid": 1, "host": "elsewhere", "boot": "another", "space": "another", "began": "1"}
    return json.dumps({"owner": "x", "process": process, "since": 0, "expiry_s": expiry_s}).encode()


def test_a_lock_that_is_not_renewed_any_more_is_taken_over(tmp_path, s3_bucket):
    source = write_rows(tmp_path / "rows.jsonl", prompts(3))
    with counting() as server:
        words = words_of(source, server.url, s3_bucket)
        s3_bucket.put("runs/tickets/lock", lock_of_another(expiry_s=12))
        early = batchrunner(*words, env=life(s3_bucket, "early"))
        began = time.monotonic()
        late = batchrunner(*words, "--wait-lock", "1m", env=life(s3_bucket, "late"))
        waited_s = time.monotonic() - began

    assert early.code == 11
    assert "by pid 1 on elsewhere" in early.summary["reason"]
    assert late.code == 0, late.err
    assert waited_s >= 2


def test_whoever_finds_another_at_work_stops_and_the_other_commit_stands(tmp_path, s3_bucket):
    """Where locks lied, the next commit of the one that was taken for dead is refused."""
    source = write_rows(tmp_path / "rows.jsonl", prompts(100))
    with counting(latency=0.1) as server:
        words = words_of(source, server.url, s3_bucket, "--concurrency", 2)
        process = start(*words, env=life(s3_bucket, "one"))
        Moment(6).wait(process, server)
        for number in range(2, 6):
            s3_bucket.put(f"runs/tickets/commits/{number:06d}.json", b"another's")
        ended = finish(process)

    assert ended.code == 11, ended.err
    assert "was written by another process" in ended.summary["reason"]
    assert {s3_bucket.get(f"runs/tickets/commits/{number:06d}.json") for number in range(2, 6)} == {b"another's"}


def test_what_another_machine_went_on_with_is_not_asked_again_by_the_first(tmp_path, s3_bucket):
    rows = prompts(120)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.05) as server:
        words = words_of(source, server.url, s3_bucket, "--flush-every", "1h")
        process = start(*words, env=life(s3_bucket, "first", state=tmp_path / "one"))
        Moment(60).wait(process, server)
        process.kill()
        finish(process)
        other = batchrunner(*words, env=life(s3_bucket, "other", state=tmp_path / "two"))
        back = batchrunner(*words, env=life(s3_bucket, "back", state=tmp_path / "one"))
        asked = {name: one.asked.total() for name, one in server.books().lives.items()}

    assert [other.code, back.code] == [0, 0], (other.err, back.err)
    assert asked["other"] == 120
    assert "back" not in asked
    assert "another machine went on" in back.err + back.out
    check_whole(s3_bucket, rows)


def test_a_store_that_does_not_keep_its_word_is_said_to(tmp_path, s3_bucket):
    source = write_rows(tmp_path / "rows.jsonl", prompts(3))
    with counting() as server, meddled(s3_bucket.env["AWS_ENDPOINT_URL"]) as (url, ways):
        ways.forget_conditions = True
        doubtful = s3_at(url, tmp_path)
        ended = batchrunner(*words_of(source, server.url, doubtful), env=life(doubtful, "one"))

    assert ended.code == 0, ended.err
    assert "lets an object be created where one is already" in ended.out + ended.err


def test_what_is_put_is_encrypted_as_the_job_says(tmp_path, s3_bucket):
    source = write_rows(tmp_path / "rows.jsonl", prompts(3))
    with counting() as server, meddled(s3_bucket.env["AWS_ENDPOINT_URL"]) as (url, ways):
        bucket = s3_at(url, tmp_path)
        settings = ["--set", "storage.encryption=aws:kms", "--set", "storage.kms_key_id=alias/nightly"]
        ended = batchrunner(*words_of(source, server.url, bucket, *settings), env=life(bucket, "one"))

    put = {path: headers for path, headers in ways.requests if path.startswith("PUT") and "probe" not in path}
    assert ended.code == 0, ended.err
    assert any(path.endswith("results.parquet") for path in put)
    assert {headers.get("x-amz-server-side-encryption") for headers in put.values()} == {"aws:kms"}
    assert {headers.get("x-amz-server-side-encryption-aws-kms-key-id") for headers in put.values()} == {"alias/nightly"}


def test_a_store_that_goes_away_ends_the_run_and_nothing_is_bought_twice(tmp_path, s3_bucket):
    rows = prompts(600)
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting(latency=0.1) as server, meddled(s3_bucket.env["AWS_ENDPOINT_URL"]) as (url, ways):
        bucket = s3_at(url, tmp_path)
        words = words_of(source, server.url, bucket, "--disk-wait", "3s")
        process = start(*words, env=life(bucket, "one"))
        Moment(150).wait(process, server)
        ways.down.set()
        ended = finish(process, timeout_s=200)
        ways.down.clear()
        last = batchrunner(*words, env=life(bucket, "last"))
        again = server.books().asked_again().get("one", 0)

    assert ended.code == 16, ended.err
    assert ended.summary["retryable"] is True
    assert last.code == 0, last.err
    assert again == 0
    check_whole(s3_bucket, rows)


def test_shards_on_a_bucket_become_one_table_there(tmp_path, s3_bucket):
    rows, place = prompts(30), f"{s3_bucket.address}/runs/tickets"
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with counting() as server:
        words = words_of(source, server.url, s3_bucket)
        one = batchrunner(*words, "--shard", "0/2", env=life(s3_bucket, "one"))
        early = batchrunner("merge", place, env=s3_bucket.env)
        two = batchrunner(*words, "--shard", "1/2", env=life(s3_bucket, "two"))
        merged = batchrunner("merge", place, env=s3_bucket.env)
        again = batchrunner("merge", place, "--json", env=s3_bucket.env)
        asked = server.books().asked.total()

    assert [one.code, early.code, two.code, merged.code, again.code] == [0, 10, 0, 0, 0], (early.err, merged.err)
    assert "1 of 2 shards missing" in early.err
    assert merged.last_line == f"{place}/results.parquet"
    assert again.summary["rows"] == asked == 30
    check_whole(s3_bucket, rows)


def test_a_run_is_watched_from_another_machine(tmp_path, s3_bucket):
    """Live, after its end, and no part is brought twice; what a killed process left there unnamed goes."""
    source, place = write_rows(tmp_path / "rows.jsonl", prompts(60)), f"{s3_bucket.address}/runs/tickets"
    left = "runs/tickets/parts/000000000900-000000000901.parquet"
    with counting(latency=0.2) as server, meddled(s3_bucket.env["AWS_ENDPOINT_URL"]) as (url, ways):
        words = words_of(source, server.url, s3_bucket, "--concurrency", 4)
        process = start(*words, env=life(s3_bucket, "one"))
        Moment(20).wait(process, server)
        elsewhere = life(s3_at(url, tmp_path), "", state=tmp_path / "elsewhere")
        watched = start("status", place, "--watch", "--json", env=elsewhere)
        ended, seen = finish(process), finish(watched)
        s3_bucket.put(left, b"left by a process that was killed before its commit")
        again = batchrunner(*words, env=life(s3_bucket, "again"))

    states = [json.loads(line) for line in seen.out.splitlines()]
    fetched = [path for path, _ in ways.requests if path.startswith("GET") and "/parts/" in path]
    assert ended.code == seen.code == 0, (ended.err, seen.err)
    assert states[0]["state"] == "running"
    assert states[0]["alive"] is True
    assert states[-1]["state"] == "finished"
    assert states[-1]["items"]["succeeded"] == 60
    assert len(fetched) == len(set(fetched)) > 1
    assert again.code == 0, again.err
    assert left not in s3_bucket.names("runs/tickets")


def test_a_fresh_start_keeps_the_old_run_beside_it(tmp_path, s3_bucket):
    source = write_rows(tmp_path / "rows.jsonl", prompts(5))
    with counting() as server:
        words = words_of(source, server.url, s3_bucket)
        ended = [batchrunner(*words, *more, env=life(s3_bucket, "one")) for more in ([], ["--fresh"], ["--fresh"])]
        asked = server.books().asked.total()

    assert [one.code for one in ended] == [0, 0, 0], ended
    assert asked == 15
    assert {name.split("/")[1] for name in s3_bucket.names("runs")} == {"tickets", "tickets.1", "tickets.2"}
    assert "runs/tickets.1/results.parquet" in s3_bucket.names("runs")


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("s3://nowhere/run", 10, "no such bucket"),
        ("ftp://host/run", 2, "expected an address of s3://, gs://, az://"),
        ("s3://nightly/full", 10, "is not a run and not empty"),
    ],
)
def test_an_address_that_cannot_be_right(tmp_path, s3_bucket, address, code, said):
    s3_bucket.put("full/of/things.txt", b"")
    source = write_rows(tmp_path / "rows.jsonl", prompts(2))
    with counting() as server:
        ended = batchrunner(*run_words(source, server.url, "--out", address), env=s3_bucket.env)

        assert server.books().asked.total() == 0
    assert ended.code == code
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("pattern", ["rows/lake", "rows/lake/", "rows/lake/ds=*/*.jsonl"])
def test_a_table_of_folders_is_read_with_its_keys(bucket, tmp_path, pattern):
    for day in (1, 2):
        lines = "".join(json.dumps({"id": f"{day}-{n}", "prompt": f"q{n}", "n": n}) + "\n" for n in range(4))
        bucket.put(f"rows/lake/ds={day}/part.jsonl", lines.encode())
    bucket.put("rows/lake/_SUCCESS", b"")
    with counting() as server:
        words = words_of(f"{bucket.address}/{pattern}", server.url, bucket, "--set", "input.where=ds = 2 AND n > 1")
        ended = batchrunner(*words, env=life(bucket, "one"))

    assert ended.code == 0, ended.err
    table = table_of(bucket).sort("row")
    assert table["item_id"].to_list() == ["2-2", "2-3"]
    assert table["ds"].to_list() == [2, 2]
