"""From a reference to a key: an environment variable, a file or a command."""

from __future__ import annotations

import re
import shlex
import stat
import subprocess
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from batchrunner.credentials.files import read_private
from batchrunner.credentials.hosts import is_loopback, is_own, refuse_plain_http, shown_host
from batchrunner.credentials.secret import NO_KEY, Credential, Grant, Secret
from batchrunner.errors import JobError
from batchrunner.spec import KEY_REFERENCE, is_key_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchrunner.spec import OAuth2Spec

_WHERE_TO_SET = "looked for it in the environment; set it there or in an --env-file"
_NO_PROFILE = "cron and systemd do not read a shell profile"
_CHECK_S = 0.1
"""How soon a command that nobody waits for any more is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a reference led to, before it is known to be a usable key."""

    text: str
    source: str
    warnings: tuple[str, ...] = ()


def resolve(
    references: tuple[str, ...] | None,
    *,
    variable: str,
    base_url: str,
    public_base_url: str | None,
    base: Path,
    environ: Mapping[str, str],
    command_timeout_s: float = 30.0,
) -> tuple[Credential, ...]:
    """The keys of a job, in its order. Raises JobError with every fault found; no message holds a key.

    Without references the provider's own variable serves its own public address, which may be a pattern
    `https://*.example.com`, and loopback addresses, where it may be missing. Files are relative to `base`, where
    commands run.
    """
    if references is None:
        return (_default(variable, base_url, public_base_url, environ),)
    if references == ("none",):
        return NO_KEY
    credentials, faults = [], []
    for reference in references:
        try:
            credentials.append(_looked_up(reference, base=base, environ=environ, timeout_s=command_timeout_s))
        except JobError as error:
            faults += [f"provider.api_key: {fault}" for fault in error.faults]
    faults += _same_keys(credentials)
    if faults:
        raise JobError(*faults)
    return _told_apart(credentials)


def _go_on() -> None:
    """Nobody gives up looking."""


def _looked_up(
    reference: str, *, base: Path, environ: Mapping[str, str], timeout_s: float, check: Callable[[], None] = _go_on
) -> Credential:
    credential = _credential(_found(reference, base=base, environ=environ, timeout_s=timeout_s, check=check))
    if reference.startswith("env:"):
        return credential  # What a process was started with does not change.
    again = partial(_looked_up, reference, base=base, environ=environ, timeout_s=timeout_s)
    return replace(credential, again=again)


def resolve_grant(
    oauth2: OAuth2Spec, *, allow_http: bool, base: Path, environ: Mapping[str, str], command_timeout_s: float = 30.0
) -> Credential:
    """The credential that tokens are fetched with. Raises JobError; no message holds the secret."""
    where = "provider.oauth2.client_secret"
    try:
        found = _found(oauth2.client_secret, base=base, environ=environ, timeout_s=command_timeout_s)
    except JobError as error:
        raise JobError(*(f"{where}: {fault}" for fault in error.faults)) from None
    secret = found.text.strip()
    if not secret.isprintable():
        raise JobError(f"{where}: the secret from {found.source} holds a line break or a control character")
    refuse_plain_http(oauth2.token_url, allow_http, key="provider.oauth2.token_url")
    grant = Grant(
        token_url=oauth2.token_url,
        client_id=oauth2.client_id,
        client_secret=Secret(secret),
        scope=oauth2.scope,
        audience=oauth2.audience,
        auth_method=oauth2.auth_method,
    )
    return Credential(
        key=None,
        source="oauth2",
        label=f"oauth2 client {oauth2.client_id}",
        warnings=found.warnings,
        grant=grant,
    )


def _default(variable: str, base_url: str, public_base_url: str | None, environ: Mapping[str, str]) -> Credential:
    loopback = is_loopback(base_url)
    if not loopback and (public_base_url is None or not is_own(base_url, public_base_url)):
        raise JobError(
            f"provider.api_key: expected {KEY_REFERENCE}, got nothing; {variable} is not sent to"
            f" {shown_host(base_url)}, which is not the provider's own address"
        )
    text = environ.get(variable, "").strip()
    if text:
        return _credential(_Found(text=text, source=variable))
    if loopback:
        return Credential(key=None, source="none", label=f"no key ({variable} is not set)")
    what = "is empty" if variable in environ else "is not set"
    raise JobError(
        f"{variable} {what}, and {shown_host(base_url)} needs a key; {_WHERE_TO_SET}, or say in provider.api_key"
        f" where it is kept; {_NO_PROFILE}"
    )


