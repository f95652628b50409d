"""`run`, end to end: a rows file through real HTTP into Parquet, and again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from counting_server import counting
from driving import api, batchrunner, prompts, run_words, write_rows

from batchrunner.schema import OUTCOME


@pytest.fixture
def tess(tmp_path):
    with api(tmp_path / "api.jsonl") as running:
        yield running


def test_one_row_per_input_row_in_order_with_the_declared_schema(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(200, topic="greeting"))

    ended = batchrunner(*run_words(rows, tess.url))

    assert ended.code == 0, ended.err
    table = ended.table()
    assert table["item_id"].to_list() == [f"p{n}" for n in range(200)]
    assert table["row"].to_list() == list(range(200))
    assert set(table["status"]) == {"succeeded"}
    assert table["total_tokens"].null_count() == 0
    assert set(table["topic"]) == {"greeting"}
    schema = pq.read_schema(ended.last_line)
    assert [schema.field(field.name).type for field in OUTCOME] == OUTCOME.types


def test_the_same_command_again_sends_nothing(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(50))
    batchrunner(*run_words(rows, tess.url))

    again = batchrunner(*run_words(rows, tess.url, "--json"))

    assert again.summary["exit"] == 0
    assert again.summary["now"]["sent"] == 0
    assert len(tess.seen()) == 50


@pytest.mark.parametrize("named", [True, False])
def test_only_the_difference_is_bought(tmp_path, tess, named):
    first = [{"prompt": f"Say {n}", **({"id": f"i{n}"} if named else {})} for n in range(60)]
    rows = write_rows(tmp_path / "rows.jsonl", first)
    assert batchrunner(*run_words(rows, tess.url)).code == 0
    edited = [{**row, "prompt": "Edited " + row["prompt"]} for row in first[:5]]
    added = [{"prompt": f"New {n}", **({"id": f"n{n}"} if named else {})} for n in range(10)]
    now = [*edited, *first[10:], *added]
    random.Random(1).shuffle(now)
    write_rows(rows, now)

    ended = batchrunner(*run_words(rows, tess.url, "--json"))

    assert ended.summary["exit"] == 0, ended.err
    assert ended.summary["now"]["sent"] == 15
    assert len(tess.seen()) == 75
    table = pl.read_parquet(ended.summary["results"])
    assert len(table) == 65
    if named:
        assert table["item_id"].to_list() == [row["id"] for row in now]


def test_a_changed_template_is_refused_with_the_ways_out(tmp_path, tess):
    write_rows(tmp_path / "rows.jsonl", prompts(20))
    job = tmp_path / "job.toml"
    text = f"""
        name = "j"
        input.path = "rows.jsonl"
        provider = {{ kind = "tess", base_url = "{tess.url}" }}
        limits.requests_per_minute = "none"
        request = {{ agent_id = 8794, prompt = "First: {{{{ prompt }}}}" }}
    """
    job.write_text(text)
    assert batchrunner("run", job).code == 0
    job.write_text(text.replace("First", "Second"))

    refused = batchrunner("run", job)

    assert refused.code == 13
    assert "request.prompt" in refused.err
    assert "20 settled items would be bought again" in refused.err
    assert "--accept-change" in refused.err
    assert "--out" in refused.err
    assert "plan" in refused.err
    assert len(tess.seen()) == 20
    assert batchrunner("run", job, "--accept-change").code == 0
    assert len(tess.seen()) == 40


def test_a_pilot_is_kept(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(50))

    pilot = batchrunner(*run_words(rows, tess.url, "--limit", 20))
    whole = batchrunner(*run_words(rows, tess.url))

    assert len(pilot.table()) in (20, 50)
    assert pilot.code == whole.code == 0
    assert len(whole.table()) == 50
    assert len(tess.seen()) == 50


@pytest.mark.slow
def test_redo_buys_chosen_items_again_and_they_stay_settled(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(30))
    run = Path(batchrunner(*run_words(rows, tess.url)).last_line).parent

    redone = batchrunner("redo", run, "--where", "row < 4", "--set", "request.temperature=0.7", "--json")
    plain = batchrunner(*run_words(rows, tess.url, "--json"))

    assert redone.summary["now"]["sent"] == 4, redone.err
    assert plain.summary["now"]["sent"] == 0
    table = pl.read_parquet(plain.summary["results"])
    assert table.filter(pl.col("sent_changes").is_not_null())["row"].to_list() == [0, 1, 2, 3]


@pytest.mark.slow
def test_shards_are_disjoint_and_complete(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(90))

    ended = [batchrunner(*run_words(rows, tess.url, "--shard", f"{n}/3", "--out", tmp_path / "out")) for n in range(3)]

    assert [one.code for one in ended] == [0, 0, 0]
    assert [Path(one.last_line).parent.name for one in ended] == [f"shard-{n}-of-3" for n in range(3)]
    found = pl.concat([one.table() for one in ended])
    assert sorted(found["row"]) == list(range(90))
    assert min(len(one.table()) for one in ended) > 10
    looked = batchrunner("status", tmp_path / "out")
    assert (looked.code, f"such as {tmp_path / 'out' / 'shard-0-of-3'}" in looked.err) == (10, True)
    merged = batchrunner("merge", tmp_path / "out")
    assert (merged.code, merged.last_line) == (0, str(tmp_path / "out" / "results.parquet")), merged.err
    assert merged.table().equals(found.sort("row"))


@pytest.mark.slow
def test_the_shards_of_a_job_file_are_merged_by_its_name(tmp_path, tess):
    write_rows(tmp_path / "rows.jsonl", prompts(5))
    job = tmp_path / "job.toml"
    job.write_text('input.path = "rows.jsonl"\nprovider.kind = "tess"\nrequest.agent_id = 8794\n')
    words = [job, "--base-url", tess.url, "--rpm", "none", "--runs-dir", tmp_path / "mine"]

    ended = [batchrunner("run", *words, "--shard", f"{n}/2") for n in range(2)]
    early = batchrunner("merge", job, "--json")
    merged = batchrunner("merge", job, "--runs-dir", tmp_path / "mine", "--json")

    assert [one.code for one in ended] == [0, 0], [one.err for one in ended]
    assert (early.code, early.summary["type"], early.summary["retryable"]) == (10, "fatal", False)
    assert (merged.summary["type"], merged.summary["items"]["succeeded"]) == ("merged", 5)
    assert merged.summary["prompt_tokens"] == sum(pl.read_parquet(merged.summary["results"])["prompt_tokens"])


def test_rows_from_standard_input(tmp_path, tess):
    data = "".join(json.dumps(row) + "\n" for row in prompts(10)).encode()

    ended = batchrunner(*run_words("-", tess.url, "--out", tmp_path / "run"), stdin=data)  # type: ignore[arg-type]

    assert ended.code == 0, ended.err
    assert len(ended.table()) == 10


def test_bad_rows_are_rejected_with_their_line_and_cost_nothing(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(3))
    with rows.open("a") as file:
        file.write('{"id": "broken", "prompt": \n{"id": "empty"}\n')
        file.write('{"id": "tool", "messages": [{"role": "tool", "content": ""}]}\n')

    ended = batchrunner(*run_words(rows, tess.url, "--json"))

    assert ended.code == 3
    table = pl.read_parquet(ended.summary["results"])
    bad = table.filter(pl.col("error_type") == "bad_row")
    assert bad["input_line"].to_list() == [4, 5, 6]
    assert bad["attempts"].to_list() == [0, 0, 0]
    assert len(tess.seen()) == 3


def test_strict_refuses_bad_rows_before_anything_is_sent(tmp_path, tess):
    rows = write_rows(tmp_path / "rows.jsonl", [*prompts(3), {"id": "x"}])

    ended = batchrunner(*run_words(rows, tess.url, "--strict"))

    assert ended.code == 2
    assert "line 4" in ended.err
    assert tess.seen() == []


def test_a_simulated_run_stays_apart_and_needs_no_key(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", prompts(5))

    ended = batchrunner("run", rows, "--provider", "openai", "--model", "gpt-4o-mini", "--simulate", "--rpm", "none")

    assert ended.code == 0, ended.err
    assert Path(ended.last_line).parent.name == "rows.simulated"
    assert ended.table()["cost_usd"].null_count() == 0


@pytest.mark.slow
def test_a_changed_input_with_many_parts_and_epochs_stays_right(tmp_path, tess):
    """Three generations of an input, each time with new, gone and moved rows."""
    rows = tmp_path / "rows.jsonl"
    everything = prompts(90)
    for turn in range(3):
        write_rows(rows, everything[turn * 20 : turn * 20 + 50][:: 1 if turn % 2 else -1])
        ended = batchrunner(*run_words(rows, tess.url, "--json"))
        assert ended.summary["exit"] == 0, ended.err

    assert len(tess.seen()) == 90
    table = pl.read_parquet(ended.summary["results"])
    assert table["item_id"].to_list() == [row["id"] for row in everything[40:90][::-1]]
    assert all(f"Say {row['id'][0]}" for row in everything)


def test_a_row_that_is_put_in_front_of_numbered_ones_is_all_that_is_bought(tmp_path):
    texts = [f"Say {n}" for n in range(20)]
    with counting() as server:
        for said in (texts, ["Say first", *texts]):
            rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "prompt": text} for n, text in enumerate(said)])
            ended = batchrunner(*run_words(rows, server.url, "--out", tmp_path / "run"))
            assert ended.code == 0, ended.err
        asked = server.books().asked.total()

    assert asked == 21
    answers = [text.rpartition(" ")[0] for text in ended.table()["text"]]
    assert answers == [f"echo: {text}" for text in ("Say first", *texts)]


def test_what_an_item_has_cost_is_in_the_table_once_whoever_has_its_answers_now(tmp_path):
    """`a` is bought twice, then asks something else, and `x` asks what it had asked."""
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": "a", "prompt": "one"}])
    with api(tmp_path / "log") as server:
        words = [
            "--provider",
            "openai",
            "--model",
            "gpt-4o-mini",
            "--base-url",
            server.openai,
            "--out",
            tmp_path / "run",
        ]
        batchrunner("run", rows, *words)
        batchrunner("redo", tmp_path / "run", "--where", "item_id = 'a'")
        write_rows(rows, [{"id": "x", "prompt": "one"}, {"id": "a", "prompt": "two"}])
        ended = batchrunner("run", rows, *words, "--json")
        sent = len(server.seen())

    assert (ended.code, sent) == (0, 3), ended.err
    table = pl.read_parquet(ended.summary["results"])
    assert table["item_id"].to_list() == ["x", "a"]
    assert table["cost_usd"].sum() == pytest.approx(ended.summary["cost_usd"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_over_many_nights_no_question_is_bought_twice_whoever_asks_it(tmp_path, seed):
    chance = random.Random(seed)
    with counting() as server:
        for _ in range(7):
            questions, ids = chance.sample(range(30), 15), chance.sample(range(20), 15)
            asked = zip(ids, questions, strict=True)
            rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "prompt": f"Q{question}"} for n, question in asked])
            ended = batchrunner(*run_words(rows, server.url, "--out", tmp_path / "run"))
            table = ended.table()
            assert [text.split()[1] for text in table["text"]] == [f"Q{question}" for question in questions]
            assert table["item_id"].to_list() == [str(n) for n in ids]
            assert batchrunner("fsck", tmp_path / "run").code == 0
        books = server.books().asked

    assert set(books.values()) == {1}
