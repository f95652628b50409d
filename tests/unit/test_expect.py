"""JSON found in answers, schemas as declared columns, and whatever is valid read back as it was."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner.errors import JobError
from batchrunner.expect import expectation
from batchrunner.expect.finding import candidates
from batchrunner.records import Completion

NAMES = st.sampled_from(["a", "b", "Ünï", "x y", "z.1"])
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12)


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties)}


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string"},
            {"type": "integer", "minimum": -(2**40), "maximum": 2**40},
            {"type": "number"},
            {"type": "boolean"},
            {"enum": ["one", "two"]},
            {"type": ["integer", "null"]},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(object_of),
    ),
    max_leaves=6,
)


def valid(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema["type"]
    if isinstance(kind, list):
        return st.none() | valid({**schema, "type": kind[0]})
    if kind == "array":
        return st.lists(valid(schema["items"]), max_size=3)
    if kind == "object":
        return st.fixed_dictionaries({name: valid(inner) for name, inner in schema["properties"].items()})
    return {
        "string": TEXTS,
        "integer": st.integers(-(2**40), 2**40),
        "number": st.floats(allow_nan=False, allow_infinity=False),
        "boolean": st.booleans(),
    }[kind]


def read_back(expected: Any, values: list[Any] | None) -> list[Any]:
    arrays = [
        pa.array([value], column.type) for value, column in zip(values or [], expected.columns.values(), strict=True)
    ]
    names = [column.name for column in expected.columns.values()]
    sink = io.BytesIO()
    pq.write_table(pa.table(arrays, names), sink)
    table = pq.read_table(io.BytesIO(sink.getvalue()))
    assert [field.type for field in table.schema] == [column.type for column in expected.columns.values()]
    return [table[name][0].as_py() for name in names]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), properties=st.dictionaries(NAMES, SCHEMAS, min_size=1, max_size=3))
def test_whatever_is_valid_comes_back_from_a_table_as_it_was(data, properties):
    schema = object_of(properties)
    instance = data.draw(valid(schema))
    expected = expectation(schema, prefix="out_", allow_length=False)

    values = expected.values(f"Well:\n```json\n{json.dumps(instance)}\n```")

    assert read_back(expected, values) == [instance[name] for name in properties]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', [{"a": 1}]),
        ('\ufeff {"a": 1}\n', [{"a": 1}]),
        ("```\n[1]\n```", [[1], [1]]),
        ('Sure! {"a": {"b": "}"}} and {"c": 2}.', [{"a": {"b": "}"}}, {"c": 2}]),
        ("none at all", []),
        ("", []),
        ('{"a": NaN}', []),
        ('{"a": 1', []),
    ],
)
def test_json_is_found_in_what_people_and_models_write_around_it(text, found):
    assert list(candidates(text)) == found


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 50_000, "```\n" * 50_000, "x{" * 100_000])
def test_no_text_takes_long(text):
    assert list(candidates(text)) == []


def test_the_value_that_fits_is_taken_rather_than_the_first():
    expected = expectation(object_of({"a": {"type": "integer"}}), prefix="out_", allow_length=False)

    assert expected.values('An example is {"a": "x"}, mine is {"a": 2}.') == [2]


def completion(text: str | None, finish_reason: str = "stop") -> Completion:
    return Completion(text=text, finish_reason=finish_reason)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no JSON was found in the answer"),
        ('{"a": "x"}', 'a: "x" is not of type "integer"'),
        ("{}", '"a" is a required property'),
        (f'{{"a": {2**70}}}', "is no number of 64 bits"),
    ],
)
def test_what_is_wrong_is_named(text, said):
    fault = expectation(object_of({"a": {"type": "integer"}}), prefix="", allow_length=False).fault(completion(text))

    assert fault is not None
    assert fault.error_type == "invalid_output"
    assert said in fault.said


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ({"$ref": "#/$defs/t"}, "int64"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string"),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "string"),
        ({"type": ["number", "integer"]}, "double"),
        ({"const": True}, "bool"),
        ({"enum": [1, 2, None]}, "int64"),
        ({"type": "array"}, "string"),
        ({"type": "object"}, "string"),
        ({"type": "array", "items": {"$ref": "#/$defs/t"}}, "list<item: int64>"),
        ({}, "string"),
    ],
)
def test_each_property_has_one_declared_type(schema, kind):
    whole = {**object_of({"a": schema}), "$defs": {"t": {"type": "integer"}}}

    assert str(expectation(whole, prefix="out_", allow_length=False).columns["a"].type) == kind


def test_a_schema_that_refers_to_itself_ends_in_text():
    tree = {**object_of({"kids": {"type": "array", "items": {"$ref": "#"}}})}

    expected = expectation(tree, prefix="out_", allow_length=False)

    assert expected.values('{"kids": []}') == [[]]


def test_an_answer_that_is_no_object_is_one_column():
    expected = expectation({"type": "array", "items": {"type": "number"}}, prefix="out_", allow_length=False)

    assert [column.name for column in expected.columns.values()] == ["out_value"]
    assert expected.values("[1, 2.5]") == [[1.0, 2.5]]
    assert math.isclose(expected.values("[0.1]")[0][0], 0.1)


def test_columns_that_are_there_already_are_refused():
    with pytest.raises(JobError, match="a column 'text' is there already"):
        expectation(object_of({"text": {}}), prefix="", allow_length=False, taken=["text"])


ANYTHING: dict[str, Any] = {}
ODD = [
    ("a list where only properties are told", {"properties": {"a": {"type": "string"}}}, "[1]", [None]),
    ("null for an object", {"type": ["object", "null"], "properties": {"a": {"type": "string"}}}, "null", [None]),
    ("half a character", {"properties": {"a": {"type": "string"}}}, '{"a": "x\\ud800"}', ["x\ufffd"]),
    ("half of one within JSON", {"properties": {"a": ANYTHING}}, '{"a": ["\\ud800"]}', ['["\\ud800"]']),
    ("deep", {"properties": {"a": ANYTHING}}, '{"a":' + "[" * 300 + "]" * 300 + "}", ["[" * 300 + "]" * 300]),
    ("a huge number", {"properties": {"a": ANYTHING}}, 'so: {"a": 1' + "0" * 30 + "}", ["1" + "0" * 30]),
    (
        "a tuple",
        {"properties": {"a": {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}}},
        '{"a": ["x", 1]}',
        ['["x",1]'],
    ),
    ("no name", {"type": "object", "properties": {"": {"type": "integer"}}}, '{"": 1}', [{"": 1}]),
    (
        "a document within the document",
        {
            "$defs": {
                "n": {"type": "integer"},
                "own": {"$id": "http://own/", "$ref": "#/$defs/n", "$defs": {"n": {"type": "string"}}},
            },
            "properties": {"a": {"$ref": "#/$defs/own"}},
        },
        '{"a": "x"}',
        ["x"],
    ),
]


@pytest.mark.parametrize(("schema", "text", "values"), [case[1:] for case in ODD], ids=[case[0] for case in ODD])
def test_a_valid_answer_of_an_odd_shape_has_a_place_in_the_table(schema, text, values):
    found = expectation(schema, prefix="", allow_length=False)

    assert found.fault(Completion(text=text, finish_reason="stop")) is None
    assert found.values(text) == values
    table = pa.RecordBatch.from_pydict({"text": [text], "status": ["succeeded"]})
    assert [column.to_pylist()[0] for column in found.derived(table).columns[2:]] == values


def test_a_number_that_no_float_holds_is_not_as_expected():
    found = expectation({"properties": {"a": {"type": "number"}}}, prefix="", allow_length=False)
    fault = found.fault(Completion(text='{"a": 1' + "0" * 400 + "}", finish_reason="stop"))

    assert fault is not None
    assert "does not fit a column of double" in fault.said


def test_a_schema_that_refers_to_itself_often_is_text_from_there_on():
    branch = {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}
    tree = {"type": "object", "properties": dict.fromkeys(["left", "middle", "right"], branch)}
    found = expectation({"$ref": "#/$defs/tree", "$defs": {"tree": tree}}, prefix="", allow_length=False)

    assert found.values('{"left": {"right": {}}}') == ['{"right":{}}', None, None]
