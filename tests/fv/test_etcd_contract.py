"""The store on a real etcd: the contract."""

import time
from collections.abc import Iterator

import pytest

from fakes.etcdserver import EtcdServer
from fakes.store_contract import StoreContract
from resources.datastore.etcd import EtcdStore
from resources.datastore.etcdconfig import EtcdConfig


class EtcdOperator:
    def __init__(self, server: EtcdServer) -> None:
        self._server = server

    def compact(self, revision: int) -> None:
        self._server.compact(revision)

    def let_leases_run_out(self, seconds: int) -> None:
        time.sleep(seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


class TestContract(StoreContract):
    @pytest.fixture
    def store(self, server: EtcdServer) -> Iterator[EtcdStore]:
        store = EtcdStore(EtcdConfig(endpoints=server.endpoints))
        yield store
        store.close()

    @pytest.fixture
    def operator(self, server: EtcdServer) -> EtcdOperator:
        return EtcdOperator(server)

    def test_watches_of_many_prefixes_are_all_opened_every_time(self, store: EtcdStore) -> None:
        """Two in five of these once lost a prefix, and so 4.5 s (see `Cluster.open_stream`)."""
        start = store.list("/calico/").revision + 1
        prefixes = {f"/calico/resources/v3/projectcalico.org/kind{number}/": start for number in range(40)}
        began = time.monotonic()
        for _ in range(30):
            with store.watch(prefixes):
                pass
        assert time.monotonic() - began < 30  # a lost prefix in two of five would take 54 s
