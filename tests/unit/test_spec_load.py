"""A job file: what it says, what may be laid over it, and every fault at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchrunner.errors import JobError
from batchrunner.spec import Flag, for_rows, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from batchrunner.spec import JobSpec

WHOLE = """
name = "ticket-triage"
[params]
ds = ""
region = "eu"
[input]
path = "../data/{{ params.region }}-{{params.ds}}.parquet"
id = "ticket_id"
[provider]
kind = "tess"
base_url = "https://api.tess.im"
api_key = ["env:KEY_A", "file:keys/b"]
workspace_id = 11
headers = { x-team = "cx", x-number = 5 }
requests_per_key = 2
allow_http = true
[request]
agent_id = 8794
prompt = "Classify: {{ subject }} of {{ params.ds }}"
temperature = 0
extra = { tenant = "enterprise-a" }
volatile = ["extra.trace_id"]
[limits]
requests_per_minute = 600
tokens_per_minute = 200_000
concurrency = 16
per = "agent"
[retry]
attempts = 3
max_wait_s = "5m"
[timeouts]
item_s = "1h30m"
[budget]
max_cost_usd = 25
max_tokens_total = 5e7
deadline = "6h"
[prices."gpt-4.1"]
input_per_million = 1
output_per_million = 4.5
[output]
dir = "../runs/{{ params.region }}/{{ params.ds }}"
keep = ["subject"]
response = false
mode = "0600"
[telemetry]
notify = "mail -s '{{ params.ds }} done' me"
metrics_file = "{{ params.region }}.prom"
otlp_endpoint = "http://127.0.0.1:4318/"
sample = 1
[labels]
team = "cx"
build = 7
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobSpec]:
    """Loads a job file of the given text, called `jobs/nightly.toml`."""
    monkeypatch.chdir(tmp_path)
    path = Path("jobs/nightly.toml")
    path.parent.mkdir()

    def write_and_load(text: str, **told: Any) -> JobSpec:
        path.write_text(text)
        return load(path, **told)

    return write_and_load


def faults_of(call: Callable[[], object]) -> list[str]:
    with pytest.raises(JobError) as error:
        call()
    return list(error.value.faults)


def test_a_whole_job_is_read_as_written(job):
    spec = job(WHOLE, params={"ds": "2026-11-20"})

    assert spec.name == "ticket-triage"
    assert (spec.path, spec.rows, spec.base) == (Path("jobs/nightly.toml"), None, Path("jobs"))
    assert (spec.input.path, spec.input.id) == ("../data/eu-2026-11-20.parquet", "ticket_id")
    assert spec.provider.api_key == ("env:KEY_A", "file:keys/b")
    assert (spec.provider.workspace_id, spec.provider.headers["x-number"]) == ("11", "5")
    assert (spec.limits.requests_per_minute, spec.limits.tokens_per_minute) == (600.0, 200_000.0)
    assert (spec.limits.concurrency, spec.limits.per) == (16, "agent")
    assert (spec.retry.max_wait_s, spec.timeouts.item_s, spec.budget.deadline) == (300.0, 5400.0, 21600.0)
    assert spec.budget.max_tokens_total == 50_000_000
    assert spec.prices["gpt-4.1"].output_per_million == 4.5
    assert (spec.output.dir, spec.output.mode, spec.output.response) == ("../runs/eu/2026-11-20", 0o600, False)
    assert spec.labels == {"team": "cx", "build": "7"}
    assert spec.telemetry.model_dump() == {
        "notify": "mail -s '2026-11-20 done' me", "metrics_file": "eu.prom", "otlp_endpoint": "http://127.0.0.1:4318",
        "sample": 1.0,
    }  # fmt: skip


