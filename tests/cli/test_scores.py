"""Scores in the results: of the job, of a judge's run, made anew without a request."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import polars as pl
import pytest
from counting_server import counting
from driving import batchrunner, write_rows

from batchrunner import JobError, plan, run

if TYPE_CHECKING:
    from pathlib import Path

JOB = """
name = "graded"
[input]
path = "rows.jsonl"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
agent_id = 1
prompt = "{{{{ question }}}}"
[limits]
requests_per_minute = "none"
{scores}
"""
JUDGE = """
name = "judge"
[input]
path = "runs/graded/results.parquet"
id = "item_id"
[provider]
kind = "tess"
base_url = "{url}"
api_key = "none"
[request]
agent_id = 2
prompt = "{{{{ '{{' }}}}\\"grade\\": 4{{{{ '}}' }}}} for {{{{ text }}}}"
[limits]
requests_per_minute = "none"
"""
RIGHT = """
[[score]]
name = "right"
kind = "contains"
expected = "{{ wanted }}"
"""
GRADE = """
[[score]]
name = "grade"
kind = "judge"
run = "runs/judge"
field = "grade"
"""
ROWS = [
    {"id": "a", "question": "say Canberra", "wanted": "canberra"},
    {"id": "b", "question": "say Sydney", "wanted": "Canberra"},
    {"id": "c", "question": "say nothing", "wanted": None},
    {"id": "d", "question": "", "wanted": "x"},
]


def write_job(folder: Path, url: str, scores: str) -> Path:
    job = folder / "job.toml"
    job.write_text(JOB.format(url=url, scores=scores))
    return job


def scores_of(results: str) -> list[object]:
    return pl.read_parquet(results)["scores"].to_list()


def test_scores_are_a_column_and_what_they_read_is_kept(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT)
        ended = batchrunner("run", job, "--max-failed", 1)
        shown = batchrunner("show", job, "a")
        exported = batchrunner("export", job, "--format", "jsonl")

    assert ended.code == 0, ended.err
    table = ended.table()
    assert table["wanted"].to_list() == ["canberra", "Canberra", None, "x"]
    assert table["scores"].to_list() == [{"right": 1.0}, {"right": 0.0}, {"right": None}, {"right": None}]
    assert table.schema["scores"] == pl.Struct({"right": pl.Float64})
    assert "scores   right 1" in shown.out
    assert '"scores":{"right":1.0}' in exported.out.replace(" ", "")


def test_other_scores_are_made_of_the_same_answers(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with counting() as server:
        batchrunner("run", write_job(tmp_path, server.url, ""), "--max-failed", 1)
        write_job(tmp_path, server.url, RIGHT)
        again = batchrunner("reparse", tmp_path / "job.toml")
        scored = scores_of(again.last_line)
        write_job(tmp_path, server.url, RIGHT.replace("wanted }}", "wanted }}ish"))
        again_run = batchrunner("run", tmp_path / "job.toml", "--max-failed", 1)
        exported = batchrunner(
            "export", tmp_path / "runs/graded", "--format", "parquet", "--to", tmp_path / "t.parquet"
        )
        asked = server.books().asked.total()

    assert again.code == 0, again.err
    assert "scores made anew: right" in again.err
    assert scored == [{"right": 1.0}, {"right": 0.0}, {"right": None}, {"right": None}]
    assert again_run.code == 0, again_run.err
    assert scores_of(again_run.last_line)[0] == {"right": 0.0}
    assert exported.code == 0, exported.err
    assert scores_of(str(tmp_path / "t.parquet"))[0] == {"right": 0.0}
    assert asked == 3


def test_readers_tell_what_was_asked_and_lose_no_more_than_what_is_gone(tmp_path):
    """Prompt files and functions change after a run, and its table has to stay its own."""
    write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    (tmp_path / "old.md").write_text("OLD {{ question }}")
    (tmp_path / "checks_gone.py").write_text("def one(row):\n    return 1\n")
    score = '[[score]]\nname = "one"\nkind = "python"\nfunction = "checks_gone:one"'
    with counting() as server:
        job = write_job(tmp_path, server.url, score)
        job.write_text(job.read_text().replace('"{{ question }}"', '"file:old.md"'))
        ended = batchrunner("run", job)
        graded = tmp_path / "runs/graded"
        (tmp_path / "old.md").write_text("NEW {{ wanted }}")
        changed = batchrunner("show", graded, "a")
        (tmp_path / "old.md").unlink()
        (tmp_path / "checks_gone.py").unlink()
        gone = batchrunner("show", graded, "a")
        exported = batchrunner("export", graded, "--format", "openai-batch", "--to", tmp_path / "batch")

    assert ended.code == 0, ended.err
    assert "OLD say Canberra" in changed.out
    assert "scores   one 1" in changed.out
    assert "OLD say Canberra" in gone.out
    assert "the scores of this run cannot be made any more" in gone.err
    assert exported.code == 0, exported.err
    assert "OLD say Canberra" in (tmp_path / "batch/input.jsonl").read_text()


def test_a_judge_is_another_job_whose_answers_come_back_by_item(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS[:3])
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT + GRADE)
        judge = tmp_path / "judge.toml"
        judge.write_text(JUDGE.format(url=server.url))
        first = batchrunner("run", job)
        before = scores_of(first.last_line)
        judged = run(judge)
        taken = batchrunner("reparse", job)
        after = scores_of(taken.last_line)
        again = run(judge)
        batchrunner("redo", tmp_path / "runs/graded", "--where", "item_id = 'a'", "--set", "request.max_tokens=9")
        newer = batchrunner("reparse", job)
        stale = scores_of(newer.last_line)
        looked = run(judge)
        mended = scores_of(batchrunner("reparse", job).last_line)
        asked = server.books().asked.total()

    assert "score grade: runs/judge has no answer with a number at 'grade' yet" in first.err
    assert [score["grade"] for score in before] == [None] * 3
    assert judged.ok, judged.summary
    assert after == [{"right": 1.0, "grade": 4.0}, {"right": 0.0, "grade": 4.0}, {"right": None, "grade": 4.0}]
    # The results that the judge reads are another file now, whose rows ask the same.
    assert (again.exit, again.summary["now"]["sent"], asked) == (0, 0, 7)
    # A grade is that of the answer which was judged.
    assert [score["grade"] for score in stale] == [None, 4.0, 4.0]
    assert "1 answers are newer than their grades, the first a" in newer.err
    # The new answer says the same: the judge has looked at it, and needs no more than that.
    assert looked.summary["now"]["sent"] == 0
    assert [score["grade"] for score in mended] == [4.0] * 3


def test_a_judge_that_is_asked_several_times_gives_its_mean(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    with counting() as server:
        job = write_job(tmp_path, server.url, GRADE)
        judge = tmp_path / "judge.toml"
        text = JUDGE.format(url=server.url).split("prompt = ")[0]
        prompts = ", ".join(f"""g{n} = '{{{{ "{{" }}}}"grade": {n}}} {{{{ text }}}}'""" for n in (1, 2, 6))
        judge.write_text(f"{text}[matrix]\nprompt = {{ {prompts} }}\n[limits]\nrequests_per_minute = 'none'\n")
        run(job)
        judged = run(judge)
        taken = batchrunner("reparse", job)

    assert judged.ok, judged.summary
    assert judged.to_arrow().num_rows == 6
    assert scores_of(taken.last_line) == [{"grade": 3.0}, {"grade": 3.0}]


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ('kind = "exakt"', "score[0].kind: expected 'exact', 'normalised'"),
        ('name = "x y"', "score[0].name: expected a name of letters, digits, _ and -"),
        ('kind = "exact"', "score[0].expected: expected a value or a template such as"),
        ('kind = "exact"\nexpected = "a"\npattern = "b"', "a score of kind 'exact' takes no 'pattern'"),
        ('kind = "exact"\nexpcted = "a"', "unknown key 'expcted' in [score[0]]; did you mean 'expected'?"),
        (
            'kind = "exact"\nexpected = "{{ wnated }}"',
            "score.x.expected: no column or parameter 'wnated'; did you mean 'wanted'?",
        ),
        ('kind = "python"\nfunction = "nowhere:f"', "score.x.function: nowhere:f: No module named 'nowhere'"),
        ('kind = "regex"\npattern = "("', "score.x.pattern: "),
        ('name = ""\nkind = "regex"\npattern = "a"', "score[0].name: expected a name of letters"),
        ('kind = "number"\nexpected = 1\ntolerance = -1', "score[0].tolerance: expected a number of 0 or more"),
        ('kind = "judge"\nrun = "s3://b/run"', "score.x.run: expected a directory, got s3://b/run"),
        (
            'kind = "regex"\npattern = "a"\n[[score]]\nname = "x"\nkind = "regex"\npattern = "a"',
            "another score is called 'x' already",
        ),
    ],
)
def test_what_is_wrong_with_a_score_is_said_before_anything_is_sent(tmp_path, score, said):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    named = score if score.startswith("name") else f'name = "x"\n{score}'

    with pytest.raises(JobError, match=re.escape(said)):
        plan(write_job(tmp_path, "http://127.0.0.1:9", f"[[score]]\n{named}"))


def test_what_is_wrong_with_scores_and_with_the_request_is_said_at_once(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    wrong = '[[score]]\nname = "x"\nkind = "regex"\npattern = "("\n[[score]]\nname = "y"\nkind = "exact"\n'
    job = write_job(tmp_path, "http://127.0.0.1:9", f'{wrong}expected = "{{{{ wnated }}}}"')
    job.write_text(job.read_text().replace("{{", "{{ nix }}{{", 1))

    with pytest.raises(JobError) as raised:
        plan(job)

    assert [fault.partition(":")[0] for fault in raised.value.faults] == [
        "request.prompt",
        "score.x.pattern",
        "score.y.expected",
    ]


def test_a_pilot_and_shards_get_other_scores_too(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS)
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT)
        batchrunner("run", job, "--limit", 2, "--out", tmp_path / "pilot")
        for shard in ("0/2", "1/2"):
            batchrunner("run", job, "--shard", shard, "--out", tmp_path / "parts")
        job.write_text(job.read_text().replace('name = "right"', 'name = "other"'))
        pilot = batchrunner("reparse", job, "--out", tmp_path / "pilot")
        shards = [
            batchrunner("reparse", job, "--shard", shard, "--out", tmp_path / "parts") for shard in ("0/2", "1/2")
        ]
        state = json.loads((tmp_path / "pilot/run.json").read_text())
        merged = batchrunner("merge", tmp_path / "parts")

    assert [ended.code for ended in (pilot, *shards, merged)] == [0] * 4, (pilot.err, merged.err)
    assert [[*score] for score in scores_of(pilot.last_line)] == [["other"]] * 2
    assert {name for score in scores_of(merged.last_line) for name in score} == {"other"}
    assert (state["items"]["total"], state["items"]["unfinished"], state["exit"]) == (2, 0, 0)


def test_a_column_called_turns_is_kept_under_another_name(tmp_path):
    write_rows(tmp_path / "rows.jsonl", [{**row, "turns": 3} for row in ROWS[:2]])
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT.replace("{{ wanted }}", "{{ turns }}"))
        ended = batchrunner("run", job)

    assert ended.code == 0, ended.err
    assert ended.table()["input_turns"].to_list() == [3, 3]


def test_an_input_that_was_only_touched_is_the_same(tmp_path):
    write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT)
        batchrunner("run", job)
        (tmp_path / "rows.jsonl").touch()
        shown = batchrunner("export", tmp_path / "runs/graded")

    assert "cannot be read" not in shown.err
    assert "right" in json.loads(shown.out.splitlines()[0])["scores"]


def test_a_run_whose_input_is_another_now_is_read_as_its_results_were_made(tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", ROWS[:2])
    with counting() as server:
        job = write_job(tmp_path, server.url, RIGHT)
        first = pl.read_parquet(batchrunner("run", job).last_line)
        write_rows(rows, ROWS)
        graded = tmp_path / "runs/graded"
        exported = batchrunner("export", graded, "--format", "parquet", "--to", tmp_path / "copy.parquet")
        compared = batchrunner("compare", graded, "--by", "status", "--json")
        rows.unlink()
        gone = batchrunner("report", graded, "--by", "status")

    assert "its results are read as they were made" in exported.err
    assert pl.read_parquet(tmp_path / "copy.parquet").equals(first)
    assert json.loads(compared.out)["scores"] == ["right"]
    assert gone.code == 0, gone.err
    assert "SCORES" in gone.out
