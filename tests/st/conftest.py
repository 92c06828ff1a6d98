"""Fixtures for tests of several hosts."""

from collections.abc import Iterator

import pytest

from bed import Fabric


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """An empty fabric, removed after the test with everything that was put on it."""
    with Fabric() as fabric:
        yield fabric
