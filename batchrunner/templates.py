"""From a row to what it asks: templates over a row's columns, or the row itself as a request."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
from jinja2 import meta, nodes
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batchrunner.errors import BadRow, JobError
from batchrunner.spec import ROW_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

MOST_CHARS = 1 << 20
"""Of one rendered text."""
APART = ("prompt", "messages", "system", "extra", "volatile")
BATCH_LINE = frozenset({"custom_id", "method", "url", "body"})
IDS = frozenset({"id", "custom_id"})
JSON_FIELDS = frozenset(
    {"messages", "tools", "tool_choice", "response_format", "extra", "stop", "metadata", "logit_bias"}
)
"""Fields that may stand in a column as JSON text."""

Make = "Callable[[Mapping[str, Any]], Any]"


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Neither a text nor a number that fills the memory."""
        if operator == "**" and isinstance(right, int | float) and abs(right) > 100:
            raise jinja2.exceptions.SecurityError("exponent above 100")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int) and len(text) * times > MOST_CHARS:
                    raise jinja2.exceptions.SecurityError("text longer than 1 MiB")
        return super().call_binop(context, operator, left, right)


class _Native(_Sandbox, NativeEnvironment):
    """For fields that are one expression: its value, not its text."""


def _empty_for_none(value: Any) -> Any:
    return "" if value is None else value


