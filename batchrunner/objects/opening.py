"""Which store an address means, and how this job gets in: [storage], then the variables of the vendor's own tools."""

from __future__ import annotations

import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from batchrunner.errors import JobError
from batchrunner.objects.address import parts_of
from batchrunner.objects.folder import Folder, brief

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchrunner.spec import StorageSpec

RETRY_S, TIMEOUT_S, CONNECT_S = 60.0, 60.0, 10.0
"""How long a request is repeated that fails for no lasting reason, and how long one may take."""

STORE_VARIABLES = {
    "s3": (
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    "az": (
        "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_CLIENT_ID",
        "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_TENANT_ID",
    ),
}  # fmt: skip
"""What an --env-file may set; obstore reads these and many more from the environment itself."""

_KEYS = {
    "s3": {"endpoint": "endpoint", "region": "region", "encryption": "server_side_encryption",
           "kms_key_id": "sse_kms_key_id", "anonymous": "skip_signature"},
    "gs": {"endpoint": "base_url", "anonymous": "skip_signature"},
    "az": {"endpoint": "endpoint", "account": "account_name", "anonymous": "skip_signature"},
}  # fmt: skip
"""Keys of [storage], and what obstore calls them."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Stores:
    """Opens folders by address, with one store for each bucket."""

    def __init__(self, storage: StorageSpec, environ: Mapping[str, str], *, retry_s: float = RETRY_S) -> None:
        self._storage, self._environ, self._retry_s = storage, environ, retry_s
        self._open: dict[str, Any] = {}

    def folder(self, address: str) -> Folder:
        """Everything below an address. Raises JobError where it, or how to get in, cannot be right."""
        try:
            bucket, _ = parts_of(address)
        except ValueError as error:
            raise JobError(str(error)) from None
        if bucket not in self._open:
            self._open[bucket] = self._store(bucket)
        return Folder(address, self._open[bucket])

    def _store(self, bucket: str) -> Any:
        if importlib.util.find_spec("obstore") is None:
            raise JobError(f"{bucket}: object stores need a further package; pip install 'batchrunner[cloud]'")
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        scheme = bucket.partition(":")[0]
        open_store: Any = from_url  # Each vendor has settings of its own.
        try:
            return open_store(
                bucket,
                config={**self._variables(scheme), **self._settings(scheme)},
                client_options={
                    "timeout": timedelta(seconds=TIMEOUT_S),
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "allow_http": self._allows_http(scheme),
                },
                retry_config={"max_retries": 100, "retry_timeout": timedelta(seconds=self._retry_s)},
                credential_provider=self._profile() if scheme == "s3" else None,
            )
        except (BaseError, ValueError) as error:
            raise JobError(f"{bucket}: {brief(error)}; see to [storage] and the environment") from error

    def _variables(self, scheme: str) -> dict[str, str]:
        """What an --env-file says beyond the environment."""
        return {
            name: self._environ[name]
            for name in STORE_VARIABLES[scheme]
            if self._environ.get(name) and name not in os.environ
        }

    def _settings(self, scheme: str) -> dict[str, Any]:
        given = self._storage.model_dump(exclude_none=True, exclude_defaults=True)
        own, known = {"profile", "path_style", "allow_http"}, _KEYS[scheme]
        unknown = sorted(set(given) - set(known) - (own if scheme == "s3" else {"allow_http"}))
        if unknown:
            raise JobError(*(f"storage.{name}: {scheme}:// has no such setting; leave it out" for name in unknown))
        found = {known[name]: value for name, value in given.items() if name in known}
        if scheme == "s3" and "path_style" in given:
            found["virtual_hosted_style_request"] = not given["path_style"]
        return found

    def _allows_http(self, scheme: str) -> bool:
        """Keys over plain http only to this machine, unless the job allows it."""
        endpoint = self._storage.endpoint or (self._environ.get("AWS_ENDPOINT_URL") if scheme == "s3" else None) or ""
        split = urlsplit(endpoint)
        if split.scheme != "http" or self._storage.allow_http or split.hostname in _LOOPBACK:
            return split.scheme == "http"
        raise JobError(
            f"{endpoint}: data and keys would go unencrypted to another machine; give https://, or set "
            "storage.allow_http = true"
        )

    def _profile(self) -> Any:
        """Credentials of a profile, as the vendor's own tools find them; None to leave it to obstore."""
        environ, profile = self._environ, self._storage.profile or self._environ.get("AWS_PROFILE")
        plain = environ.get("AWS_ACCESS_KEY_ID") or environ.get("AWS_WEB_IDENTITY_TOKEN_FILE")
        files = any((Path.home() / ".aws" / name).is_file() for name in ("credentials", "config"))
        if self._storage.anonymous or not (self._storage.profile or (not plain and (profile or files))):
            return None
        if importlib.util.find_spec("boto3") is None:
            if not profile:
                return None
            raise JobError(f"profile {profile!r}: reading it needs a further package; pip install boto3")
        import boto3
        from botocore.exceptions import BotoCoreError
        from obstore.auth.boto3 import Boto3CredentialProvider

        try:
            return Boto3CredentialProvider(boto3.Session(profile_name=profile))
        except (BotoCoreError, ValueError) as error:
            raise JobError(f"storage.profile: {error}; see to ~/.aws, or leave the profile out") from error
