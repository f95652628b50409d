"""Addresses such as s3://bucket/folder/name, as text: pure."""

from __future__ import annotations

import re

SCHEMES = ("s3", "gs", "az")
_ADDRESS = re.compile(rf"(?P<bucket>(?:{'|'.join(SCHEMES)})://[^/?#]+)(?:/(?P<key>.*))?")
_FOREIGN = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Whether `text` names something on an object store, ours or of a kind that we do not know."""
    return _FOREIGN.match(text) is not None


def parts_of(address: str) -> tuple[str, str]:
    """The bucket with its scheme, and the key. Raises ValueError with what would be right."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise ValueError(f"{address}: expected an address of {known} with a bucket, as in 's3://bucket/folder'")
    key = re.sub(r"/+", "/", found["key"] or "").strip("/")
    if any(step in (".", "..") for step in key.split("/")):
        raise ValueError(f"{address}: '.' and '..' mean nothing on an object store; leave them out")
    return found["bucket"], key


def below(address: str, *steps: str) -> str:
    """The address of something below another."""
    return "/".join([address.rstrip("/"), *(step.strip("/") for step in steps if step)])


def name_of(address: str) -> str:
    """The last step of the key; empty for a bucket as a whole."""
    return parts_of(address)[1].rpartition("/")[2]


def with_name(address: str, name: str) -> str:
    """The address beside this one, under another name."""
    bucket, key = parts_of(address)
    return below(bucket, key.rpartition("/")[0], name)