def test_a_job_that_says_little_gets_the_documented_defaults(job):
    spec = job('[input]\npath = "rows.jsonl"')

    assert spec.name == "nightly"
    assert spec.provider.kind is None
    assert spec.provider.api_key is None
    assert (spec.limits.requests_per_minute, spec.limits.concurrency, spec.limits.per) == (None, "auto", "key")
    assert spec.retry.model_dump() == {"attempts": 5, "max_wait_s": 300, "down_s": 600}
    assert spec.timeouts.model_dump() == {
        "connect_s": 10, "first_byte_s": 300, "idle_s": 60, "attempt_s": 600, "item_s": 3600,
    }  # fmt: skip
    assert spec.budget.model_dump() == {"max_cost_usd": None, "max_tokens_total": None, "deadline": None}
    assert spec.output.model_dump() == {"dir": None, "keep": None, "response": True, "mode": 0o640}
    assert spec.telemetry.model_dump() == {
        "notify": None, "metrics_file": None, "otlp_endpoint": None, "sample": 0.01,
    }  # fmt: skip
    assert not spec.rows_are_data


def test_requests_stay_templates(job):
    spec = job(WHOLE, params={"ds": "2026-11-20"})

    assert spec.request["prompt"] == "Classify: {{ subject }} of {{ params.ds }}"
    assert spec.params == {"ds": "2026-11-20", "region": "eu"}
    assert spec.params_in_input == ("region", "ds")
    assert spec.rows_are_data


