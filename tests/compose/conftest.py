"""Tests of compose/ compose each experiment anew, as a command does."""

from __future__ import annotations

import pytest

from gptexp.compose.composition import Bases, compose


@pytest.fixture(autouse=True)
def composed_anew(shared_bases: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compose.__kwdefaults__ is not None
    monkeypatch.setitem(compose.__kwdefaults__, "bases", None)
    monkeypatch.setattr("gptexp.sweep.plan.Bases", Bases)
