"""Fixtures for tests of several hosts."""

from collections.abc import Iterator

import pytest

from bed import Cluster, Fabric
from bed.bgp import Mesh


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """An empty fabric, removed after the test with everything that was put on it."""
    with Fabric() as fabric:
        yield fabric


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Cluster(3) as cluster:
        mesh = Mesh(cluster)
        yield mesh


@pytest.fixture
def pair() -> Iterator[Mesh]:
    with Cluster(2) as cluster:
        yield Mesh(cluster)
