"""OpenAI's chat completions, and every server that speaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batchrunner.errors import BadRow, JobError
from batchrunner.providers import building
from batchrunner.providers.reading import NO_HABITS, read
from batchrunner.records import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.records import Completion, Endpoint, Reply

_NOTHING: frozenset[str] = frozenset()
_CHECKED = frozenset({"temperature", "max_tokens", "max_completion_tokens", "n", "tools"})


class OpenAI:
    """The reference dialect. The others say where they differ."""

    name = "openai"
    title = "OpenAI, and every compatible server"
    base_url: str | None = "https://api.openai.com/v1"
    path = "/chat/completions"
    key_variable = "OPENAI_API_KEY"
    takes_json_schema = True
    streaming = "if asked for, with usage"
    tools = "array"
    requests_per_minute: float | None = None
    requests_per_key: int | None = None
    verbatim = False
    """Whether numbers go out exactly as the row spells them."""
    model_needed = True
    """Whether a request has to name a model."""
    habits = NO_HABITS
    """Where its errors differ from the table."""

    def normalise(self, base_url: str) -> str:
        url = building.clean_base_url(base_url, ends=("/chat/completions",))
        return f"{url}/v1" if url == "https://api.openai.com" else url

    def headers(self, key: str | None, endpoint: Endpoint) -> dict[str, str]:
        headers = {name.lower(): value for name, value in endpoint.headers.items()}
        headers["content-type"] = "application/json"
        if key is not None:
            headers["authorization"] = f"Bearer {bearer(key)}"
        return headers

    def warnings(self, endpoint: Endpoint) -> tuple[str, ...]:
        return ()

    def build(self, ask: Mapping[str, Any], endpoint: Endpoint, *, without: frozenset[str] = _NOTHING) -> Request:
        path = self.path_for(ask, endpoint)
        body = building.fields_of(ask)
        if not self.verbatim:
            building.make_whole(body)
        building.stream_is_a_flag(body)
        self.check(body)
        self.complete(body, ask)
        sent = {name: value for name, value in body.items() if name not in without} if without else body
        data = building.encode(sent)
        return Request(
            path=path,
            body=data,
            stream=sent.get("stream") is True,
            key=building.request_key(self.name, endpoint, path, body),
            agent_id=building.plain_id(ask.get("agent_id")),
            model=body["model"] if isinstance(body.get("model"), str) else None,
            session_id=building.plain_id(ask.get("session_id")),
            prompt_chars=building.prompt_chars(body),
            max_tokens=building.most_tokens(body),
            choices=building.choices(body),
            warnings=self.oddities(ask),
        )

    def path_for(self, ask: Mapping[str, Any], endpoint: Endpoint) -> str:
        return self.path

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse what the API would refuse for money. Raises BadRow."""
        named = isinstance(body.get("model"), str) and body["model"]
        if not named and (self.model_needed or "model" in body):
            raise BadRow(f"model: expected a name, got {building.kind_of(body.get('model'))}")
        if not _CHECKED.isdisjoint(body):
            building.number_between(body, "temperature", 0, 2)
            building.at_least_one(body, "max_tokens", "max_completion_tokens", "n")
            building.tools_are_a_list(body)

    def complete(self, body: dict[str, Any], ask: Mapping[str, Any]) -> None:
        """Add what the dialect needs: here usage, which streams only bring when asked."""
        if body.get("stream") is True and "stream_options" not in body:
            body["stream_options"] = {"include_usage": True}

    def oddities(self, ask: Mapping[str, Any]) -> tuple[str, ...]:
        """What a person should know of a request that is sent all the same."""
        return ()

    def parse(self, reply: Reply, *, max_wait_s: float = 300.0) -> Completion:
        return read(reply, max_wait_s=max_wait_s, habits=self.habits)


def bearer(key: str) -> str:
    """The key as it stands behind `Bearer`. Raises JobError for what no header can hold, without showing it."""
    plain = key.strip()
    while (word := plain.split(maxsplit=1)) and word[0].lower() == "bearer":
        plain = plain[len("bearer") :].strip()
    if not plain or not all("!" <= c <= "~" for c in plain):
        raise JobError("the key holds characters that no header can carry (expected visible ASCII, without spaces)")
    return plain


PROVIDER = OpenAI()
