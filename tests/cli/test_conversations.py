"""Conversations end to end: items in order, and turns that are never bought twice."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driving import api, batchrunner, finish, start, write_rows
from faulty_server import completion, serve_in_thread

TURNS = ["Name a colour.", "Another one.", "Which is darker?"]


def talks(count: int) -> list[dict]:
    return [{"id": f"t{n}", "system": f"You are {n}.", "turns": TURNS} for n in range(count)]


def openai_words(rows, url: str, *more: object) -> list[object]:
    return ["run", rows, "--provider", "openai", "--model", "m", "--base-url", url, *more]


def questions(line: dict) -> list[str]:
    return [message["content"] for message in line["body"]["messages"] if message["role"] == "user"]


@pytest.fixture
def server(tmp_path):
    with api(tmp_path / "api.jsonl", latency=0.03) as running:
        yield running


@pytest.mark.parametrize("name", ["conversation", "session_id"])
def test_items_of_a_conversation_reach_the_server_in_order(tmp_path, server, name):
    asked = [{"id": f"{c}-{n}", "prompt": f"{c} {n}", name: c} for n in range(5) for c in "abcd"]
    rows = write_rows(tmp_path / "rows.jsonl", asked)

    ended = batchrunner(*openai_words(rows, server.openai, "--concurrency", 8))

    assert ended.code == 0, ended.err
    prompts = [questions(line)[0] for line in server.seen()]
    assert all([text for text in prompts if text[0] == c] == [f"{c} {n}" for n in range(5)] for c in "abcd")
    assert all(name not in line["body"] for line in server.seen())


@pytest.mark.slow
def test_a_conversation_rides_along_and_a_bad_row_ends_it(tmp_path, server):
    asked = [{"id": f"{n}", "prompt": f"say {n}", "conversation": n % 2} for n in range(8)]
    asked[2] |= {"prompt": ""}
    rows = write_rows(tmp_path / "rows.jsonl", asked)

    ended = batchrunner(*openai_words(rows, server.openai, "--json"))

    assert ended.code == 3
    table = pl.read_parquet(ended.summary["results"])
    assert table["conversation"].to_list() == [n % 2 for n in range(8)]
    assert table["error_type"].to_list() == [None, None, "bad_row", None, "session", None, "session", None]
    asked[2] |= {"prompt": "say 2"}
    write_rows(rows, asked)
    again = batchrunner(*openai_words(rows, server.openai, "--json"))
    assert (again.code, again.summary["now"]["sent"]) == (0, 3)


def test_each_turn_is_asked_once_the_one_before_it_is_answered(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [*talks(5), {"id": "plain", "prompt": "Hi"}])
    words = openai_words(rows, server.openai, "--set", 'prices."m".input_per_million=1')

    ended = batchrunner(*words, "--set", 'prices."m".output_per_million=2', "--json")

    assert ended.code == 0, ended.err
    table = pl.read_parquet(ended.summary["results"])
    answers = [None if text is None else json.loads(text) for text in table["turns"]]
    assert answers[5] is None
    for text, turns in zip(table["text"][:5], answers, strict=False):
        assert [set(turn) >= {"text", "finish_reason", "prompt_tokens"} for turn in turns] == [True] * 3
        assert turns[-1]["text"] == text
    assert table["attempts"].to_list() == [3, 3, 3, 3, 3, 1]
    used = Counter()
    for line in server.seen():
        said = [message["content"] for message in line["body"]["messages"] if message["role"] == "assistant"]
        assert len(said) == len(questions(line)) - 1
        used["requests"] += 1
    assert used["requests"] == 16 == ended.summary["now"]["sent"]
    spent = ended.summary["prompt_tokens"] * 1e-6 + ended.summary["completion_tokens"] * 2e-6
    assert ended.summary["cost_usd"] == pytest.approx(spent)
    assert table["cost_usd"].sum() == pytest.approx(spent)
    for name in ("prompt_tokens", "completion_tokens"):
        assert table[name].sum() == ended.summary[name]
        assert table[name][0] == sum(turn[name] for turn in answers[0])


@pytest.mark.slow
def test_without_turns_there_is_no_such_column(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Hi"}])

    table = batchrunner(*openai_words(rows, server.openai)).table()

    assert "turns" not in table.columns


@pytest.mark.slow
def test_a_job_can_say_the_turns_over_columns_of_the_rows(tmp_path, server):
    write_rows(tmp_path / "rows.jsonl", [{"id": 1, "topic": "tea"}])
    (tmp_path / "job.toml").write_text(
        f"""
        input = {{ path = "rows.jsonl" }}
        provider = {{ kind = "openai", base_url = "{server.openai}" }}
        request = {{ model = "m", turns = ["Tell me of {{{{ topic }}}}.", "Shorter."] }}
        """
    )

    ended = batchrunner("run", tmp_path / "job.toml")

    assert ended.code == 0, ended.err
    assert [questions(line) for line in server.seen()] == [["Tell me of tea."], ["Tell me of tea.", "Shorter."]]


@pytest.mark.slow
def test_turns_may_be_a_list_column_of_parquet(tmp_path, server):
    table = pa.table({"id": ["a"], "turns": pa.array([["One.", "Two."]], pa.list_(pa.string()))})
    pq.write_table(table, tmp_path / "rows.parquet")

    ended = batchrunner(*openai_words(tmp_path / "rows.parquet", server.openai))

    assert ended.code == 0, ended.err
    assert questions(server.seen()[-1]) == ["One.", "Two."]


def test_answered_turns_survive_kills_and_are_never_bought_again(tmp_path):
    """SIGKILL again and again: at the server, at most what was in flight is answered twice."""
    count, concurrency, kills, chance = 18, 6, 3, random.Random(3)
    rows = write_rows(tmp_path / "rows.jsonl", talks(count))
    with api(tmp_path / "api.jsonl", latency=0.1) as server:
        words = openai_words(rows, server.openai, "--concurrency", concurrency)
        for _ in range(kills):
            process = start(*words)
            time.sleep(chance.uniform(0.6, 1.1))
            process.kill()
            finish(process)
        ended = batchrunner(*words, "--json")
        answered = server.answered()

    assert ended.code == 0, ended.err
    assert len(answered) == 3 * count
    assert sum(answered.values()) - 3 * count <= kills * concurrency
    table = pl.read_parquet(ended.summary["results"])
    assert [len(json.loads(text)) for text in table["turns"]] == [3] * count
    assert sum(len(line["body"]["messages"]) == 2 for line in server.seen()) < 2 * count


def test_a_conversation_that_ran_out_of_attempts_goes_on_where_it_was(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", talks(4))
    broken = True

    def answer(seen: Any) -> Any:
        second = sum(message["role"] == "user" for message in seen.json()["messages"]) == 2
        return {"status": 500, "body": ""} if broken and second else completion(seen)

    with serve_in_thread() as server:
        server.default = answer
        words = openai_words(rows, f"{server.url}/v1", "--set", "retry.attempts=1", "--concurrency", 8, "--json")
        first = batchrunner(*words)
        table = pl.read_parquet(first.summary["results"])
        broken = False
        second = batchrunner(*words)
        asked = [len(seen.json()["messages"]) for seen in server.seen]

    assert (first.code, second.code) == (4, 0)
    assert set(table["status"]) == {"exhausted"}
    assert [len(json.loads(text)) for text in table["turns"]] == [1] * 4
    # Messages sent: system and one, then three turns of talk; the first turn is bought once.
    assert Counter(asked) == {2: 4, 4: 8, 6: 4}


@pytest.mark.slow
def test_a_redo_asks_all_turns_anew(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", talks(2))
    run = tmp_path / "run"
    assert batchrunner(*openai_words(rows, server.openai, "--out", run)).code == 0

    ended = batchrunner("redo", run, "--where", "item_id = 't1'")

    assert ended.code == 0, ended.err
    assert len(server.seen()) == 9


def test_a_shard_would_take_a_conversation_apart(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Hi", "conversation": "c"}])

    ended = batchrunner(*openai_words(rows, server.openai, "--shard", "0/2"))

    assert ended.code == 2
    assert "--shard" in ended.err
    assert batchrunner("plan", *openai_words(rows, server.openai, "--shard", "0/2")[1:]).code == 2
    assert server.seen() == []


@pytest.mark.slow
def test_show_has_every_turn(tmp_path, server):
    rows = write_rows(tmp_path / "rows.jsonl", talks(1))
    batchrunner(*openai_words(rows, server.openai, "--out", tmp_path / "run"))

    shown = batchrunner("show", tmp_path / "run").out

    assert all(f"--- answer to turn {number}" in shown for number in (1, 2, 3))


def test_behind_an_item_that_is_out_of_attempts_another_run_helps(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", [{"id": n, "prompt": f"Say {n}", "conversation": "c"} for n in range(4)])
    with api(tmp_path / "api.jsonl", error_rate=1) as failing:
        words = openai_words(rows, failing.openai, "--set", "retry.attempts=1", "--json")
        first = batchrunner(*words)

    assert first.code == 4
    assert first.summary["items"] | {"unfinished": 0} == {
        "total": 4, "succeeded": 0, "rejected": 3, "exhausted": 1, "unfinished": 0, "length": 0
    }  # fmt: skip
