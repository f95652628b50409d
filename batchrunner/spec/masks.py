"""What may be a secret although it is no key: header values, fields of the body, passwords in addresses."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"(?:^|[-_.])(?:auth|authorization|token|secret|password|passwd|cookie|signature|credentials?|api-?key|key)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"(?:bearer|basic|token)\s+\S+|(?:sk|pk|rk|ghp|gho|xox[a-z])[-_]\S{8,}|eyJ\S{20,}|(?=\S*[0-9])(?=\S*[A-Za-z])\S{32,}",
    re.IGNORECASE,
)


def masked(table: Any) -> Any:
    """The same value, with texts masked that are named like a secret or look like one."""
    if isinstance(table, dict):
        return {name: MASK if _is_secret(name, value) else masked(value) for name, value in table.items()}
    return [masked(each) for each in table] if isinstance(table, list) else table


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str):
        return False
    return _SECRET_NAME.search(name) is not None or _SECRET_VALUE.fullmatch(value) is not None


def masked_url(url: str) -> str:
    """The same address without its user and password."""
    return re.sub(r"(?<=://)[^/@]*@", f"{MASK}@", url)
