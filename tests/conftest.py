"""Fixtures of all tests."""

from __future__ import annotations

import os

import pytest

# The tests share the cores among processes; their tensors are too small for several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--encoder tiny`, made for tests: one convolution."""
    from helpers import tiny_encoder

    from kaizen.models.encoders import ENCODERS

    monkeypatch.setitem(ENCODERS, "tiny", tiny_encoder)
