"""Single answers held against what was expected, by every kind of score."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrunner.errors import JobError
from batchrunner.scores import Judgement, compile_scores, verdict
from batchrunner.scores.measures import numeric
from batchrunner.spec import ScoreSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchrunner.scores import Judgements, Scorer

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def scorer_of(
    spec: ScoreSpec, *, base: Path = Path(), columns: Sequence[str] = (), judged: Judgements | None = None
) -> Scorer:
    scorer = compile_scores([spec], params={"p": "param"}, base=base, columns=columns, judge=lambda _: judged or {})
    assert scorer is not None
    return scorer


def scored(text: str | None, column: Any = None, *, status: str = "succeeded", **spec: Any) -> float | None:
    """The score of one answer whose row has `column` in the column `expected`."""
    template = {} if spec["kind"] in ("python", "judge") or "expected" in spec else {"expected": "{{ expected }}"}
    if spec["kind"] == "regex" and column is None:
        template = {}
    judged = {"i": [Judgement(value=3.0, as_of=NOON), Judgement(value=5.0, as_of=NOON)]}
    scorer = scorer_of(ScoreSpec(name="x", **template, **spec), columns=["expected", "other"], judged=judged)
    batch = pa.RecordBatch.from_pylist(
        [{"item_id": "i", "status": status, "text": text, "expected": column, "other": "o"}],
        pa.schema(
            [
                ("item_id", pa.string()),
                ("status", pa.string()),
                ("text", pa.string()),
                ("expected", pa.array([column]).type),
                ("other", pa.string()),
            ]
        ),
    )
    names = {name: name for name in ("expected", "other")}
    found = scorer.derived(batch, names, frozenset())
    assert found.schema.field("scores").type == pa.struct([("x", pa.float64())])
    return found["scores"][0]["x"].as_py()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "text", "expected", "score"),
    [
        ("exact", " Canberra\n", "Canberra", 1),
        ("exact", "Canberra.", "Canberra", 0),
        ("exact", "b", ["a", "b"], 1),
        ("exact", "42", 42, 1),
        ("exact", "2", 2.0, 1),
        ("normalised", "  The CAPITAL: Canberra! ", "the capital canberra", 1),
        ("normalised", "Straße", "STRASSE", 1),
        ("normalised", "\uff21\uff22", "ab", 1),
        ("normalised", "キャンベラ。", "キャンベラ", 1),
        ("normalised", "can berra", "canberra", 0),
        ("contains", "It is CANBERRA, of course", "canberra", 1),
        ("contains", "It is Sydney", "canberra", 0),
        ("contains", "one and two", ["one", "two"], 1),
        ("contains", "one and three", ["one", "two"], 0),
        ("number", "The answer is 1,234.5.", 1234.5, 1),
        ("number", "6 times 7 is 42", "42", 1),
        ("number", "42 it is, I had 7 before", 42, 0),
        ("number", "none", 42, 0),
        ("number", "-3e2", -300, 1),
        ("number", "42", "forty-two", None),
        ("normalised", "`Paris`", "| paris |", 1),
        ("normalised", "won\u2019t", "wont", 1),
        ("normalised", "it is -5", "it is 5", 0),
        ("normalised", "1,5", "1.5", 0),
        ("normalised", "C#", "C", 0),
        ("normalised", "C++", "C", 0),
        ("normalised", "...", "?", 0),
        ("normalised", "", "-", 0),
        ("normalised", "5.", "5", 1),
        ("contains", "Cafe\u0301 noir", "Caf\u00e9", 1),
        ("number", "it is \u22125", -5, 1),
        ("number", "it is \u22125", 5, 0),
        ("number", "-$5", -5, 1),
        ("number", "1\u202f000", 1000, 1),
        ("number", "1'000", 1000, 1),
        ("number", "$1{,}000$", 1000, 1),
        ("number", "\u0664\u0662", 42, 1),
        ("number", "5 and '12' then", 12, 1),
        ("number", "it has 42 m\u00b2", 42, 1),
        ("json", '"Paris"', '"Paris"', 1),
        ("json", '"Paris"', "Paris", 1),
        ("json", 'Here: {"a": 1, "b": [true, null]}', '{"b": [true, null], "a": 1.0}', 1),
        ("json", '{"a": 1}', '{"a": true}', 0),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}', 0),
        ("json", "no JSON", '{"a": 1}', 0),
        ("json", '{"a": 1}', "not JSON", 0),
    ],
)  # fmt: skip
def test_each_kind_knows_right_from_wrong(kind, text, expected, score):
    assert scored(text, expected, kind=kind) == score


@pytest.mark.parametrize(
    ("kind", "more", "text", "expected", "score"),
    [
        ("number", {"tolerance": 0.5}, "10.4", 10, 1),
        ("number", {"tolerance": 0.5}, "10.6", 10, 0),
        ("number", {"tolerance": "5%"}, "105", 100, 1),
        ("number", {"tolerance": "5%"}, "-95", -100, 1),
        ("number", {"tolerance": "5%"}, "106", 100, 0),
        ("contains", {"ignore_case": False}, "CANBERRA", "canberra", 0),
        ("exact", {"field": "a.1.b"}, 'so {"a": [0, {"b": "x"}]}', "x", 1),
        ("exact", {"field": "a.2.b"}, '{"a": [0, {"b": "x"}]}', "x", 0),
        ("number", {"field": "n"}, '{"n": 3, "m": 9}', 3, 1),
        ("json", {"field": "flag"}, '{"flag": true}', True, 1),
        ("json", {"field": "tags"}, '{"tags": ["a"]}', '["a"]', 1),
        ("json", {"field": "label"}, '{"label": "bug"}', "bug", 1),
        ("regex", {"pattern": r"\d{3}"}, "room 101", None, 1),
        ("regex", {"pattern": r"\d{3}"}, "room 11", None, 0),
        ("regex", {"pattern": r"(?i)ANSWER: (\w+)"}, "so\nanswer: yes", "yes", 1),
        ("regex", {"pattern": r"(?i)ANSWER: (\w+)"}, "so\nanswer: no", "yes", 0),
        ("regex", {"pattern": r"(?i)ANSWER: (\w+)"}, "I do not know", "yes", 0),
        ("regex", {"pattern": r"\w+"}, "yes", "yes", 1),
        ("regex", {"pattern": r"(strongly )?refuse"}, "I refuse", None, 1),
        ("regex", {"pattern": r"(?x) a b  # both"}, "ab", None, 1),
        ("exact", {"expected": "{{ other }}-{{ params.p }}"}, "o-param", None, 1),
        ("exact", {"expected": "constant"}, "constant", None, 1),
        ("judge", {"run": "somewhere"}, "x", None, 4),
    ],
)  # fmt: skip
def test_what_else_a_score_may_say(kind, more, text, expected, score):
    assert scored(text, expected, kind=kind, **more) == score


@pytest.mark.parametrize("kind", ["exact", "normalised", "contains", "number", "json"])
@pytest.mark.parametrize("expected", [None, "", " ", []])
def test_where_nothing_is_expected_nothing_is_scored(kind, expected):
    assert scored("text", expected, kind=kind) is None


@pytest.mark.parametrize("status", ["rejected", "exhausted"])
def test_an_item_that_failed_has_no_score(status):
    assert scored("Canberra", "Canberra", kind="exact", status=status) is None
    assert scored(None, None, kind="judge", run="x", status=status) is None
    assert scored(None, None, kind="regex", pattern="x", status=status) is None


def test_an_answer_without_a_text_is_wrong_and_not_unknown():
    assert scored(None, "x", kind="exact") == 0
    assert scored(None, "x", kind="regex", pattern="x") == 0


def test_a_pattern_whose_search_would_never_end_ends():
    assert scored("a" * 50_000 + "b", None, kind="regex", pattern="^(a+)+$") == 0


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "[z-a]"])
def test_a_pattern_that_cannot_be_is_a_fault(pattern):
    with pytest.raises(JobError, match=r"score\.x\.pattern: "):
        scored("a", None, kind="regex", pattern=pattern)


def test_a_pattern_with_names_of_its_own_is_taken():
    assert scored("k=v", "v", kind="regex", pattern="=(?P<value>.)") == 1


@pytest.mark.parametrize(
    ("said", "field", "value"),
    [
        ('{"score": 4}', "score", 4),
        ('```json\n{"score": {"value": "3.5"}}\n```', "score.value", 3.5),
        ('{"ok": true}', "ok", 1),
        ('draft: {"score": 1}, revised: {"score": 5}, and {"note": 2}', "score", 5),
        ('{"score": null}', "score", None),
        ("4", None, 4),
        ("I give it a 4.", None, 4),
        ("8 of 10", None, None),
        ("good", None, None),
        ("good", "score", None),
    ],
)
def test_a_judges_verdict_is_one_number_or_none(said, field, value):
    assert verdict(said, field) == value


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_a_number_is_read_as_it_is_written(value):
    assert numeric(f"it is {value!r}") == pytest.approx(value)
    assert numeric(f"it is {value:,.3f}!") == pytest.approx(round(value, 3), abs=2e-3, rel=1e-9)


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    found = numeric(text)
    assert found is None or abs(found) < float("inf")


def test_what_a_function_raises_costs_no_results(tmp_path):
    (tmp_path / "mine_raising.py").write_text(
        "def score(row):\n    return {'a': True, 'b': 2, 'c': None}[row['item_id']]\n"
    )
    scorer = scorer_of(ScoreSpec(name="x", kind="python", function="mine_raising:score"), base=tmp_path, columns=[])
    rows = [{"item_id": each, "status": "succeeded", "text": ""} for each in "abcd"]

    found = scorer.derived(pa.RecordBatch.from_pylist(rows), {}, frozenset())

    assert found["scores"].to_pylist() == [{"x": 1.0}, {"x": 2.0}, {"x": None}, {"x": None}]
    assert [*scorer.notes()] == ["score x: mine_raising:score gave none for 1 items, the first d: KeyError: 'd'"]


@pytest.mark.parametrize(
    ("gave", "score", "noted"),
    [
        ("True", 1, False),
        ("None", None, False),
        ("decimal.Decimal('0.5')", 0.5, False),
        ("'yes'", None, True),
        ("float('nan')", None, True),
        ("[1]", None, True),
    ],
)
def test_what_is_no_number_is_no_score_and_is_said(tmp_path, gave, score, noted):
    """Each time from the file as it is now, whatever this process has loaded before."""
    (tmp_path / "mine_odd.py").write_text(f"import decimal\n\ndef score(row):\n    return {gave}\n")
    spec = ScoreSpec(name="x", kind="python", function="mine_odd:score")
    scorer = scorer_of(spec, base=tmp_path)

    found = scorer.derived(
        pa.RecordBatch.from_pylist([{"item_id": "a", "status": "succeeded", "text": ""}]), {}, frozenset()
    )

    assert found["scores"].to_pylist() == [{"x": score}]
    assert bool([*scorer.notes()]) == noted


def test_of_an_answer_that_came_later_a_judge_has_said_nothing():
    said = {"a": [Judgement(value=1.0, as_of=NOON), Judgement(value=5.0, as_of=NOON + timedelta(hours=2))]}
    spec = ScoreSpec(name="x", kind="judge", run="somewhere")
    scorer = scorer_of(spec, judged=said)
    times = [NOON - timedelta(hours=1), NOON + timedelta(hours=1), NOON + timedelta(hours=3)]
    rows = [{"item_id": "a", "status": "succeeded", "text": "", "finished_at": at} for at in times]

    found = scorer.derived(pa.RecordBatch.from_pylist(rows), {}, frozenset())

    assert found["scores"].to_pylist() == [{"x": 3.0}, {"x": 5.0}, {"x": None}]
    assert "1 answers are newer than their grades, the first a; run the judge's job" in next(iter(scorer.notes()))


def test_a_module_of_the_same_name_is_never_taken_for_it(tmp_path):
    (tmp_path / "json.py").write_text("def score(row):\n    return 1\n")
    spec = ScoreSpec(name="x", kind="python", function="json:score")

    with pytest.raises(JobError, match="another module 'json' is loaded already"):
        compile_scores([spec], params={}, base=tmp_path, columns=[], judge=lambda _: {})


def test_a_columns_name_where_its_value_is_meant_is_a_fault():
    with pytest.raises(JobError, match="'other' is a column; write"):
        scored("x", "y", kind="exact", expected="other")


def test_columns_that_are_json_in_the_results_are_values_again():
    scorer = scorer_of(ScoreSpec(name="x", kind="contains", expected="{{ words }}"), columns=["words"])
    rows = [{"status": "succeeded", "text": "a b", "input_words": '["a", "b"]'}]

    found = scorer.derived(pa.RecordBatch.from_pylist(rows), {"words": "input_words"}, frozenset({"words"}))

    assert found["scores"].to_pylist() == [{"x": 1.0}]


def test_an_expectation_that_a_row_does_not_allow_is_told(tmp_path):
    scorer = scorer_of(ScoreSpec(name="x", kind="exact", expected="{{ 6 // part }}"), base=tmp_path, columns=["part"])
    parts = {"a": 3, "b": 0, "c": None, "d": 6}
    rows = [{"item_id": each, "status": "succeeded", "text": "2", "part": part} for each, part in parts.items()]

    found = scorer.derived(pa.RecordBatch.from_pylist(rows), {"part": "part"}, frozenset())

    assert found["scores"].to_pylist() == [{"x": 1.0}, {"x": None}, {"x": None}, {"x": 0.0}]
    (note,) = scorer.notes()
    assert note.startswith("score x: could not be made for 2 items, the first b: ")
    assert "zero" in note


def test_a_number_that_is_held_against_none_is_told(tmp_path):
    scorer = scorer_of(ScoreSpec(name="x", kind="number", expected="{{ wanted }}"), base=tmp_path, columns=["wanted"])
    rows = [{"item_id": each, "status": "succeeded", "text": "2", "wanted": each} for each in ("a", "2", " ")]

    found = scorer.derived(pa.RecordBatch.from_pylist(rows), {"wanted": "wanted"}, frozenset())

    assert found["scores"].to_pylist() == [{"x": None}, {"x": 1.0}, {"x": None}]
    assert [*scorer.notes()] == ["score x: could not be made for 1 items, the first a: expected is no number: a"]
