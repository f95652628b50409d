"""From a reply to a completion."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from batchrunner.errors import RequestError
from batchrunner.providers.reading import stream
from batchrunner.providers.reading.calls import stored_calls
from batchrunner.providers.reading.envelope import error_in
from batchrunner.providers.reading.refusal import NO_HABITS, is_success, refusal
from batchrunner.providers.reading.text import (
    dump_json,
    id_text,
    message,
    parse_json,
    stops_early,
    storable,
    text_or_none,
    whole,
)
from batchrunner.providers.reading.usage import read_usage, reported
from batchrunner.records import Completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.errors import ErrorType
    from batchrunner.providers.reading.refusal import Habits
    from batchrunner.records import Reply

_EXCERPT_CHARS = 200
# In half an event: an error, or text behind a finish_reason, which some servers repeat on every chunk.
_SAYS_MORE = re.compile(r'"error"|"(?:content|text|arguments|refusal)"\s*:\s*"[^"]')
_REPLACED = "\ufffd"
INVALID_UTF8 = ("invalid_utf8",)


def read(reply: Reply, *, max_wait_s: float, habits: Habits = NO_HABITS) -> Completion:
    """The completion in a reply of any compatible server. Raises RequestError when there is none."""
    try:
        if not is_success(reply.status):
            raise _refused(reply, max_wait_s, habits)
        return _Reader(reply, max_wait_s, habits).read()
    except (ValueError, RecursionError, OverflowError) as error:
        went_out = is_success(reply.status)
        text = f"reply cannot be read: {message(str(error))}"
        raise _unreadable(text, "malformed", status=reply.status, went_out=went_out) from None


def _refused(reply: Reply, max_wait_s: float, habits: Habits) -> RequestError:
    """A refusal is worth its status, however odd its body."""
    try:
        return _read_refusal(reply, max_wait_s, habits)
    except (ValueError, RecursionError, OverflowError):
        return refusal(None, "", status=reply.status, headers=reply.headers, max_wait_s=max_wait_s, habits=habits)


def _read_refusal(reply: Reply, max_wait_s: float, habits: Habits) -> RequestError:
    raw, body = reply.body.decode("utf-8", "replace"), None
    if reply.events is not None:
        body = stream.join(reply.events).error
        raw = "\n".join(event.data for event in reply.events)
    try:
        body = body or parse_json(raw)
    except ValueError:
        body = None
    return refusal(body, raw, status=reply.status, headers=reply.headers, max_wait_s=max_wait_s, habits=habits)


def _unreadable(
    text: str,
    error_type: ErrorType,
    *,
    status: int,
    usage: Mapping[str, Any] | None = None,
    went_out: bool = True,
) -> RequestError:
    """A reply of a success that holds no completion: worth another attempt, and perhaps billed."""
    found = read_usage(usage)
    return RequestError(
        text,
        verdict="retry",
        error_type=error_type,
        status=status,
        went_out=went_out,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
    )


@dataclasses.dataclass(slots=True)
class _Reader:
    """Reads one reply with a status of success."""

    reply: Reply
    max_wait_s: float
    habits: Habits

    def read(self) -> Completion:
        return self._plain() if self.reply.events is None else self._streamed()

    def _plain(self) -> Completion:
        raw = self.reply.body
        if not raw or raw.isspace():
            raise self._odd("the reply was cut before its body", "empty reply", "empty")
        try:
            body = parse_json(raw)
        except ValueError as error:
            raise self._no_json(error) from None
        self._refuse_error(error_in(body), body)
        if not isinstance(body, dict):
            raise self._odd("the reply was cut", f"expected a JSON object, got {_excerpt(raw)!r}", "malformed")
        text, warnings = _decoded(raw)
        return self._completion(body, response=text.strip("\ufeff \t\r\n"), warnings=warnings)

    def _no_json(self, error: ValueError) -> RequestError:
        start = _excerpt(self.reply.body)
        if stops_early(error):
            return self._unread(f"the reply was cut: {start!r}", "truncated")
        told = f"expected JSON, got {start!r} ({error}); see that provider.base_url is right"
        return self._odd(f"the reply was cut: {start!r}", told, "malformed")

    def _streamed(self) -> Completion:
        joined = stream.join(self.reply.events or ())
        self._refuse_error(joined.error, {"usage": joined.usage})
        # Nothing tears an event that others follow.
        unreadable = joined.unreadable or (joined.torn if self.reply.done else None)
        if unreadable is not None:
            found = _excerpt(unreadable)
            raise self._unread(f"a chunk of the stream cannot be read: {found!r}", "malformed", joined.usage)
        if not joined.choices:
            raise self._no_choices(joined)
        says_more = joined.torn is not None and _SAYS_MORE.search(joined.torn) is not None
        if not self.reply.done and (says_more or not joined.finished):
            how = self.reply.cut or "a clean end"
            told = f"the stream ended without [DONE] and without a finish_reason ({how})"
            raise self._unread(told, "truncated", joined.usage)
        body = joined.as_body()
        text = dump_json(body)
        return self._completion(body, response=text, warnings=INVALID_UTF8 if _REPLACED in text else ())

    def _no_choices(self, joined: stream.Joined) -> RequestError:
        if self.reply.cut or joined.torn is not None:
            return self._unread("the stream was cut before any content", "truncated", joined.usage)
        if joined.foreign is not None:
            return self._unread(_odd_shape(joined.foreign), "malformed", joined.usage)
        return self._unread("no choices in the stream", "empty", joined.usage)

    def _completion(self, body: Mapping[str, Any], *, response: str, warnings: tuple[str, ...]) -> Completion:
        choices, usage = self._choices(body), read_usage(reported(body))
        messages = list(map(_message, choices))
        if not any(map(_says_something, choices, messages)):
            raise self._unread("no content in the reply", "empty", reported(body))
        first = messages[0]
        calls = stored_calls(first) if "tool_calls" in first or "function_call" in first else None
        return Completion(
            text=_text(first.get("content")),
            finish_reason=text_or_none(choices[0].get("finish_reason")) or None,
            reasoning=text_or_none(first.get("reasoning_content")) or text_or_none(first.get("reasoning")) or None,
            refusal=text_or_none(first.get("refusal")) or _refused_parts(first.get("content")),
            tool_calls=dump_json(calls) if calls else None,
            choices=_several(choices, messages) if len(choices) > 1 else None,
            model=text_or_none(body.get("model")) or None,
            response_id=id_text(body.get("id")),
            session_id=id_text(body.get("session_id")),
            usage=usage,
            response=storable(response),
            warnings=warnings,
        )

    def _choices(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The choices in their order, none of them an error."""
        choices = body.get("choices")
        if not isinstance(choices, list):
            raise self._unread(_odd_shape(body), "malformed", reported(body))
        for choice in choices:
            if not isinstance(choice, dict):
                raise self._unread(_odd_shape(body), "malformed", reported(body))
        if not choices:
            raise self._unread("no choices in the reply", "empty", reported(body))
        for choice in choices:
            self._refuse_error(stream.error_in_choice(choice), body)
        if len(choices) == 1:
            return choices
        indexed = [whole(choice.get("index")) for choice in choices]
        order = [place if index is None else index for place, index in enumerate(indexed)]
        return [choices[place] for place in sorted(range(len(choices)), key=order.__getitem__)]

    def _refuse_error(self, error: Mapping[str, Any] | None, body: Any) -> None:
        """Raise the error that a success holds: what came before it may have been billed."""
        if error is None:
            return
        usage = reported(body) if isinstance(body, dict) else None
        raise refusal(
            {**error, "usage": usage},
            "",
            status=self.reply.status,
            headers=self.reply.headers,
            max_wait_s=self.max_wait_s,
            habits=self.habits,
        )

    def _unread(self, text: str, error_type: ErrorType, usage: Mapping[str, Any] | None = None) -> RequestError:
        return _unreadable(message(text), error_type, status=self.reply.status, usage=usage)

    def _odd(self, cut: str, whole: str, error_type: ErrorType) -> RequestError:
        return self._unread(cut, "truncated") if self.reply.cut else self._unread(whole, error_type)