def test_a_checked_job_cannot_be_changed(job):
    spec = job('[input]\npath = "rows.jsonl"')

    with pytest.raises(ValueError, match="frozen"):
        spec.limits.per = "model"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("[limits]\nconcurency = 1", "unknown key 'concurency' in [limits]; did you mean 'concurrency'?"),
        ("[limit]\nper = 'key'", "unknown key 'limit'; did you mean 'limits'?"),
        ("temperature = 1", "unknown key 'temperature'; it belongs in [request]"),
        ("[provider]\nagent_id = 1", "unknown key 'agent_id' in [provider]; it belongs in [request]"),
        ("[scor]\nx = 1", "unknown key 'scor'; did you mean 'score'?"),
        ("[provider]\nregion = 'eu'", "unknown key 'region' in [provider]; it belongs in [storage]"),
        (
            "[prices.'gpt-4.1']\ninput_per_million = 1\noutput_per_million = 1\ncached = 1",
            "unknown key 'cached' in [prices.\"gpt-4.1\"]",
        ),
        (
            "[request]\ntemperatur = 1",
            (
                "unknown key 'temperatur' in [request]; did you mean 'temperature'?"
                " (further root fields of the body go into 'extra')"
            ),
        ),
        ("[request]\ntenant = 1", "unknown key 'tenant' in [request]; further root fields of the body go into 'extra'"),
        (
            "[limits]\nrequests_per_minute = -5",
            "limits.requests_per_minute: expected a number above 0, got -5",
        ),
        (
            "[limits]\nrequests_per_minute = 'fast'",
            "limits.requests_per_minute: expected a number above 0, or 'none', got 'fast'",
        ),
        (
            "[limits]\nrequests_per_minute = true",
            "limits.requests_per_minute: expected a number above 0, or 'none', got true",
        ),
        (
            "[limits]\ntokens_per_minute = inf",
            "limits.tokens_per_minute: expected a number above 0, or 'none', got inf",
        ),
        (
            "[limits]\nconcurrency = 10001",
            "limits.concurrency: expected a whole number from 1 to 10000, or 'auto', got 10001",
        ),
        ("[limits]\nper = 'row'", "limits.per: expected 'key', 'agent' or 'model', got 'row'"),
        ("limits = 5", "limits: expected a table, got 5"),
        ("prices = 5", "prices: expected a table, got 5"),
        ("[retry]\nattempts = 0", "retry.attempts: expected a whole number above 0, got 0"),
        ("[retry]\nattempts = 2.5", "retry.attempts: expected a whole number above 0, got 2.5"),
        ("[retry]\ndown_s = 0", "retry.down_s: expected a duration above 0, got 0"),
        (
            "[budget]\ndeadline = 'soon'",
            "budget.deadline: expected a duration such as 90, '90s', '10m' or '1h30m', got 'soon'",
        ),
        ("[budget]\nmax_cost_usd = nan", "budget.max_cost_usd: expected a number above 0, got nan"),
        (
            "[prices.m]\ninput_per_million = -1\noutput_per_million = 0",
            "prices.m.input_per_million: expected a price of 0 or more, got -1",
        ),
        (
            "[prices.m]\ninput_per_million = 1",
            "prices.m.output_per_million: expected US dollars for a million completion tokens, got nothing",
        ),
        (
            "[output]\nmode = 640",
            "output.mode: expected a file mode that lets its owner read and write, as text such as '0640', got 640",
        ),
        ("[output]\nkeep = 'subject'", "output.keep: expected a list of column names, got 'subject'"),
        ("[output]\nresponse = 'no'", "output.response: expected true or false, got 'no'"),
        ("[labels]\nteam = []", "labels.team: expected text, got []"),
        (
            "[provider]\nkind = 2026-11-20",
            "provider.kind: expected text, got the date or time 2026-11-20; put it in quotes",
        ),
        (
            "[provider]\napi_version = 2024-10-21",
            "provider.api_version: expected text, got the date or time 2024-10-21; put it in quotes",
        ),
        ("[provider]\ndeployment = 4", "provider.deployment: expected text, got 4"),
        (
            "[provider]\nbase_url = 'api.tess.im'",
            "provider.base_url: expected an address such as 'https://api.tess.im', got 'api.tess.im'",
        ),
        (
            "[provider]\nheaders = { authorization = 'x' }",
            "provider.headers: 'authorization' is made from provider.api_key, leave it out",
        ),
        ("[provider]\nheaders = { 'x y' = 'x' }", "provider.headers: 'x y' is no header name"),
        ("[request]\nmodel = 4", "request.model: expected text, got 4"),
        ("[request]\nextra = 4", "request.extra: expected a table of further root fields, got 4"),
        ("[request]\nstop = nan", "request.stop: expected a value that JSON has, got nan"),
        (
            "[request]\nseed = 99999999999999999999",
            "request.seed: expected a whole number of 64 bits, got 99999999999999999999",
        ),
        (
            "[request]\nprompt = 'a'\nmessages = [{role = 'user'}]",
            "request.prompt: expected either prompt or messages, got both",
        ),
        ("[[request.messages]]\ncontent = 'a'", "request.messages[0].role: expected a role such as 'user', got ''"),
        ("request = 'x'", "request: expected a table, got 'x'"),
        (
            "name = '../up'",
            "name: expected a name without '/' and control characters, at most 120 characters long, got '../up'",
        ),
    ],
)
def test_a_fault_names_file_key_and_what_would_be_right(job, lines, fault):
    text = f"{lines}\n[input]\npath = 'rows.jsonl'"

    assert faults_of(lambda: job(text)) == [f"jobs/nightly.toml: {fault}"]


def test_a_job_without_rows_says_what_is_missing(job):
    assert faults_of(lambda: job("")) == ["jobs/nightly.toml: input.path: expected the path of the rows, got nothing"]


def test_all_faults_are_told_at_once(job):
    text = "[input]\npath = 5\n[limits]\nper = 1\n[request]\nmodell = 'x'\n[params]\nds = ''"

    assert len(faults_of(lambda: job(text, params={"sd": "x"}, environ={"BATCHRUNNER_RPM": "0"}))) == 6