_OPTIONS: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True, "autoescape": False}
_FAILURES = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What evaluating a template over some row can raise."""
_WHOLE = re.compile(r"\s*\{\{(?:(?!\{\{|\}\}).)*\}\}\s*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """What every row asks. `asked` describes the job's part of it, flat, with file contents in place of their names."""

    asked: Mapping[str, Any]
    request_columns: frozenset[str]
    """Columns that are part of a request and thus not carried into the results."""
    names: frozenset[str]
    """Columns that templates read."""
    make: Callable[[Mapping[str, Any]], dict[str, Any]]

    def ask(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The ask of a row, for `Provider.build`. Raises BadRow."""
        return self.make(columns)


def compile_request(
    request: Mapping[str, Any], *, params: Mapping[str, str], base: Path, columns: Collection[str]
) -> Asker:
    """Compile a job's `[request]` for rows with these columns. Raises JobError with every fault found.

    With a prompt or messages, rows are data that templates read; else every row is a request and `[request]`
    holds its defaults.
    """
    are_data = "prompt" in request or "messages" in request
    compiler = _Compiler(params=params, base=base, columns=columns if are_data else None)
    written = {key: value for key, value in request.items() if key != "volatile"}
    makes = {key: compiler.value(value, f"request.{key}", text=key in APART) for key, value in written.items()}
    if compiler.faults:
        raise JobError(*compiler.faults)
    volatile = tuple(f"request.{name}" for name in request.get("volatile") or ())
    asked = {**compiler.asked(volatile), **({"request.volatile": request["volatile"]} if volatile else {})}
    if are_data:
        make = _of_data(makes, params)
        return Asker(asked=asked, request_columns=frozenset(), names=frozenset(compiler.names), make=make)
    apart = ROW_FIELDS | IDS | (BATCH_LINE if set(columns) >= BATCH_LINE else frozenset())
    make = _of_requests(makes, params)
    return Asker(asked=asked, request_columns=apart, names=frozenset(), make=make)


class _Compiler:
    """Compiles values of `[request]`, and collects what they read and what is wrong with them."""

    def __init__(self, *, params: Mapping[str, str], base: Path, columns: Collection[str] | None) -> None:
        self.params, self.base, self.columns = params, base, columns
        self.names: set[str] = set()
        self.params_read: set[str] = set()
        self.texts: dict[str, Any] = {}
        self.faults: list[str] = []
        self._text, self._native = _Sandbox(**_OPTIONS, finalize=_empty_for_none), _Native(**_OPTIONS)

    def asked(self, volatile: tuple[str, ...]) -> dict[str, Any]:
        told = {at: value for at, value in self.texts.items() if not at.startswith(volatile or ("\0",))}
        return told | {f"params.{name}": self.params[name] for name in self.params_read if name in self.params}

    def value(self, value: Any, at: str, *, text: bool = False) -> Callable[[Mapping[str, Any]], Any]:
        """How a value is made for a row. `text`: it stays a text, also where it is a single expression."""
        if isinstance(value, dict):
            members = {name: self.value(inner, f"{at}.{name}", text=text) for name, inner in value.items()}
            return lambda names: {name: make(names) for name, make in members.items()}
        if isinstance(value, list):
            entries = [self.value(inner, f"{at}.{number}", text=text) for number, inner in enumerate(value)]
            return lambda names: [make(names) for make in entries]
        if isinstance(value, str) and value.startswith("file:"):
            value = self._file(value.removeprefix("file:"), at)
        self.texts[at] = value
        if isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value):
            return self._template(value, at, text=text and not at.startswith("request.extra"))
        return lambda names: value

    def _file(self, name: str, at: str) -> str:
        path = self.base / name.strip()
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            self.faults.append(f"{at}: {path}: expected UTF-8 text")
        except OSError as error:
            self.faults.append(f"{at}: {path}: {(error.strerror or str(error)).lower()}; paths are relative to the job")
        return ""

    def _template(self, source: str, at: str, *, text: bool) -> Callable[[Mapping[str, Any]], Any]:
        native = not text and _WHOLE.fullmatch(source) is not None
        environment = self._native if native else self._text
        try:
            self._check_names(environment.parse(source), at)
            template = environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            self.faults.append(f"{at}: line {error.lineno}: {error.message}; expected a Jinja2 template")
            return lambda names: None
        return lambda names: _rendered(template, names, at)

    def _check_names(self, tree: nodes.Template, at: str) -> None:
        read = meta.find_undeclared_variables(tree)
        params = {node.attr for node in tree.find_all(nodes.Getattr) if _is_params(node.node)}
        params |= {
            node.arg.value for node in tree.find_all(nodes.Getitem) if _is_params(node.node) and _is_const(node.arg)
        }
        self.params_read |= params
        self.faults += [
            f"{at}: {_unknown('parameter', name, self.params)}" for name in sorted(params - set(self.params))
        ]
        self.names |= read - {"params"}
        if self.columns is None:
            wrong = sorted(read - {"params"})
            told = "rows are requests here, so templates see only params; give a prompt to make them data"
            self.faults += [f"{at}: {name!r} is not known: {told}" for name in wrong]
        elif self.columns:
            unknown = sorted(read - {"params"} - set(self.columns))
            self.faults += [f"{at}: {_unknown('column', name, self.columns)}" for name in unknown]


def _is_params(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Name) and node.name == "params"


def _is_const(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Const) and isinstance(node.value, str)


def _unknown(what: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:12]) or "none"
    hint = f"; did you mean {near[0]!r}?" if near else f" (found: {listed})"
    return f"no {what} {name!r}{hint}"


def _rendered(template: jinja2.Template, names: Mapping[str, Any], at: str) -> Any:
    try:
        found = template.render(names)
    except _FAILURES as error:
        raise BadRow(f"{at}: {str(error)[:300] or type(error).__name__}") from None
    if isinstance(found, str) and len(found) > MOST_CHARS:
        raise BadRow(f"{at}: expected at most {MOST_CHARS:,} characters, got {len(found):,}")
    if isinstance(found, jinja2.Undefined):
        raise BadRow(f"{at}: a name that it reads is missing in this row")
    return found


def _of_data(
    makes: Mapping[str, Callable[[Mapping[str, Any]], Any]], params: Mapping[str, str]
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        names = {**columns, "params": params}
        return _ask({key: value(names) for key, value in makes.items()})

    return make


def _of_requests(
    makes: Mapping[str, Callable[[Mapping[str, Any]], Any]], params: Mapping[str, str]
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    defaults = {key: value({"params": params}) for key, value in makes.items()}

    def make(columns: Mapping[str, Any]) -> dict[str, Any]:
        own = _batch_line(columns) if "body" in columns and "url" in columns else columns
        said = {key: _from_json(key, own[key]) for key in ROW_FIELDS & own.keys() if own[key] is not None}
        if ("prompt" in said) == ("messages" in said):
            found = ", ".join(own) or "nothing"
            what = "both 'prompt' and 'messages'" if "prompt" in said else "no 'messages' or 'prompt' key"
            raise BadRow(f"{what} (found: {found[:200]})")
        extra = _object(defaults.get("extra"), "extra") | _object(said.get("extra"), "extra")
        return _ask({**defaults, **said, **({"extra": extra} if extra else {})})

    return make


def _batch_line(columns: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a line of an OpenAI batch file; body fields of no known name go to `extra`."""
    body, method, url = _from_json("extra", columns["body"]), columns.get("method"), columns["url"]
    if not isinstance(body, dict):
        raise BadRow(f"body: expected an object, got {type(body).__name__}")
    if method not in (None, "POST"):
        raise BadRow(f"method: expected 'POST', got {method!r}")
    if not isinstance(url, str) or not url.rstrip("/").endswith("/chat/completions"):
        raise BadRow(f"url: expected a path that ends in '/chat/completions', got {url!r}")
    known = {key: value for key, value in body.items() if key in ROW_FIELDS and key != "extra"}
    extra = {key: value for key, value in body.items() if key not in known}
    return known | ({"extra": extra} if extra else {})


def _from_json(key: str, value: Any) -> Any:
    """A field that stands in a column as JSON text, read."""
    if key not in JSON_FIELDS or not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{key}: expected JSON, got text that is none ({str(error)[:100]})") from None


def _object(value: Any, key: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRow(f"{key}: expected an object, got {type(value).__name__}")
    return value


def _ask(said: Mapping[str, Any]) -> dict[str, Any]:
    """What `Provider.build` takes: messages, and whatever else is set."""
    ask = {key: value for key, value in said.items() if key not in APART and value is not None}
    ask["messages"] = _messages(said)
    if ask.get("agent_id") is not None:
        ask["agent_id"] = _id(ask["agent_id"])
    if said.get("extra"):
        ask["extra"] = {key: value for key, value in _object(said["extra"], "extra").items() if value is not None}
    return ask


def _id(value: Any) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)


def _messages(said: Mapping[str, Any]) -> Any:
    messages, prompt, system = said.get("messages"), said.get("prompt"), said.get("system")
    if messages is None:
        if not isinstance(prompt, str):
            raise BadRow(f"prompt: expected text, got {type(prompt).__name__}")
        messages = [{"role": "user", "content": prompt}]
    if not isinstance(messages, list):
        raise BadRow(f"messages: expected a list, got {type(messages).__name__}")
    messages = [_tidy(message) if isinstance(message, dict) else message for message in messages]
    if system is None or any(isinstance(message, dict) and message.get("role") == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _tidy(message: dict[str, Any]) -> dict[str, Any]:
    """Without members that are null only because a table has a column for them."""
    if None not in message.values():
        return message
    return {
        key: value
        for key, value in message.items()
        if value is not None or (key == "content" and "tool_calls" in message)
    }
