"""Fixtures of all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import Place

# The tests share the cores among processes; their tensors are too small for several threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests, and the processes that they start, put into the cache never lies in the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--encoder tiny`, made for tests: one convolution."""
    from helpers import tiny_encoder

    from kaizen.models.encoders import ENCODERS

    monkeypatch.setitem(ENCODERS, "tiny", tiny_encoder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A launcher with a stand-in of main_continual.py, in the test's folder."""
    return Place(tmp_path)
