"""One host with its driver, a dockerd that calls it, and the store behind both."""

from pathlib import Path

import pytest

from fakes.dockerd import FakeDockerd, counted_ids
from fakes.engine_api import FakeEngine
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from resources.datastore.memory import MemoryStore


@pytest.fixture
def seeded() -> SeededStore:
    return SeededStore(MemoryStore(), nodes=("node1", "node2"))


@pytest.fixture
def faulty(seeded: SeededStore) -> FaultyStore:
    return FaultyStore(seeded.store)


@pytest.fixture
def api() -> FakeEngine:
    """Never started: the driver reads its data in process."""
    return FakeEngine(Path("/nonexistent"))


@pytest.fixture
def host(faulty: FaultyStore, api: FakeEngine) -> LibnetworkHost:
    return LibnetworkHost(faulty, "node1", api)


@pytest.fixture
def docker(host: LibnetworkHost, api: FakeEngine) -> FakeDockerd:
    return FakeDockerd(host.call, api, ids=counted_ids())
