"""Every dialect keeps the contract; a new file joins by existing."""

from __future__ import annotations

from contracts.provider_contract import ProviderContract

from batchrunner import providers

for kind in providers.available():
    globals()[f"Test{kind.title()}"] = type(f"Test{kind.title()}", (ProviderContract,), {"kind": kind})
