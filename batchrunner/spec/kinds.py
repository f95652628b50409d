"""What each key of a job takes, as types pydantic checks with our own words."""

from __future__ import annotations

import re
import shlex
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from batchrunner.spec.faults import expected
from batchrunner.spec.values import DURATION, KEY_REFERENCE, SECRET_REFERENCE, duration_s, is_key_reference

if TYPE_CHECKING:
    from collections.abc import Callable

_OURS = frozenset({"accept", "accept-encoding", "connection", "content-length", "content-type", "host"}) | {
    "transfer-encoding"
}


class Unfit(Exception):
    """A value will not do; the message is the whole sentence."""


def _kind(read: Callable[[Any], object]) -> BeforeValidator:
    def checked(value: Any) -> object:
        try:
            return read(value)
        except Unfit as fault:
            raise PydanticCustomError("unfit", "{said}", {"said": str(fault)}) from None

    return BeforeValidator(checked)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e18


def _number(value: Any, *, what: str = "a number above 0", zero: bool = False) -> float:
    if not _is_number(value) or value < 0 or (value == 0 and not zero):
        raise Unfit(expected(what, value))
    return float(value)


def _rate(value: Any) -> float | str:
    if value == "none":
        return "none"
    return _number(value, what="a number above 0" if _is_number(value) else "a number above 0, or 'none'")


def _whole(value: Any, *, what: str, most: int) -> int:
    if not _is_number(value) or value != int(value) or not 1 <= value <= most:
        raise Unfit(expected(what, value))
    return int(value)


def _concurrency(value: Any) -> int | str:
    if value == "auto":
        return "auto"
    return _whole(value, what="a whole number from 1 to 10000, or 'auto'", most=10_000)


def _duration(value: Any) -> float:
    seconds = duration_s(value) if isinstance(value, str) else None
    if seconds is None and not _is_number(value):
        raise Unfit(expected(DURATION, value))
    return _number(value if seconds is None else seconds, what="a duration above 0")


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(expected("true or false", value))
    return value


def _one_of(value: Any, *, words: tuple[str, ...]) -> str:
    if value not in words:
        *others, last = map(repr, words)
        raise Unfit(expected(f"{', '.join(others)} or {last}", value))
    return str(value)


def is_plain(text: str) -> bool:
    """Whether a text can stand in a path: UTF-8, no NUL."""
    return "\0" not in text and is_encodable(text)