@pytest.mark.parametrize(
    "line",
    [
        "api_key = 'sk-canary'",
        "api_key = ['env:A', 'sk-canary']",
        "api_key = 'env:sk-canary'",
        "api_key = { key = 'sk-canary' }",
        "base_url = 'https://me:sk-canary@host'",
        "proxy = 'sk-canary'",
        "headers = { authorization = 'Bearer sk-canary' }",
        "headers = { x-key = ['sk-canary'] }",
        "headers = 'sk-canary'",
    ],
)
def test_a_fault_never_shows_what_may_be_a_key(job, line):
    (fault,) = faults_of(lambda: job(f"[input]\npath = 'rows.jsonl'\n[provider]\n{line}"))

    assert "canary" not in fault
    assert fault.startswith("jobs/nightly.toml: provider.")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = nightly", "jobs/nightly.toml line 1, column 8: invalid value"),
        ("a = 1\nb = [1,\n", "jobs/nightly.toml line 2, column 8: invalid value"),
        ("[a]\n[a]\n", "jobs/nightly.toml line 2, column 3: cannot declare ('a',) twice"),
        ("a = " + "[" * 5000, "jobs/nightly.toml: nested too deeply"),
    ],
)
def test_a_syntax_error_has_its_line_and_column(job, text, fault):
    assert faults_of(lambda: job(text)) == [fault]


def test_a_number_too_long_to_read_is_a_fault(job):
    (fault,) = faults_of(lambda: job("a = 1" + "0" * 5000))

    assert fault.startswith("jobs/nightly.toml: exceeds the limit (4300 digits)")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (None, "job.toml: no such file or directory"),
        (b"name = '\xff'", "job.toml: expected UTF-8, got byte 0xff at 8"),
    ],
)
def test_an_unreadable_file_is_a_fault(tmp_path, monkeypatch, data, fault):
    monkeypatch.chdir(tmp_path)
    if data is not None:
        Path("job.toml").write_bytes(data)

    assert faults_of(lambda: load(Path("job.toml"))) == [fault]


def test_a_byte_order_mark_is_no_fault(job):
    assert job('\ufeffname = "x"\n[input]\npath = "rows.jsonl"').name == "x"


def test_overrides_win_over_environment_and_environment_over_the_file(job):
    text = "[input]\npath = 'rows.jsonl'\n[limits]\nrequests_per_minute = 1\ntokens_per_minute = 1\nconcurrency = 1"
    environ = {"BATCHRUNNER_RPM": "2", "BATCHRUNNER_TPM": "none", "BATCHRUNNER_DEADLINE": "2h"}

    spec = job(text, overrides={"limits.requests_per_minute": 3}, environ=environ)

    limits = spec.limits
    assert (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency) == (3, "none", 1)
    assert spec.budget.deadline == 7200


def test_what_is_sent_never_comes_from_the_environment(job):
    environ = {
        "BATCHRUNNER_MODEL": "x",
        "BATCHRUNNER_PROVIDER": "x",
        "BATCHRUNNER_AGENT_ID": "1",
        "BATCHRUNNER_RPM": "",
    }

    spec = job("[input]\npath = 'rows.jsonl'", environ=environ)

    assert spec.request == {}
    assert spec.provider.kind is None
    assert spec.limits.requests_per_minute is None


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (
            {"overrides": {"limits.concurrency": 0}},
            "--set limits.concurrency: expected a whole number from 1 to 10000, or 'auto', got 0",
        ),
        (
            {"overrides": {"limits.requests_per_minute": Flag(name="--rpm", value=-5)}},
            "--rpm: expected a number above 0, got -5",
        ),
        (
            {"overrides": {"limits.concurency": 1}},
            "--set limits.concurency: unknown key 'concurency' in [limits]; did you mean 'concurrency'?",
        ),
        ({"overrides": {"limits": {"per": "x"}}}, "--set limits: per: expected 'key', 'agent' or 'model', got 'x'"),
        ({"overrides": {"name.x": 1}}, "--set name.x: 'name' is no table, so it holds no 'x'"),
        ({"environ": {"BATCHRUNNER_MAX_COST": "lots"}}, "BATCHRUNNER_MAX_COST: expected a number above 0, got 'lots'"),
        ({"params": {"dss": "1"}}, "--param dss: unknown parameter 'dss'; did you mean 'ds'?"),
        ({"params": {"x": "1"}}, "--param x: unknown parameter 'x'; [params] declares 'ds'"),
        ({"params": {"ds": ""}}, "--param ds: expected a value, got ''"),
        ({"params": {"ds": "\udcff"}}, "--param ds: expected text in UTF-8"),
    ],
)
def test_a_fault_names_the_flag_or_the_variable_that_brought_it(job, told, fault):
    text = "name = 'x'\n[params]\nds = '1'\n[input]\npath = 'rows.jsonl'"

    assert faults_of(lambda: job(text, **told)) == [fault]