def _decoded(raw: bytes) -> tuple[str, tuple[str, ...]]:
    """The text, and the warnings that it deserves."""
    try:
        return raw.decode(), ()
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace"), INVALID_UTF8


def _says_something(choice: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """A finish_reason makes even an empty text an answer: to ask again would be paid again, for the same."""
    if choice.get("finish_reason"):
        return True
    return any(found.get(name) for name in ("content", "tool_calls", "function_call", "refusal"))


def _message(choice: Mapping[str, Any]) -> dict[str, Any]:
    found = choice.get("message")
    if found is None and isinstance(choice.get("text"), str):
        return {"role": "assistant", "content": choice["text"]}
    if not isinstance(found, dict):
        raise ValueError(f"expected choices[].message to be an object, got {type(found).__name__}")
    return found


def _text(content: Any) -> str | None:
    if content is None:
        return None
    return storable(content if isinstance(content, str) else stream.text_of(content))


def _refused_parts(content: Any) -> str | None:
    """The refusal where it is a part of the content, as in requests' own messages."""
    if not isinstance(content, list):
        return None
    parts = [part.get("refusal") for part in content if isinstance(part, dict)]
    return storable("".join(part for part in parts if isinstance(part, str))) or None


def _several(choices: list[dict[str, Any]], messages: list[dict[str, Any]]) -> str:
    """The messages of all choices, with their finish_reasons and with parts joined to texts."""
    return dump_json(
        [
            {**found, "content": _text(found.get("content")), "finish_reason": choice.get("finish_reason")}
            for choice, found in zip(choices, messages, strict=True)
        ]
    )


def _odd_shape(body: Mapping[str, Any]) -> str:
    if "output" in body and "status" in body:
        return "a reply of Tess's native endpoint, not of /openai/chat/completions; correct provider.base_url"
    return f"expected choices to be a list of objects (found: {', '.join(sorted(map(str, body))[:8])})"


def _excerpt(raw: bytes | str) -> str:
    text = raw[:2_000].decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return message(text)[:_EXCERPT_CHARS]
