"""Object stores, S3, Google Cloud Storage and Azure: bytes by address. The one home of obstore.

Calls block, so they belong in a thread. Every refusal is an ObjectsError.
"""

from __future__ import annotations

from batchrunner.objects.address import below, is_address, name_of, parts_of, with_name
from batchrunner.objects.copies import Copies, Copy
from batchrunner.objects.folder import Entry, Folder, Moved, ObjectsError, Taken
from batchrunner.objects.opening import RETRY_S, STORE_VARIABLES, Stores
from batchrunner.objects.state import run_directory, state_root

__all__ = [
    "Copies",
    "Copy",
    "Entry",
    "Folder",
    "Moved",
    "ObjectsError",
    "RETRY_S",
    "STORE_VARIABLES",
    "Stores",
    "Taken",
    "below",
    "is_address",
    "name_of",
    "parts_of",
    "run_directory",
    "state_root",
    "with_name",
]
