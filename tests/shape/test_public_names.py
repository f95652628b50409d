"""The public names are a list, and the list is the truth."""

from __future__ import annotations

import batchrunner


def test_public_names_are_listed_in_order_and_documented():
    assert batchrunner.__all__ == sorted(batchrunner.__all__, key=str.casefold)
    assert all(getattr(batchrunner, name).__doc__ for name in batchrunner.__all__)


def test_there_are_few_of_them():
    assert len(batchrunner.__all__) <= 20