def test_the_last_who_set_a_key_answers_for_it(job):
    overrides = {"limits.concurrency": Flag(name="--concurrency", value=1), "limits": {"concurrency": 0}}

    (fault,) = faults_of(lambda: job("[input]\npath = 'rows.jsonl'", overrides=overrides))

    assert fault == "--set limits: concurrency: expected a whole number from 1 to 10000, or 'auto', got 0"


def test_a_key_s_second_fault_is_not_told_when_it_follows_from_the_first(job):
    (fault,) = faults_of(lambda: job("[input]\npath = 'rows.jsonl'\n[provider]\nbase_url = '{{ host }}'"))

    assert "can stand in braces here" in fault


def test_an_override_reaches_quoted_keys_and_new_sections(job):
    overrides = {
        'prices."gpt-4.1".input_per_million': 1,
        'prices."gpt-4.1".output_per_million': 2,
        "request.extra.tenant": "a",
    }

    spec = job("[input]\npath = 'rows.jsonl'", overrides=overrides)

    assert spec.prices["gpt-4.1"].input_per_million == 1
    assert spec.request == {"extra": {"tenant": "a"}}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[params]\nds = ''\n[input]\npath = '{{ params.ds }}'", "params.ds: it has no default; give --param ds=VALUE"),
        ("[params]\nds = true\n[input]\npath = 'x'", "params.ds: expected text, got true"),
        ("[params]\na-b = '1'\n[input]\npath = 'x'", "params.a-b: expected a name of letters, digits and underscores"),
        (
            "[params]\nds = '{{ params.x }}'\n[input]\npath = 'x'",
            "params.ds: expected plain text: a default cannot use another parameter",
        ),
        ("params = 5\n[input]\npath = 'x'", "params: expected a table, got 5"),
        (
            "[params]\nds = '1'\n[input]\npath = '{{ params.dss }}'",
            "input.path: unknown parameter 'dss'; did you mean 'ds'?",
        ),
        ("[input]\npath = '{{ params.ds }}'", "input.path: unknown parameter 'ds'; [params] declares none"),
        (
            "[input]\npath = 'x'\nid = '{{ id }}'",
            "input.id: only {{ params.NAME }} can stand in braces here, got '{{ id }}'",
        ),
        (
            "[input]\npath = ['{% if 1 %}']",
            "input.path[0]: only {{ params.NAME }} can stand in braces here, got '{% if 1 %}'",
        ),
        (
            "[params]\nds = '1'\n[input]\npath = '{{ params.ds }}'\n[output]\ndir = 'runs'",
            (
                "output.dir: parameter 'ds' is used in input.path but not here, so tonight's rows would replace last"
                " night's; add {{ params.ds }}, or leave output.dir out"
            ),
        ),
    ],
)
def test_parameters_have_faults_of_their_own(job, text, fault):
    assert faults_of(lambda: job(text)) == [f"jobs/nightly.toml: {fault}"]


