"""Keys: where they are kept, what they must look like, and keeping them out of every text."""

from __future__ import annotations

from batchrunner.credentials.files import read_env_file
from batchrunner.credentials.hosts import is_loopback, refuse_plain_http
from batchrunner.credentials.oauth2 import Token, read_token, token_form
from batchrunner.credentials.resolve import resolve, resolve_grant
from batchrunner.credentials.secret import NO_KEY, Credential, Grant, Redactor, Secret, without_secrets

__all__ = [
    "Credential",
    "Grant",
    "is_loopback",
    "NO_KEY",
    "read_env_file",
    "read_token",
    "Redactor",
    "refuse_plain_http",
    "resolve",
    "resolve_grant",
    "Secret",
    "Token",
    "token_form",
    "without_secrets",
]
