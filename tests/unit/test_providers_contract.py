"""Every dialect keeps the contract; a new file joins by existing, one of somebody else's by its name."""

from __future__ import annotations

from batchrunner import providers
from batchrunner.providers.contract import ProviderContract

KINDS = {kind.title(): kind for kind in providers.available()} | {"Own": "contracts.own_dialect:PROVIDER"}

for name, kind in KINDS.items():
    globals()[f"Test{name}"] = type(f"Test{name}", (ProviderContract,), {"kind": kind})
