"""The store on a real etcd: the contract."""

import time
from collections.abc import Iterator

import pytest

from fakes.etcdserver import EtcdServer
from fakes.store_contract import StoreContract
from resources.datastore.etcd import EtcdStore
from resources.datastore.settings import EtcdConfig


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