def _found(
    reference: str, *, base: Path, environ: Mapping[str, str], timeout_s: float, check: Callable[[], None] = _go_on
) -> _Found:
    if not is_key_reference(reference) or reference == "none":
        raise JobError(f"expected {KEY_REFERENCE}, got something else (not shown); a literal key is refused")
    kind, _, rest = reference.partition(":")
    if kind == "env":
        return _from_environment(rest, environ)
    if kind == "file":
        return _from_file(reference, base / Path(rest.strip()).expanduser())
    return _from_command(rest, base=base, environ=environ, timeout_s=timeout_s, check=check)


def _from_environment(name: str, environ: Mapping[str, str]) -> _Found:
    text = environ.get(name, "")
    if text.strip():
        return _Found(text=text, source=name)
    # A long name in small letters may be a key that was written where its variable belongs.
    shown = name if len(name) < 20 or name.isupper() else "the variable behind 'env:' (not shown)"
    what = "is empty" if name in environ else "is not set"
    raise JobError(f"{shown} {what}; {_WHERE_TO_SET}; {_NO_PROFILE}")


def _from_file(reference: str, path: Path) -> _Found:
    text, mode = read_private(path)
    if not text.strip():
        raise JobError(f"{path} is empty; expected a key")
    readable = mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP)
    warning = f"{path} holds a key and others can read it (mode {mode & 0o777:04o}); chmod 600 it"
    return _Found(text=text, source=reference, warnings=(warning,) if readable else ())


def _from_command(
    line: str, *, base: Path, environ: Mapping[str, str], timeout_s: float, check: Callable[[], None]
) -> _Found:
    """What a command prints. It runs without a shell; its own complaints go to stderr as they are."""
    try:
        command = shlex.split(line)
    except ValueError as error:
        raise JobError(f"command:...: {str(error).lower()}") from None
    source = f"command:{command[0]}" if command else "command:..."
    try:
        status, printed = _run(command, base=base, environ=environ, timeout_s=timeout_s, check=check)
    except subprocess.TimeoutExpired:
        raise JobError(f"{source} printed no key within {timeout_s:g} s") from None
    except (OSError, ValueError, IndexError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else "no command"
        raise JobError(f"{source} cannot be run: {said.lower()}") from None
    if status:
        raise JobError(f"{source} ended with exit status {status}")
    text = printed.decode("utf-8", "replace")
    if not text.strip():
        raise JobError(f"{source} printed nothing; expected a key")
    return _Found(text=text, source=source)


def _run(
    command: list[str], *, base: Path, environ: Mapping[str, str], timeout_s: float, check: Callable[[], None]
) -> tuple[int, bytes]:
    """Exit status and output of a command, which is killed when `check` raises or its time is over."""
    until = time.monotonic() + timeout_s
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=base, env=dict(environ)
    ) as process:
        try:
            while True:
                try:
                    printed, _ = process.communicate(timeout=min(_CHECK_S, max(0.0, until - time.monotonic())))
                    return process.returncode, printed
                except subprocess.TimeoutExpired:
                    check()
                    if time.monotonic() >= until:
                        raise
        finally:
            process.kill()


def _credential(found: _Found) -> Credential:
    key = re.sub(r"^bearer\s+", "", found.text.strip(), flags=re.IGNORECASE)
    if (bad := re.search(r"[^\x21-\x7e]", key)) is not None:
        raise JobError(
            f"the key from {found.source} holds {_kind_of(bad[0])} at position {bad.start() + 1},"
            " which no header can carry"
        )
    return Credential(key=Secret(key), source=found.source, label=f"key {found.source}", warnings=found.warnings)


def _kind_of(character: str) -> str:
    if character in "\r\n":
        return "a line break"
    if character == " ":
        return "a space"
    return "a control character" if character < " " or character == "\x7f" else "a character beyond ASCII"


def _same_keys(credentials: list[Credential]) -> list[str]:
    return [
        f"provider.api_key: {other.source} and {credential.source} hold the same key; it has one allowance, not two"
        for index, credential in enumerate(credentials)
        for other in credentials[:index]
        if other.key == credential.key
    ]


def _told_apart(credentials: list[Credential]) -> tuple[Credential, ...]:
    labels = [credential.label for credential in credentials]
    return tuple(
        credential
        if labels.count(credential.label) == 1
        else replace(credential, label=f"{credential.label} #{number}")
        for number, credential in enumerate(credentials, start=1)
    )
