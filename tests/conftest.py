"""Fixtures of all tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--encoder tiny`, made for tests: one convolution."""
    from helpers import tiny_encoder

    from kaizen.models.encoders import ENCODERS

    monkeypatch.setitem(ENCODERS, "tiny", tiny_encoder)
