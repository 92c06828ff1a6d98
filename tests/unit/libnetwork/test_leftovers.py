"""Removals that wait until the store is back."""

import threading

import pytest

from fakes.dockerd import FakeDockerd
from fakes.engine_api import FakeEngine
from fakes.faulty_store import FaultyStore
from fakes.libnetwork_host import LibnetworkHost
from fakes.libnetwork_store import SeededStore
from libnetwork.deadline import Deadline
from libnetwork.leftovers import Leftovers
from resources.errors import Rejected, StoreUnavailable

POOL = "17.16.10.0/24"


class Job:
    """A removal that fails as often as told."""

    def __init__(self, *failures: Exception) -> None:
        self._failures = list(failures)
        self.done = threading.Event()
        self.tries = 0

    def __call__(self, deadline: Deadline) -> None:
        assert deadline.left() > 0
        self.tries += 1
        if self._failures:
            raise self._failures.pop(0)
        self.done.set()


AWAY = StoreUnavailable("no answer from etcd")


def test_what_fails_for_now_stays() -> None:
    leftovers, job = Leftovers(), Job(AWAY, AWAY)
    leftovers.add("endpoint 1", job)
    for left in (1, 1, 0, 0):
        leftovers.try_all(seconds=1)
        assert len(leftovers) == left
    assert job.done.is_set()
    assert job.tries == 3


def test_one_that_fails_does_not_stop_the_others() -> None:
    leftovers, job = Leftovers(), Job()
    leftovers.add("endpoint 1", Job(AWAY))
    leftovers.add("endpoint 2", job)
    leftovers.try_all(seconds=1)
    assert job.done.is_set()
    assert len(leftovers) == 1


def test_what_is_refused_is_given_up() -> None:
    leftovers = Leftovers()
    leftovers.add("endpoint 1", Job(Rejected("no")))
    leftovers.try_all(seconds=1)
    assert len(leftovers) == 0


def test_the_same_thing_is_removed_once() -> None:
    leftovers, first, second = Leftovers(), Job(), Job()
    leftovers.add("endpoint 1", first)
    leftovers.add("endpoint 1", second)
    leftovers.try_all(seconds=1)
    assert (first.tries, second.tries) == (0, 1)


def test_the_thread_works_and_ends() -> None:
    leftovers, job = Leftovers(), Job()
    thread = threading.Thread(target=leftovers.run, kwargs={"seconds": 1})
    thread.start()
    leftovers.add("endpoint 1", job)
    assert job.done.wait(5)
    leftovers.stop()
    thread.join(5)
    assert not thread.is_alive()


@pytest.fixture
def host(faulty: FaultyStore, api: FakeEngine) -> LibnetworkHost:
    """Calls end soon when etcd does not answer."""
    return LibnetworkHost(faulty, "node1", api, environ={"CALICO_LIBNETWORK_CALL_TIMEOUT": "100ms"})


@pytest.mark.parametrize("reused", [False, True])
def test_a_container_removed_while_etcd_is_away_leaves_nothing(
    docker: FakeDockerd, host: LibnetworkHost, faulty: FaultyStore, seeded: SeededStore, reused: bool
) -> None:
    """Nor does it take anything from a container that has its address by then."""
    seeded.add_pool("net1", POOL)
    docker.network_create("calico-net1", POOL)
    docker.run("c1", "calico-net1", ip="17.16.10.5")
    faulty.go_down()
    docker.rm("c1")
    faulty.come_up()
    assert len(host.drivers.leftovers) == 2
    host.drivers.leftovers.try_all(seconds=1)
    if reused:
        docker.run("c2", "calico-net1", ip="17.16.10.5")
        host.drivers.leftovers.try_all(seconds=1)
    assert len(host.drivers.leftovers) == 0
    assert len(seeded.endpoints()) == len(seeded.allocated()) == reused
    assert len(host.links.links()) == 1 + 2 * reused