def is_encodable(text: str) -> bool:
    """Whether a text has a form in UTF-8. Arguments of the command line may lack one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any, *, what: str = "text") -> str:
    if not isinstance(value, str) or not value.strip() or not is_plain(value):
        raise Unfit(expected(what, value))
    return value


def _command(value: Any) -> str:
    """A command line that is run without a shell. What was given is not shown: it may hold a token."""
    what = "a command such as 'mail -s done me@example.com', its quotes in pairs; it is run without a shell"
    try:
        text = _text(value, what=what)
        if shlex.split(text):
            return text
    except (Unfit, ValueError):
        pass
    raise Unfit(f"expected {what}, got something else (not shown)")


def _name(value: Any) -> str:
    """A name is one step of a path."""
    what = "a name without '/' and control characters, at most 120 characters long"
    text = _text(value, what=what).strip()
    if text in (".", "..") or "/" in text or not text.isprintable() or len(text.encode()) > 240 or len(text) > 120:
        raise Unfit(expected(what, value))
    return text


def _label(value: Any) -> str:
    if isinstance(value, str) and is_plain(value):
        return value
    if not _is_number(value):
        raise Unfit(expected("text", value))
    return str(value)


def _texts(value: Any, *, what: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise Unfit(expected(what, value))
    return tuple(_text(each, what=what) for each in value)


def _input_path(value: Any) -> str | tuple[str, ...]:
    what = "the path of the rows, or a list of paths"
    if isinstance(value, str) or not value:
        return _text(value, what=what)
    return _texts(value, what=what)


def _run_patterns(value: Any) -> tuple[str, ...]:
    what = "the directory of an earlier run, a pattern such as '../runs/tickets-*', or a list of them"
    return (_text(value, what=what),) if isinstance(value, str) or not value else _texts(value, what=what)


def _schema(value: Any) -> dict[str, Any] | str:
    what = "a JSON Schema, 'file:PATH' of one, or 'package.module:Model' of a pydantic class"
    if isinstance(value, dict) and value:
        return value
    if not isinstance(value, str) or not re.fullmatch(r"file:.+|[\w.]+:[\w.]+", value.strip()):
        raise Unfit(expected(what, value))
    return value.strip()


def _repairs(value: Any) -> int:
    if not _is_number(value) or value != int(value) or not 0 <= value <= 5:
        raise Unfit(expected("a whole number from 0 to 5", value))
    return int(value)


def _prefix(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,40}", value):
        raise Unfit(expected("letters, digits and _, such as 'out_'", value))
    return value


def _score_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,40}", value):
        raise Unfit(expected("a name of letters, digits, _ and -, such as 'exact'", value))
    return value


def _tolerance(value: Any) -> float | str:
    what = "a number of 0 or more, or a share of what is expected such as '1%'"
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?\s*%", value.strip()):
        return value.strip()
    return _number(value, what=what, zero=True)


def _function(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\w.]+:[\w.]+", value.strip()):
        raise Unfit(expected("a function as 'package.module:function'", value))
    return value.strip()


def _mode(value: Any) -> int:
    what = "a file mode that lets its owner read and write, as text such as '0640'"
    if not isinstance(value, str) or not re.fullmatch(r"0?[67][0-7]{2}", value):
        raise Unfit(expected(what, value))
    return int(value, 8)


def _workspace(value: Any) -> str:
    text = _as_text(value)
    if not isinstance(text, str) or not re.fullmatch(r"[\x21-\x7e]{1,64}", text):
        raise Unfit(expected("a workspace number", value))
    return text


def _is_url(text: str, schemes: tuple[str, ...], *, userinfo: bool) -> bool:
    try:
        url = urlsplit(text)
        port_is_right = url.port is None or url.port > 0
    except ValueError:
        return False
    tidy = re.fullmatch(r"[^\s\x00-\x20\\]+", text) is not None
    return (
        tidy and url.scheme in schemes and bool(url.hostname) and port_is_right and (userinfo or "@" not in url.netloc)
    )


def _base_url(value: Any) -> str:
    if isinstance(value, str) and "@" in value:
        raise Unfit("expected an address without user and password (not shown); a key belongs in provider.api_key")
    if not isinstance(value, str) or not _is_url(value.strip(), ("http", "https"), userinfo=False):
        raise Unfit(expected("an address such as 'https://api.tess.im'", value))
    return value.strip()


def _collector(value: Any) -> str:
    if not isinstance(value, str) or not _is_url(value.strip(), ("http", "https"), userinfo=False):
        raise Unfit(
            "expected an address such as 'http://127.0.0.1:4318', got something else (not shown); what lets you in "
            "belongs in the variable OTEL_EXPORTER_OTLP_HEADERS"
        )
    return value.strip().rstrip("/")


def _share(value: Any) -> float:
    if not _is_number(value) or not 0 <= value <= 1:
        raise Unfit(expected("a share from 0 to 1", value))
    return float(value)


def _proxy(value: Any) -> str:
    if not isinstance(value, str) or not _is_url(value, ("http", "https", "socks5", "socks5h"), userinfo=True):
        raise Unfit("expected an address such as 'http://proxy:3128', got something else (not shown)")
    return value


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Unfit("expected a table of names and texts, got something else (not shown)")
    if len({name.lower() for name in value}) < len(value):
        raise Unfit("expected each header once, whatever its case")
    texts = {name: _as_text(each) for name, each in value.items()}
    if said := [fault for name, text in texts.items() if (fault := _header_fault(name, text))]:
        raise Unfit("; ".join(said))
    return {name: text.strip() for name, text in texts.items()}


def _as_text(value: Any) -> Any:
    """A whole number as text, anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _header_fault(name: str, text: Any) -> str | None:
    if name.lower() in ("authorization", "proxy-authorization"):
        return f"{name!r} is made from provider.api_key, leave it out"
    if name.lower() in _OURS:
        return f"{name!r} is set by batchrunner itself, leave it out"
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        return f"{name!r} is no header name"
    if not isinstance(text, str) or not re.fullmatch(r"[\x20-\x7e]*", text):
        return f"expected text in visible ASCII for {name!r}, got something else (not shown)"
    return None


