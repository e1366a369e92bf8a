"""Imports leave the garbage collector as it was."""

from __future__ import annotations

import gc

import pytest

from gptexp.util.quick_imports import without_collection


def _failing_import() -> None:
    with without_collection():
        assert not gc.isenabled()
        raise ImportError


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_suspended_and_restored_after_an_error(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ImportError):
            _failing_import()
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
