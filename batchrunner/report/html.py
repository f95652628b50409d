"""HTML from Python: every text is escaped on its way in, so that no caller has to think of it."""

from __future__ import annotations

import re
from html import escape
from typing import Final

VOID: Final = frozenset({"meta", "link", "br"})
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is HTML already. Only this module, and what draws charts, makes it."""

    __slots__ = ()


def text(value: str) -> Html:
    """Foreign text, to be read and nothing else: escaped, and plain."""
    return Html(escape(plain(value), quote=True))


def plain(value: str) -> str:
    """Text without what no page and no drawing may hold: control characters, halves of some, reversed directions."""
    return _OVERRIDES.sub("", _UNFIT.sub("\ufffd", value))


def element(tag: str, *children: str | Html | None, **attributes: str | None) -> Html:
    """An element. A child that is no `Html` is escaped; None is left out, also as the value of an attribute.

    A trailing underscore of an attribute's name is dropped, others become hyphens: `class_`, `aria_label`.
    """
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    named = "".join(f' {name}="{text(value)}"' for name, value in given.items())
    if tag in VOID:
        return Html(f"<{tag}{named}>")
    return Html(f"<{tag}{named}>{joined(*children)}</{tag}>")


def joined(*children: str | Html | None) -> Html:
    """Several pieces in a row."""
    return Html("".join(child if isinstance(child, Html) else text(child) for child in children if child is not None))
