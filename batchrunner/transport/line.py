"""Where one lane sends: addresses, headers and the way out, made once."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.request import getproxies_environment, proxy_bypass

import httpx

from batchrunner import __version__
from batchrunner.errors import JobError
from batchrunner.transport.dial import Origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from batchrunner.records import Request
    from batchrunner.transport.connection import Progress

    Headers = tuple[tuple[bytes, bytes], ...]

_PATHS = 1024
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?|")
_FRAMING = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One lane's way to its provider."""

    where: str
    """Host and port, for messages."""
    origin: Origin
    address: Callable[[str], httpx.URL]
    head: Callable[[str, bool], bytes] = field(repr=False)
    """The start of a request by path and whether a stream is asked for: all but its length and its body."""
    plain: Headers = field(repr=False)
    stream: Headers = field(repr=False)
    proxy: str | None = None

    def bytes_of(self, request: Request) -> bytes:
        """`request` as it goes out. Raises httpx.InvalidURL."""
        return b"%b%d\r\n\r\n%b" % (self.head(request.path, request.stream), len(request.body), request.body)

    def outgoing(self, request: Request, progress: Progress) -> httpx.Request:
        """`request` as a transport of httpx wants it. Raises httpx.InvalidURL."""
        headers = self.stream if request.stream else self.plain
        length = (b"content-length", b"%d" % len(request.body))
        extensions: dict[str, object] = {"progress": progress}
        if self.proxy is not None:
            extensions["proxy"] = self.proxy
        return httpx.Request(
            "POST",
            self.address(request.path),
            headers=[*headers, length],
            stream=httpx.ByteStream(request.body),
            extensions=extensions,
        )


def prepare(base_url: str, headers: Mapping[str, str], *, proxy: str | None) -> Line:
    """The line to `base_url`. Raises JobError with every fault of address, headers and proxy."""
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise JobError(f"provider.base_url: {base_url!r} is no URL ({error})") from error
    named = {name.lower(): value for name, value in headers.items()}
    way_out = proxy if proxy is not None else proxy_for(url)
    faults = [*_url_faults(url), *_header_faults(named), *_proxy_faults(way_out)]
    if faults:
        raise JobError(*faults)
    plain = _encoded(named, url, accept="application/json")
    stream = _encoded(named, url, accept="text/event-stream")

    def address(path: str) -> httpx.URL:
        return httpx.URL(base_url.rstrip("/") + path)

    return Line(
        where=_where(url),
        origin=Origin.of(url),
        address=lru_cache(maxsize=_PATHS)(address),
        head=lru_cache(maxsize=_PATHS)(lambda path, streams: head(address(path), stream if streams else plain)),
        plain=plain,
        stream=stream,
        proxy=way_out,
    )


def head(url: httpx.URL, headers: Headers) -> bytes:
    """The start of a POST: all but its length and its body."""
    lines = (b"%b: %b\r\n" % pair for pair in headers)
    return b"POST %b HTTP/1.1\r\n%bcontent-length: " % (url.raw_path, b"".join(lines))


def proxy_for(url: httpx.URL) -> str | None:
    """What the proxy variables say about `url`; nothing for a loopback host."""
    told = getproxies_environment()
    proxy = told.get(url.scheme) or told.get("all")
    if not proxy or loopback(url.host) or proxy_bypass(f"{url.host}:{url.port}" if url.port else url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def loopback(host: str) -> bool:
    """Whether `host` is this machine by name or number."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _where(url: httpx.URL) -> str:
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _encoded(named: Mapping[str, str], url: httpx.URL, *, accept: str) -> Headers:
    told = {
        "host": url.netloc.decode("ascii"),
        "user-agent": f"batchrunner/{__version__}",
        "content-type": "application/json",
        **named,
        "accept": accept,
        "accept-encoding": "identity",
    }
    return tuple((name.encode("ascii"), value.encode("ascii")) for name, value in told.items())


def _url_faults(url: httpx.URL) -> Iterator[str]:
    if url.scheme not in {"http", "https"} or not url.host or not 0 < (url.port or 443) < 65_536:
        yield f"provider.base_url: expected 'https://' and a host, got {str(url.copy_with(userinfo=b''))!r}"
    if url.userinfo:
        yield "provider.base_url: holds a user or password; name the key in provider.api_key"


def _header_faults(named: Mapping[str, str]) -> Iterator[str]:
    """Values are not shown: they may be keys."""
    for name, value in named.items():
        if not _NAME.fullmatch(name):
            yield f"header {name!r}: expected letters, digits and dashes only in a header's name"
        elif name in _FRAMING:
            yield f"header {name!r}: is set for each request; leave it out"
        elif not _VALUE.fullmatch(value):
            yield f"header {name!r}: expected printable ASCII without space at either end, got something else"


def _proxy_faults(proxy: str | None) -> Iterator[str]:
    if proxy is None:
        return
    try:
        known = httpx.URL(proxy).scheme in {"http", "https"}
    except httpx.InvalidURL:
        known = False
    if not known:
        yield "the proxy must be an http:// or https:// address; set provider.proxy, or name the host in NO_PROXY"
