"""Azure OpenAI: OpenAI's body on a path that names a deployment, and a key in a header of its own.

A token of Entra ID, which is a JWT, goes out as a bearer instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from batchrunner.errors import BadRow, JobError
from batchrunner.providers import building
from batchrunner.providers.openai import OpenAI, bearer
from batchrunner.providers.reading import Habits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Endpoint, Request

NEEDED = {
    "deployment": "give the name of a deployment of yours, not of its model",
    "api_version": "give one such as '2024-10-21', or 'v1'",
}
"""The options without which there is no address, and what to do."""
V1 = "v1"
"""The version whose address is `/openai/v1`, where the body's model names the deployment."""
# Not `https://openai...`: there it begins the host.
_ENTRA = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")
_PASTED = re.compile(r"(?:(?<!/)/openai(?:/deployments(?:/[^/]+)?|/v1)?)+$")


class Azure(OpenAI):
    """The deployment decides which model answers; a row may name one all the same."""

    name = "azure"
    title = "Azure OpenAI"
    base_url = None
    own_hosts = "https://*.openai.azure.com"
    path = "/openai/deployments/{deployment}/chat/completions?api-version={api_version}"
    key_variable = "AZURE_OPENAI_API_KEY"
    takes_json_schema = True
    model_needed = False
    habits = Habits(
        advice=(
            ("deploymentnotfound", "correct provider.deployment"),
            ("api version", "correct provider.api_version"),
            ("resource not found", "correct provider.api_version, or provider.base_url"),
        )
    )

    def normalise(self, base_url: str) -> str:
        """Also from a whole request address, whose deployment and version the job names on their own."""
        plain, _, query = base_url.partition("?")
        pasted = plain if query.startswith("api-version=") else base_url
        return _PASTED.sub("", building.clean_base_url(pasted, ends=("/chat/completions",)))

    def headers(self, key: str | None, endpoint: Endpoint) -> dict[str, str]:
        _check_options(endpoint)
        headers = super().headers(None, endpoint)
        plain = None if key is None else bearer(key)
        if plain is not None and _ENTRA.fullmatch(plain):
            headers["authorization"] = f"Bearer {plain}"
        elif plain is not None:
            headers["api-key"] = plain
        return headers

    def build(self, ask: Mapping[str, Any], endpoint: Endpoint, *, without: frozenset[str] = frozenset()) -> Request:
        if _version(endpoint) == V1 and ask.get("model") is None:
            ask = {**ask, "model": endpoint.options.get("deployment", "").strip()}
        return super().build(ask, endpoint, without=without)

    def path_for(self, ask: Mapping[str, Any], endpoint: Endpoint) -> str:
        if _version(endpoint) == V1:
            return "/openai/v1/chat/completions"
        deployment = building.segment(endpoint.options.get("deployment"), "provider.deployment")
        version = quote(_version(endpoint), safe="")
        return f"/openai/deployments/{deployment}/chat/completions?api-version={version}"


def _version(endpoint: Endpoint) -> str:
    return endpoint.options.get("api_version", "").strip()


def _check_options(endpoint: Endpoint) -> None:
    """Raise JobError for what would give every request a wrong address."""
    lacking = [name for name in NEEDED if not endpoint.options.get(name, "").strip()]
    if lacking:
        raise JobError(*(f"provider.{name} is not set, and Azure needs it; {NEEDED[name]}" for name in lacking))
    try:
        building.segment(endpoint.options["deployment"], "provider.deployment")
    except BadRow as fault:
        raise JobError(str(fault)) from None


PROVIDER = Azure()
