"""Azure: where its requests go, how they sign in, and what its refusals advise."""

from __future__ import annotations

import json
from typing import Any

import pytest

from batchrunner import providers
from batchrunner.errors import BadRow, JobError, RequestError
from batchrunner.records import Endpoint, Reply, Request

AZURE = providers.load("azure")
HOST = "https://r.openai.azure.com"
HI = [{"role": "user", "content": "hi"}]


def endpoint(**options: str) -> Endpoint:
    return Endpoint(base_url=HOST, options={"deployment": "d", "api_version": "2024-10-21", **options})


def build(at: Endpoint | None = None, **ask: Any) -> Request:
    return AZURE.build({"messages": HI, **ask}, at or endpoint())


@pytest.mark.parametrize(
    "given",
    [
        f" {HOST}/ ",
        f"{HOST}/openai",
        f"{HOST}/openai/",
        f"{HOST}/openai/v1/",
        f"{HOST}/openai/deployments/other",
        f"{HOST}/openai/deployments/other/chat/completions",
        f"{HOST}/openai/deployments/other/chat/completions?api-version=2023-05-15",
        f"{HOST}?api-version=2023-05-15",
    ],
)
def test_addresses_pasted_from_samples_are_normalised(given):
    assert AZURE.normalise(given) == HOST


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://openai", "https://openai"),
        ("https://proxy.example.com/team/openai/", "https://proxy.example.com/team"),
        ("https://proxy.example.com/openai-eu", "https://proxy.example.com/openai-eu"),
    ],
)
def test_what_only_looks_like_the_path_of_a_sample_stays(given, normal):
    assert AZURE.normalise(given) == normal


@pytest.mark.parametrize("given", [f"{HOST}?code=canary", f"{HOST}#api-version=1", "r.openai.azure.com"])
def test_an_address_that_is_none_is_refused(given):
    with pytest.raises(JobError, match=r"provider\.base_url") as refused:
        AZURE.normalise(given)

    assert "canary" not in str(refused.value)


def test_the_key_has_a_header_of_its_own():
    headers = AZURE.headers(" KEY\n", endpoint())

    assert headers == {"content-type": "application/json", "api-key": "KEY"}


def test_a_token_of_entra_goes_out_as_a_bearer():
    token = "eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln-_"

    for given in (token, f"Bearer {token}\n"):
        assert AZURE.headers(given, endpoint()) == {
            "content-type": "application/json",
            "authorization": f"Bearer {token}",
        }


def test_version_1_has_an_address_of_its_own_and_names_the_deployment_in_the_body():
    at = endpoint(api_version=" v1 ")
    plain, named = build(at), build(at, model="gpt-4o")

    assert plain.path == named.path == "/openai/v1/chat/completions"
    assert (json.loads(plain.body)["model"], json.loads(named.body)["model"]) == ("d", "gpt-4o")
    assert plain.key != build().key


def test_what_is_missing_is_said_at_the_start_and_all_at_once():
    with pytest.raises(JobError) as refused:
        AZURE.headers(None, Endpoint(base_url=HOST))

    assert list(refused.value.faults) == [
        "provider.deployment is not set, and Azure needs it; give the name of a deployment of yours, not of its model",
        "provider.api_version is not set, and Azure needs it; give one such as '2024-10-21', or 'v1'",
    ]


@pytest.mark.parametrize("deployment", ["..", "a/b", "a?b", "x" * 200])
def test_a_deployment_that_would_lead_elsewhere_is_a_fault_of_the_job(deployment):
    with pytest.raises(JobError, match=r"provider\.deployment: expected an id"):
        AZURE.headers(None, endpoint(deployment=deployment))
    with pytest.raises(BadRow, match=r"provider\.deployment"):
        build(endpoint(deployment=deployment))


def test_deployment_and_version_are_one_segment_and_one_value():
    path = build(endpoint(deployment="grüße gpt", api_version="2024-10-21&x=1")).path

    assert path == "/openai/deployments/gr%C3%BC%C3%9Fe%20gpt/chat/completions?api-version=2024-10-21%26x%3D1"


@pytest.mark.parametrize("changed", [{"deployment": "e"}, {"api_version": "2025-01-01-preview"}])
def test_another_deployment_or_version_is_another_purchase(changed):
    assert build(endpoint(**changed)).key != build().key


def test_a_model_may_be_named_and_need_not():
    named, plain = build(model="gpt-4o"), build()

    assert (named.model, json.loads(named.body)["model"]) == ("gpt-4o", "gpt-4o")
    assert (plain.model, "model" in json.loads(plain.body)) == (None, False)


@pytest.mark.parametrize(("name", "value"), [("model", 4), ("model", ""), ("temperature", 3), ("tools", "no-tools")])
def test_what_openai_refuses_is_refused(name, value):
    with pytest.raises(BadRow, match=f"{name}: expected"):
        build(**{name: value})


def test_a_stream_is_asked_for_usage():
    assert json.loads(build(stream=True).body)["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (404, {"code": "DeploymentNotFound", "message": "does not exist"}, "correct provider.deployment"),
        (404, {"code": "404", "message": "Resource not found"}, "correct provider.api_version, or provider.base_url"),
        (400, {"code": "BadRequest", "message": "API version not supported"}, "correct provider.api_version"),
    ],
)
def test_a_refusal_says_which_key_of_the_job_is_wrong(status, error, words):
    reply = Reply(status=status, headers={}, body=json.dumps({"error": error}).encode())

    with pytest.raises(RequestError, match=words):
        AZURE.parse(reply)
