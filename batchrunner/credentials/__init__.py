"""Keys: where they are kept, what they must look like, and keeping them out of every text."""

from __future__ import annotations

from batchrunner.credentials.files import read_env_file
from batchrunner.credentials.hosts import is_loopback, refuse_plain_http
from batchrunner.credentials.resolve import resolve
from batchrunner.credentials.secret import NO_KEY, Credential, Redactor, Secret

__all__ = ["Credential", "is_loopback", "NO_KEY", "read_env_file", "Redactor", "refuse_plain_http", "resolve", "Secret"]
