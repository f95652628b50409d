"""Which machine an address leads to, and whether a key may go there unencrypted."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from batchrunner.errors import JobError


def is_loopback(base_url: str) -> bool:
    """Whether an address stays on this machine."""
    host = host_of(base_url)[0]
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_loopback or (mapped is not None and mapped.is_loopback)


def is_own(base_url: str, own: str) -> bool:
    """Whether an address is on the host of `own`; `https://*.example.com` stands for one label, as in certificates."""
    (host, port), (own_host, own_port) = host_of(base_url), host_of(own)
    if own_host.startswith("*."):
        label, _, host = host.partition(".")
        return re.fullmatch(r"[a-z0-9-]+", label) is not None and (host, port) == (own_host[2:], own_port)
    return (host, port) == (own_host, own_port)


def host_of(base_url: str) -> tuple[str, int | None]:
    """Host and explicit port; an address that could be read in two ways has no host."""
    try:
        url = urlsplit(base_url)
        if "@" in url.netloc or "\\" in base_url:
            return "", None
        return (url.hostname or "").rstrip("."), url.port
    except ValueError:
        return "", None


def shown_host(base_url: str) -> str:
    host, port = host_of(base_url)
    return host + (f":{port}" if port else "") or "an address without a host"


def refuse_plain_http(base_url: str, allow_http: bool, *, key: str = "provider.base_url") -> None:
    """Raise JobError when a key would travel unencrypted to another machine and the job does not allow it."""
    if base_url.lower().startswith("https://") or allow_http or is_loopback(base_url):
        return
    raise JobError(
        f"{key}: anyone on the way to {shown_host(base_url)} could read the key over plain http;"
        " use https, or set provider.allow_http = true"
    )
