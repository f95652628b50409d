"""A tree of values against the sections of a job: the checked document, or faults in our own words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from batchrunner.spec.faults import Fault, Key, dotted, expected, near
from batchrunner.spec.kinds import SCORE_KINDS
from batchrunner.spec.model import Document, OAuth2Spec, Price, ScoreSpec
from batchrunner.spec.request import REQUEST_KEYS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic_core import ErrorDetails

_SECTIONS: Mapping[str, Collection[str]] = {
    name: [each.alias or key for key, each in field.annotation.model_fields.items()]
    for name, field in Document.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
} | {"score": [*ScoreSpec.model_fields]}
_REQUIRED = {
    "path": "the path of the rows",
    "input_per_million": "US dollars for a million prompt tokens",
    "output_per_million": "US dollars for a million completion tokens",
    "token_url": "the address that gives tokens",
    "client_id": "the client's id",
    "client_secret": "where the client's secret is kept",
    "name": "a name for the score",
    "kind": "one of " + ", ".join(SCORE_KINDS),
}


def document(tree: Mapping[str, Any]) -> tuple[Document | None, list[Fault]]:
    """The checked document, or None and what is wrong."""
    try:
        return Document.model_validate({"input": {}, **tree}), []
    except ValidationError as error:
        return None, [_fault(each) for each in error.errors(include_url=False)]


def _fault(error: ErrorDetails) -> Fault:
    at = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            return Fault(at=at, said=_unknown(at), alone=True)
        case "missing":
            return Fault(at=at, said=f"expected {_REQUIRED[str(at[-1])]}, got nothing")
        case "list_type":
            return Fault(at=at, said=expected(f"[[{at[-1]}]] tables", error["input"]))
        case "model_type" | "dict_type":
            return Fault(at=at, said=expected("a table", error["input"]))
        case _:
            return Fault(at=at, said=error["msg"])


def _unknown(at: Key) -> str:
    *section, key = (*at[:-1], str(at[-1]))
    where = f" in [{dotted(tuple(section))}]" if section else ""
    return f"unknown key {key!r}{where}" + (near(str(key), _known([*map(str, section)])) or _belongs(str(key)))


def _known(section: list[str]) -> Collection[str]:
    if not section:
        return Document.model_fields
    if section[-1] == "oauth2":
        return OAuth2Spec.model_fields
    return Price.model_fields if section[0] == "prices" else _SECTIONS[section[0]]


def _belongs(key: str) -> str:
    """A hint for a key that stands in the wrong section."""
    homes = [name for name, keys in [("request", REQUEST_KEYS), *_SECTIONS.items()] if key in keys]
    return f"; it belongs in [{homes[0]}]" if homes else ""
