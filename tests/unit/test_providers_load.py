"""Finding a dialect by its name, and what dialects say about themselves."""

from __future__ import annotations

import sys

import pytest

from batchrunner import providers
from batchrunner.errors import JobError
from batchrunner.records import Endpoint


def test_a_dialect_is_a_file_and_nothing_else_is_one():
    assert providers.available() == ["azure", "gateway", "openai", "opentools", "tess"]


def test_a_dialect_is_loaded_by_its_name():
    assert [providers.load(kind).name for kind in providers.available()] == providers.available()


@pytest.mark.parametrize("kind", ["base", "building", "reading", "reading.text", "../openai", ""])
def test_what_is_no_dialect_is_not_loaded(kind):
    with pytest.raises(JobError, match="unknown provider"):
        providers.load(kind)


def test_a_key_variable_serves_the_provider_s_own_addresses():
    own = {kind: providers.own_address(providers.load(kind)) for kind in ("azure", "tess")}

    assert own == {"azure": "https://*.openai.azure.com", "tess": "https://api.tess.im"}


def test_a_near_miss_is_named():
    with pytest.raises(JobError, match="unknown provider 'opentool'; did you mean 'opentools'"):
        providers.load("opentool")


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_vendor.py").write_text(
        "from batchrunner.providers.openai import OpenAI\nPROVIDER = OpenAI()\nN = 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_vendor"
    sys.modules.pop("my_vendor", None)


def test_a_user_brings_a_dialect_of_their_own(own_module):
    assert providers.load(f"{own_module}:PROVIDER").path == "/chat/completions"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("no_such_module:PROVIDER", "cannot be imported"),
        ("my_vendor:NONE", "has no 'NONE'"),
        ("my_vendor:N", "is no provider: it has no name"),
        ("my_vendor:", "expected 'package.module:PROVIDER'"),
        (":PROVIDER", "expected 'package.module:PROVIDER'"),
    ],
)
def test_an_own_dialect_that_is_none_says_why(own_module, kind, words):
    with pytest.raises(JobError, match=words):
        providers.load(kind)


@pytest.mark.parametrize(
    ("kind", "given", "normal"),
    [
        ("tess", "https://tess.pareto.io/api/", "https://tess.pareto.io/api"),
        ("tess", "https://tess.pareto.io/api/agents/8794/openai", "https://tess.pareto.io/api"),
        ("tess", " https://API.tess.im/agents/8794/openai/chat/completions ", "https://api.tess.im"),
        ("tess", "https://api.tess.im/agents", "https://api.tess.im"),
        ("tess", "https://api.tess.im/agents/8794/execute", "https://api.tess.im"),
        ("gateway", "https://api.mor.org/api/v1", "https://api.mor.org"),
        ("gateway", "https://api.mor.org/api/v1/chat/completions", "https://api.mor.org"),
        ("opentools", "https://api.opentools.com/v1/", "https://api.opentools.com"),
        ("openai", "https://api.openai.com", "https://api.openai.com/v1"),
        ("openai", "http://localhost:11434/v1/chat/completions", "http://localhost:11434/v1"),
        ("openai", "http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_addresses_pasted_from_samples_are_normalised(kind, given, normal):
    assert providers.load(kind).normalise(given) == normal


@pytest.mark.parametrize(
    "given",
    [
        "api.tess.im",
        "ftp://x",
        "https://",
        "http://[::1",
        "https://x?a=1",
        "https://x#a",
        "https://a\nb.example",
        "https://a b.example",
        "https://a\\\\b",
    ],
)
def test_an_address_that_is_none_is_refused(given):
    with pytest.raises(JobError, match=r"provider\.base_url"):
        providers.load("openai").normalise(given)


def test_a_password_in_an_address_is_refused_unseen():
    with pytest.raises(JobError) as refused:
        providers.load("openai").normalise("https://me:hunter2@x.example")

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("key", ["KEY", " KEY\n", "Bearer KEY", "bearer Bearer  KEY"])
def test_a_key_is_sent_as_a_bearer_whatever_stood_around_it(key):
    headers = providers.load("openai").headers(key, Endpoint(base_url="https://x"))

    assert headers["authorization"] == "Bearer KEY"


def test_headers_of_the_job_are_sent_under_one_spelling():
    endpoint = Endpoint(base_url="https://x", workspace_id="11", headers={"X-Team": "cx", "X-Workspace-Id": "7"})

    headers = providers.load("tess").headers("KEY", endpoint)

    assert headers["x-team"] == "cx"
    assert headers["x-workspace-id"] == "11"
    assert "X-Workspace-Id" not in headers


@pytest.mark.parametrize("workspace", ["eleven", "1.5", "-1", "١١", ""])
def test_a_workspace_is_a_whole_number(workspace):
    with pytest.raises(JobError, match=r"provider\.workspace_id"):
        providers.load("tess").headers(None, Endpoint(base_url="https://x", workspace_id=workspace))


def test_a_missing_workspace_is_worth_a_warning_on_tess_only():
    endpoint = Endpoint(base_url="https://x")

    warned = {kind: bool(providers.load(kind).warnings(endpoint)) for kind in providers.available()}

    assert warned == {"azure": False, "gateway": False, "openai": False, "opentools": False, "tess": True}