def test_a_parameter_is_put_in_once_and_never_read_again(job):
    text = "[params]\na = '1'\nb = '2'\n[input]\npath = '{{ params.a }}/{{ params.b }}'\n[labels]\nx = '{{params.a}}'"

    spec = job(text, params={"a": "{{ params.b }}"})

    assert spec.input.path == "{{ params.b }}/2"
    assert spec.labels["x"] == "{{ params.b }}"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/prompts.jsonl", "prompts"),
        ("prompts.v2.jsonl.gz", "prompts.v2"),
        ("my prompts.PARQUET", "my prompts"),
        ("part-*.csv.zst", "part-_"),
        ("data/*.jsonl", "rows"),
        ("-", "stdin"),
    ],
)
def test_a_rows_file_alone_names_its_run(path, name):
    spec = for_rows(path, overrides={"provider.kind": "tess", "request.agent_id": 8794})

    assert (spec.name, spec.rows, spec.input.path, spec.path) == (name, path, path, None)
    assert spec.base == Path()
    assert spec.request == {"agent_id": 8794}


def test_braces_in_the_name_of_a_rows_file_are_its_own():
    assert for_rows("{{ x }}.jsonl").input.path == "{{ x }}.jsonl"


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ({"overrides": {"input.path": "b.jsonl"}}, "--set input.path: the rows are 'a.jsonl' already"),
        ({"params": {"ds": "1"}}, "--param ds: unknown parameter 'ds'; [params] declares none"),
        ({"overrides": {"provider.kind": 5}}, "--set provider.kind: expected text, got 5"),
    ],
)
def test_a_rows_file_alone_has_faults_too(told, fault):
    assert faults_of(lambda: for_rows("a.jsonl", **told)) == [fault]


def test_the_caller_keeps_what_it_passed():
    extra = {"tenant": "a"}

    for_rows("a.jsonl", overrides={"request.extra": extra, "request.extra.more": 1})

    assert extra == {"tenant": "a"}


def test_the_public_job_names_deployment_and_version(job):
    text = "[input]\npath = 'rows.jsonl'\n[provider]\ndeployment = 'd'"

    public = job(text, overrides={"provider.api_version": "2024-10-21"}).public()

    assert public["provider"].items() >= {"deployment": "d", "api_version": "2024-10-21"}.items()


def test_the_public_job_holds_references_and_masks_what_looks_secret(job):
    text = """
    [input]
    path = "rows.jsonl"
    [provider]
    api_key = "env:KEY_A"
    proxy = "http://me:canary@proxy:3128"
    headers = { x-team = "cx", x-upstream-key = "canary-1", x-other = "Bearer canary-2" }
    [request]
    model = "m"
    extra = { tenant = "a", deep = { api_key = "canary-3", max_tokens = 5 } }
    """

    public = job(text).public()

    assert "canary" not in repr(public)
    assert public["provider"]["api_key"] == ["env:KEY_A"]
    assert public["provider"]["headers"]["x-team"] == "cx"
    assert public["provider"]["proxy"] == "http://***@proxy:3128"
    assert public["request"]["extra"] == {"tenant": "a", "deep": {"api_key": "***", "max_tokens": 5}}
    assert public["output"]["mode"] == "0640"


def test_importing_the_specification_loads_nothing_heavy():
    heavy = {"pyarrow", "polars", "httpx", "aiohttp", "orjson", "jinja2", "genai_prices"}
    code = f"import sys, batchrunner.spec; print(sorted({heavy!r} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_telemetry_that_will_not_do_is_told_without_what_may_be_a_secret(job):
    faults = faults_of(
        lambda: job(
            '[input]\npath = "rows.jsonl"\n[telemetry]\nnotfy = "x"\nnotify = "curl \'t0ken"\nsample = 2\n'
            'otlp_endpoint = "http://me:t0ken@collector:4318"'
        )
    )

    assert len(faults) == 4
    assert "did you mean 'notify'?" in "".join(faults)
    assert any("telemetry.sample: expected a share from 0 to 1, got 2" in fault for fault in faults)
    assert any("telemetry.otlp_endpoint" in fault and "OTEL_EXPORTER_OTLP_HEADERS" in fault for fault in faults)
    assert "t0ken" not in "".join(faults)


def test_the_manifest_says_nothing_of_who_is_told(job):
    assert "telemetry" not in job(WHOLE, params={"ds": "2026-11-20"}).public()