def _api_key(value: Any) -> tuple[str, ...]:
    """Where the keys are kept. What was given is never shown: it may be a key."""
    references = (value,) if isinstance(value, str) else value
    if not isinstance(references, list | tuple) or not references:
        raise Unfit(f"expected {KEY_REFERENCE}, or a list of them")
    texts = tuple(each.strip() if isinstance(each, str) else "" for each in references)
    if not all(map(is_key_reference, texts)):
        raise Unfit(f"expected {KEY_REFERENCE}, got something else (not shown); a literal key is refused")
    if len(set(texts)) < len(texts):
        raise Unfit("expected each key once: keys named twice would share one allowance and count as two")
    if "none" in texts and len(texts) > 1:
        raise Unfit("expected 'none' alone, or keys")
    return texts


def _secret_reference(value: Any) -> str:
    """Where a secret is kept. What was given is never shown: it may be the secret."""
    if not isinstance(value, str) or not is_key_reference(value.strip()) or value.strip() == "none":
        raise Unfit(f"expected {SECRET_REFERENCE}, got something else (not shown); a literal secret is refused")
    return value.strip()


def _token_url(value: Any) -> str:
    if not isinstance(value, str) or not _is_url(value.strip(), ("http", "https"), userinfo=False):
        raise Unfit("expected an address such as 'https://auth.example.com/oauth/token', without user and password")
    return value.strip()


AUTH_METHODS = ("client_secret_basic", "client_secret_post")
Name = Annotated[str, _kind(_name)]
Text = Annotated[str, _kind(_text)]
Command = Annotated[str, _kind(_command)]
Label = Annotated[str, _kind(_label)]
Switch = Annotated[bool, _kind(_switch)]
Rate = Annotated[float | Literal["none"], _kind(_rate)]
Concurrency = Annotated[int | Literal["auto"], _kind(_concurrency)]
LanePer = Annotated[Literal["key", "agent", "model"], _kind(partial(_one_of, words=("key", "agent", "model")))]
AboveZero = Annotated[float, _kind(_number)]
Money = Annotated[float, _kind(partial(_number, what="a price of 0 or more", zero=True))]
Count = Annotated[int, _kind(partial(_whole, what="a whole number above 0", most=10**18))]
Duration = Annotated[float, _kind(_duration)]
InputPath = Annotated[str | tuple[str, ...], _kind(_input_path)]
RunPatterns = Annotated[tuple[str, ...], _kind(_run_patterns)]
Schema = Annotated[dict[str, Any] | str, _kind(_schema)]
Repairs = Annotated[int, _kind(_repairs)]
Prefix = Annotated[str, _kind(_prefix)]
FORMATS = ("auto", "json_schema", "json_object", "none")
Format = Annotated[Literal["auto", "json_schema", "json_object", "none"], _kind(partial(_one_of, words=FORMATS))]
SCORE_KINDS = ("exact", "normalised", "contains", "regex", "number", "json", "python", "judge")
ScoreKind = Annotated[
    Literal["exact", "normalised", "contains", "regex", "number", "json", "python", "judge"],
    _kind(partial(_one_of, words=SCORE_KINDS)),
]
ScoreName = Annotated[str, _kind(_score_name)]
Tolerance = Annotated[float | str, _kind(_tolerance)]
Function = Annotated[str, _kind(_function)]
Columns = Annotated[tuple[str, ...], _kind(partial(_texts, what="a list of column names"))]
Mode = Annotated[int, _kind(_mode)]
Workspace = Annotated[str, _kind(_workspace)]
BaseUrl = Annotated[str, _kind(_base_url)]
Collector = Annotated[str, _kind(_collector)]
Share = Annotated[float, _kind(_share)]
Proxy = Annotated[str, _kind(_proxy)]
Headers = Annotated[dict[str, str], _kind(_headers)]
SecretReference = Annotated[str, _kind(_secret_reference)]
TokenUrl = Annotated[str, _kind(_token_url)]
AuthMethod = Annotated[
    Literal["client_secret_basic", "client_secret_post"], _kind(partial(_one_of, words=AUTH_METHODS))
]
ApiKey = Annotated[tuple[str, ...], _kind(_api_key)]
