"""Two hosts with felix, FORWARD and INPUT policy DROP, and Docker's own rules on the first."""

from collections.abc import Iterator

import pytest

from bed import Dockerd, Firewall
from bed.felix import FelixLab

PLACES = {
    "a0": ("node1", "10.65.0.2"),
    "a1": ("node1", "10.65.0.3"),
    "b1": ("node1", "10.66.0.2"),
    "a2": ("node2", "10.65.0.66"),
    "b2": ("node2", "10.66.0.66"),
}


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[FelixLab]:
    with FelixLab(firewall=Firewall()) as lab:
        for name, (node, address) in PLACES.items():
            lab.attach(lab.cluster[node], name, address)
        yield lab


@pytest.fixture(scope="session")
def docker(shared_lab: FelixLab) -> Dockerd:
    """Docker on node1, started after felix."""
    return Dockerd(shared_lab.node1)


@pytest.fixture
def lab(shared_lab: FelixLab, docker: Dockerd) -> Iterator[FelixLab]:
    """a0, a1, b1 on node1 and a2, b2 on node2, on two networks; what a test puts into the store goes after it.

    No felix may complain meanwhile, but about what the test tolerates.
    """
    before, workloads = shared_lab.snapshot(), set(shared_lab.workloads)
    shared_lab.forget_complaints()
    yield shared_lab
    for name in set(shared_lab.workloads) - workloads:
        shared_lab.detach(name)
    shared_lab.restore(before)
    assert shared_lab.complaints() == []
