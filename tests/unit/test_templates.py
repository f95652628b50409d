"""What a row asks: templates that read it, or the row itself; and what the job's part of it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrunner import templates
from batchrunner.errors import BadRow, JobError

NOWHERE = Path("/nowhere")
ROW = {"subject": "Broken", "body": "It is.", "heat": 0.5, "tags": ["a", "b"], "order": {"items": 3}, "gap": None}


def compiled(request: dict[str, Any], *, base: Path = NOWHERE, columns: Any = None, **params: str) -> templates.Asker:
    return templates.compile_request(request, params=params, base=base, columns=ROW if columns is None else columns)


def ask(request: dict[str, Any], row: dict[str, Any] | None = None, **params: str) -> dict[str, Any]:
    return compiled(request, **params).ask(ROW if row is None else row)


def prompt(source: str, row: dict[str, Any] | None = None, **params: str) -> str:
    return str(ask({"prompt": source}, row, **params)["messages"][-1]["content"])


def faults(request: dict[str, Any], **params: str) -> list[str]:
    with pytest.raises(JobError) as refused:
        compiled(request, **params)
    return list(refused.value.faults)


def bad(request: dict[str, Any], row: dict[str, Any] | None = None) -> str:
    with pytest.raises(BadRow) as refused:
        ask(request, row)
    return str(refused.value)


def test_a_prompt_reads_columns_and_parameters():
    assert prompt("On {{ params.ds }}: {{ subject }}\n{{ body }}\n", ds="Monday") == "On Monday: Broken\nIt is.\n"


def test_a_job_gives_system_fields_and_extras():
    request = {
        "agent_id": 8794,
        "system": "Be brief.",
        "prompt": "{{ subject }}",
        "temperature": 0,
        "extra": {"tenant": "e", "tag": "{{ tags[0] }}"},
        "volatile": ["extra.tag"],
    }

    assert ask(request) == {
        "agent_id": "8794",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Broken"}],
        "temperature": 0,
        "extra": {"tenant": "e", "tag": "a"},
    }


def test_a_single_expression_keeps_its_type_but_a_prompt_is_text():
    request = {
        "prompt": "{{ heat }}",
        "temperature": "{{ heat }}",
        "stop": "{{ tags | map('upper') }}",
        "seed": "{{- 7 -}}",
        "user": "{{ heat }}.",
        "metadata": {"order": "{{ order }}"},
    }

    assert ask(request) == {
        "messages": [{"role": "user", "content": "0.5"}],
        "temperature": 0.5,
        "stop": ["A", "B"],
        "seed": 7,
        "user": "0.5.",
        "metadata": {"order": {"items": 3}},
    }


def test_messages_may_be_templates_and_content_may_be_parts():
    row = {"history": [{"role": "user", "content": "a"}], "parts": [{"type": "text", "text": "b"}], "n": 5}
    columns = {"columns": row}

    messages = [{"role": "{{ 'user' }}", "content": "{{ n }}"}, {"role": "user", "content": "{{ parts }}"}]

    assert compiled({"messages": messages}, **columns).ask(row)["messages"] == [
        {"role": "user", "content": "5"},
        {"role": "user", "content": [{"type": "text", "text": "b"}]},
    ]
    assert compiled({"messages": "{{ history }}"}, **columns).ask(row)["messages"] == row["history"]


def test_null_is_nothing_in_a_text_and_no_field_elsewhere():
    assert prompt("[{{ gap }}]") == "[]"
    assert prompt("{{ gap or 'none' }}, {{ gap | default('none', true) }}") == "none, none"
    assert "temperature" not in ask({"prompt": "x", "temperature": "{{ gap }}"})


def test_what_a_row_holds_is_never_compiled():
    assert prompt("{{ subject }}", {"subject": "{{ body }}{% raw %}"}) == "{{ body }}{% raw %}"


def test_text_is_not_escaped_and_json_is_plain():
    assert prompt("{{ subject }}", {"subject": "<b>&'\""}) == "<b>&'\""
    assert prompt("{{ order | tojson }} {{ subject | tojson }}", {"order": {"a": [1]}, "subject": "<é>"}) == (
        '{"a": [1]} "<é>"'
    )


def test_data_goes_before_methods_of_the_same_name():
    assert prompt("{{ order.items }}") == "3"
    assert "is a function, not a value" in bad({"prompt": "{{ order.keys }}"})


def test_a_column_with_an_odd_name_is_read_through_the_row():
    asker = compiled({"prompt": "{{ row['first name'] }}"}, columns=["first name", "other"])

    assert asker.ask({"first name": "Ann"})["messages"][0]["content"] == "Ann"
    assert asker.names == {"first name"}
    assert compiled({"prompt": "{{ row | length }}"}).names == set(ROW)
    assert prompt("{% for name, value in row.items() %}{{ name }} {% endfor %}", {"b": 1, "a": 2}) == "b a "


def test_a_column_may_be_called_like_something_of_jinja():
    row = {"range": "wide", "row": "first", "dict": "thick"}

    assert compiled({"prompt": "{{ range }} {{ row }} {{ dict }}"}, columns=row).ask(row)["messages"][0]["content"] == (
        "wide first thick"
    )


def test_what_templates_read_is_known():
    assert compiled({"prompt": "{{ subject }}{% for tag in tags %}{{ tag }}{% endfor %}"}).names == {"subject", "tags"}


def test_all_unknown_names_are_told_at_once_with_what_was_meant():
    told = faults({"prompt": "{{ subjct }} {{ params.dx }}", "system": "{{ row.bdoy }}", "n": "{{ 1 + zzz }}"}, ds="1")

    assert told == [
        "request.prompt: no parameter 'dx' (found: ds)",
        "request.prompt: no column or parameter 'subjct'; did you mean 'subject'?",
        "request.system: no column or parameter 'bdoy'; did you mean 'body'?",
        "request.n: no column or parameter 'zzz' (found: body, gap, heat, order, subject, tags)",
    ]


def test_names_are_not_judged_by_an_input_without_rows():
    assert compiled({"prompt": "{{ anything }}"}, columns=()).names == {"anything"}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ subject", "request.prompt: line 1: unexpected end of template"),
        ("a\n{% if %}", "request.prompt: line 2: "),
        ("{{ subject | nope }}", "request.prompt: line 1: No filter named 'nope'"),
        ("{% include 'x' %}", "request.prompt: a template cannot take in another one"),
        ("{% import 'x' as x %}", "request.prompt: a template cannot take in another one"),
        ("{{ lipsum() }}", "request.prompt: no column or parameter 'lipsum'"),
        ("{{ tags | random }}", "request.prompt: line 1: No filter named 'random'"),
        ("{{ params.ds.nope }}", "request.prompt: 'str object' has no attribute 'nope'"),
    ],
)
def test_a_template_that_can_never_work_is_a_fault_of_the_job(source, why):
    (told,) = faults({"prompt": source}, ds="1")

    assert told.startswith(why)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ subject.nope }}", "'str object' has no attribute 'nope'"),
        ("{{ order.nope }}", "'dict object' has no attribute 'nope'"),
        ("{{ subject + 1 }}", "TypeError: "),
        ("{{ heat / 0 }}", "ZeroDivisionError: "),
        ("{{ tags[9] }}", "list object has no element 9"),
        ("{{ subject.__class__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ tags.append('c') }}", "'list' object has no attribute 'append'"),
    ],
)
def test_an_error_over_a_row_is_a_fault_of_that_row(source, why):
    for request in ({"prompt": source}, {"prompt": "x", "seed": source}):
        told = bad(request)
        assert told.startswith(("request.prompt: ", "request.seed: "))
        assert why in told or "append" in told


def test_a_column_that_one_row_lacks_is_a_fault_of_that_row():
    assert bad({"prompt": "{{ subject }}"}, {"body": "x"}) == "request.prompt: 'subject' is undefined"
    assert bad({"prompt": "x", "seed": "{{ heat }}"}, {"body": "x"}) == "request.seed: 'heat' is undefined"
    assert prompt("{{ subject | default('none') }}", {"body": "x"}) == "none"


HUNGRY = [
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% for i in range(9999) %}{{ body * 9999 }}{% endfor %}",
    "{% for i in range(10 ** 9) %}{{ i }}{% endfor %}",
    "{{ subject * 10 ** 9 }}",
    "{{ (tags * 10 ** 9) | length }}",
    "{{ 10 ** (10 ** 5) }}",
    "{{ subject.ljust(10 ** 9) }}",
    "{{ '%1000000000d' % 3 }}",
    "{{ '%*d' % (10 ** 9, 3) }}",
    "{{ '%1000000000d' | format(3) }}",
    "{{ '{:1000000000d}'.format(3) }}",
    "{{ '{:{w}d}'.format(3, w=10 ** 9) }}",
    "{{ (subject.encode() * 10 ** 9) | length }}",
    "{{ range(9999) | join('y' * 300000) | length }}",
    "{{ ('y' * 300000).join(['a'] * 9999) | length }}",
    "{{ (subject * 3000).replace('e', 'y' * 300000) | length }}",
    "{{ (subject * 3000) | replace('e', 'y' * 300000) | length }}",
    "{{ (subject * 3000).translate({101: 'y' * 300000}) | length }}",
    "{{ ((subject + '\\n') * 10000) | indent('y' * 300000) | length }}",
    "{{ ((subject + ' ') * 10000) | wordwrap(1, wrapstring='y' * 300000) | length }}",
    "{{ subject | center(10 ** 9) }}",
    "{{ subject | indent(10 ** 9) }}",
    "{% set ns = namespace(x=subject) %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=subject) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(40) }}{{ subject }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}{{ subject }}",
]


@pytest.mark.parametrize("source", HUNGRY)
def test_no_template_runs_on_or_fills_the_memory(source):
    started = time.monotonic()

    assert bad({"prompt": source + "{{ gap }}"}).startswith("request.prompt: ")
    assert time.monotonic() - started < 5


def test_what_is_bounded_works_as_jinja_has_it():
    assert prompt("{{ '%5.1f|%-3s|%d%%' % (1.25, 'a', 7) }}") == "  1.2|a  |7%"
    assert prompt("{{ '%s and %s' | format(subject, body) }}") == "Broken and It is."
    assert prompt("{{ '{0:>8}|{x}'.format(subject, x=1) }}") == "  Broken|1"
    assert prompt("{{ tags | join(', ') }} {{ ', '.join(tags) }} {{ [order] | join('', attribute='items') }}") == (
        "a, b a, b 3"
    )
    assert prompt("{{ subject | replace('B', 'b') }} {{ subject.replace('B', 'b', 1) }}") == "broken broken"
    assert prompt("{{ 'one two' | wordwrap(3) }}") == "one\ntwo"


def test_the_meter_starts_anew_for_every_row():
    asker = compiled(
        {"prompt": "{% for i in range(9000) %}{% for j in range(3) %}x{% endfor %}{% endfor %}{{ subject }}"}
    )

    assert len({asker.ask(ROW)["messages"][0]["content"] for _ in range(6)}) == 1


def test_a_template_shows_all_of_a_long_row():
    text = "x" * 10_000_000

    assert len(prompt("{{ subject }}", {"subject": text})) == 10_000_000
    assert bad({"prompt": "{{ subject }}{{ subject }}"}, {"subject": text}) == "request.prompt: longer than 16 MiB"


def test_loops_work_as_jinja_has_them():
    shown = "{{ loop.index }}/{{ loop.length }}{{ tag }}{{ ', ' if not loop.last }}"
    source = "{% for tag in tags if tag != 'z' %}" + shown + "{% else %}-{% endfor %}"

    assert prompt(source) == "1/2a, 2/2b"
    assert prompt(source, {"tags": []}) == "-"


def test_a_file_stands_in_for_a_text(tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "kind.md").write_text("Dear {{ subject }}\n", encoding="utf-8")
    (tmp_path / "s.md").write_text("\ufeffSei höflich.", encoding="utf-8")

    asker = compiled(
        {"prompt": "file:p/{{ params.tone }}.md", "system": "file:s.md", "user": "file:s.md"},
        base=tmp_path,
        tone="kind",
    )

    assert asker.ask(ROW) == {
        "messages": [{"role": "system", "content": "Sei höflich."}, {"role": "user", "content": "Dear Broken\n"}],
        "user": "file:s.md",
    }
    assert asker.asked["request.prompt"] == "Dear {{ subject }}\n"
    assert asker.asked["params.tone"] == "kind"


def test_files_that_cannot_be_read_are_told_with_their_keys(tmp_path):
    (tmp_path / "latin.md").write_bytes(b"\xe9")
    request = {"prompt": "file:gone.md", "system": "file:latin.md"}

    with pytest.raises(JobError) as refused:
        compiled(request, base=tmp_path)

    assert [fault.split(": ")[0] for fault in refused.value.faults] == ["request.prompt", "request.system"]
    assert "gone.md: no such file or directory" in refused.value.faults[0]
    assert "latin.md is not text in UTF-8" in refused.value.faults[1]


def test_what_is_asked_is_flat_with_the_parameters_that_are_read():
    request = {
        "messages": [{"role": "user", "content": "{{ subject }} {{ params.ds }}"}],
        "temperature": 0,
        "tools": [],
        "extra": {"tenant": "e", "trace_id": "{{ params.run }}"},
        "volatile": ["extra.trace_id"],
    }

    assert compiled(request, ds="1", run="2", other="3").asked == {
        "request.messages.0.role": "user",
        "request.messages.0.content": "{{ subject }} {{ params.ds }}",
        "params.ds": "1",
        "request.temperature": 0,
        "request.tools": [],
        "request.extra.tenant": "e",
        "request.volatile": ["extra.trace_id"],
    }


def test_parameters_that_are_used_as_a_whole_are_all_read():
    for source in (
        "{% for p in params.values() %}{{ p }}{% endfor %}",
        "{{ params | tojson }}",
        "{{ params[subject] }}",
    ):
        assert {"params.a", "params.b"} <= set(compiled({"prompt": source}, a="1", b="2").asked)


# Rows that are requests.


def test_a_row_may_be_a_request():
    row = {"id": "1", "agent_id": 8794.0, "prompt": "Hi", "temperature": 0.5, "session_id": 7, "lang": "en", "n": None}

    assert ask({}, row) == {
        "agent_id": "8794",
        "session_id": "7",
        "messages": [{"role": "user", "content": "Hi"}],
        "temperature": 0.5,
    }


def test_the_job_gives_defaults_to_such_rows():
    request = {
        "system": "You are {{ params.who }}.",
        "temperature": 0,
        "agent_id": 1,
        "extra": {"tenant": "e", "tag": "job"},
    }
    row = {"prompt": "Hi", "temperature": None, "agent_id": 2, "extra": {"tag": "row"}}

    assert ask(request, row, who="Bob") == {
        "messages": [{"role": "system", "content": "You are Bob."}, {"role": "user", "content": "Hi"}],
        "temperature": 0,
        "agent_id": "2",
        "extra": {"tenant": "e", "tag": "row"},
    }


def test_defaults_read_parameters_only():
    (told,) = faults({"system": "{{ subject }}"})

    assert told.startswith("request.system: only params can be read here, got 'subject'")


def test_defaults_of_one_row_do_not_leak_into_the_next():
    asker = compiled({"extra": {"a": 1}})
    asker.ask({"prompt": "x", "extra": {"b": 2}})

    assert asker.ask({"prompt": "x"})["extra"] == {"a": 1}


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_text_of_the_messages_goes_before_that_of_the_job(role):
    messages = [{"role": role, "content": "Own."}, {"role": "user", "content": "Hi"}]

    assert ask({"system": "Job's."}, {"messages": messages})["messages"] == messages
    assert (
        ask({"system": "Job's."}, {"messages": messages[1:], "system": "Row's."})["messages"][0]["content"] == "Row's."
    )


def test_null_members_of_a_message_are_dropped_but_for_the_content_of_a_tool_call():
    messages = [
        {"role": "user", "content": "x", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}], "name": None},
    ]

    assert ask({}, {"messages": messages})["messages"] == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
    ]


def test_columns_may_hold_their_values_as_json_text():
    row = {
        "messages": '[{"role": "user", "content": "Hi"}]',
        "tools": '[{"type": "function"}]',
        "tool_choice": "auto",
        "stop": '["a", "b"]',
        "metadata": '{"k": "v"}',
        "extra": '{"tenant": "e"}',
    }

    assert ask({}, row) == {
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"type": "function"}],
        "tool_choice": "auto",
        "stop": ["a", "b"],
        "metadata": {"k": "v"},
        "extra": {"tenant": "e"},
    }


@pytest.mark.parametrize("fields", [{"tools": "no-tools"}, {"stop": "[END]"}, {"stop": "[1"}, {"temperature": "1"}])
def test_fields_that_may_be_text_stay_as_written(fields):
    assert ask({}, {"prompt": "x", **fields}) == {"messages": [{"role": "user", "content": "x"}], **fields}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "1", "text": "x"}, "no 'messages' or 'prompt' key (found: id, text)"),
        ({}, "no 'messages' or 'prompt' key (found: nothing)"),
        ({"prompt": None, "messages": None}, "no 'messages' or 'prompt' key (found: prompt, messages)"),
        ({"prompt": "x", "messages": []}, "both 'prompt' and 'messages'; give one of them"),
        ({"prompt": ["x"]}, "prompt: expected text, got a list"),
        ({"prompt": True}, "prompt: expected text, got a bool"),
        ({"prompt": ""}, "prompt: nothing to ask, the text is empty"),
        ({"prompt": " \n"}, "prompt: nothing to ask, the text is empty"),
        ({"messages": {"role": "user"}}, "messages: expected a list, got an object"),
        ({"messages": "hello"}, "messages: expected JSON, got text that is not: "),
        ({"prompt": "x", "system": 5}, "system: expected text, got a number"),
        ({"prompt": "x", "extra": [1]}, "extra: expected an object, got a list"),
        ({"prompt": "x", "agent_id": True}, "agent_id: expected text or a whole number, got a bool"),
        ({"prompt": "x", "agent_id": 1.5}, "agent_id: expected text or a whole number, got a number"),
        ({"prompt": "x", "tools": "[1"}, "tools: expected JSON, got text that is not: "),
    ],
)
def test_a_row_that_is_no_request_says_why(row, why):
    assert bad({}, row).startswith(why)


def test_a_prompt_of_a_numeric_csv_column_is_text():
    assert ask({}, {"prompt": 1984})["messages"] == [{"role": "user", "content": "1984"}]


BATCH_LINE = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "m", "messages": [{"role": "user", "content": "x"}], "top_k": 5, "n": None},
}


@pytest.mark.parametrize(
    ("line", "agent"),
    [
        ({"url": "/agents/a%20b/openai/chat/completions"}, "a b"),
        ({"url": "https://api.tess.im/agents/8795/openai/chat/completions"}, "8795"),
        ({"url": "/agents/8795/openai/chat/completions", "agent_id": 1}, "1"),
        ({"url": "/v1/chat/completions"}, "8794"),
        ({}, "8794"),
    ],
)
def test_the_agent_of_a_batch_line_may_be_in_its_url(line, agent):
    assert ask({"agent_id": 8794}, {"body": BATCH_LINE["body"], **line})["agent_id"] == agent


def test_a_line_of_a_batch_file_is_taken_as_it_is():
    assert ask({"temperature": 0}, BATCH_LINE) == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0,
        "extra": {"top_k": 5},
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "GET"}, "method: expected 'POST', got 'GET'"),
        ({"url": "/v1/embeddings"}, "url: expected an address that ends in '/chat/completions', got '/v1/embeddings'"),
        ({"body": {"model": "m"}}, "body: no 'messages' key"),
        ({"body": "text"}, "no 'messages' or 'prompt' key (found: custom_id, method, url, body)"),
        ({"body": "{text"}, "body: expected JSON"),
    ],
)
def test_a_line_of_another_batch_is_refused(change, why):
    assert bad({}, BATCH_LINE | change).startswith(why)


def test_method_and_url_may_be_missing_or_whole():
    assert ask({}, {"custom_id": "a", "body": BATCH_LINE["body"]})["model"] == "m"
    assert ask({}, BATCH_LINE | {"method": "post", "url": "https://h/v1/chat/completions?x=1"})["model"] == "m"


def test_columns_that_are_part_of_the_request_are_not_carried():
    def apart(*columns: str) -> frozenset[str]:
        return compiled({}, columns=columns).request_columns

    assert {"id", "custom_id", "prompt", "model", "extra", "session_id"} <= apart("id", "prompt", "body", "url")
    assert apart("id", "prompt", "body", "url").isdisjoint({"body", "url"})
    assert {"body", "url", "method"} <= apart(*BATCH_LINE)
    assert compiled({"prompt": "x"}).request_columns == frozenset()


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_whatever_is_written_as_a_template_is_a_text_or_a_fault(source):
    told = "request."
    try:
        compiled({"prompt": "x" + source, "user": source}).ask(ROW)
    except (JobError, BadRow) as error:
        told = str(error)
    assert told.startswith("request.")


@given(
    st.dictionaries(
        st.sampled_from(sorted(templates.REQUEST_FIELDS | {"body", "method", "url"})),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.text(max_size=2), max_size=2)
        | st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
        max_size=6,
    )
)
@settings(max_examples=300, deadline=None)
def test_any_row_is_an_ask_or_a_bad_row(row):
    asker = compiled({}, columns=row)
    try:
        said = asker.ask(row)
    except BadRow:
        return
    assert isinstance(said["messages"], list)
    assert None not in said.values()
