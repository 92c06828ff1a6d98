"""Two hosts with felix, FORWARD and INPUT policy DROP, and Docker's own rules on the first.

Every test here runs twice, on hosts with nft and on hosts with legacy iptables: it names no variant, plain ``iptables``
is the right one on either. A test that has nothing to do with rules is marked `any_back_end` and runs once:

    pytestmark = pytest.mark.any_back_end       # or @pytest.mark.any_back_end above one test
"""

from collections.abc import Iterator

import pytest

from bed import Dockerd, Firewall, wait_until
from bed.felix import FelixLab
from kernel.xtables import BackEnd

PLACES = {
    "a0": ("node1", "10.65.0.2"),
    "a1": ("node1", "10.65.0.3"),
    "b1": ("node1", "10.66.0.2"),
    "a2": ("node2", "10.65.0.66"),
    "b2": ("node2", "10.66.0.66"),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "back_end" in metafunc.fixturenames:
        once = metafunc.definition.get_closest_marker("any_back_end") is not None
        variants = [BackEnd.NFT] if once else list(BackEnd)
        metafunc.parametrize("back_end", variants, ids=str, scope="session")


@pytest.fixture(scope="session")
def shared_lab(back_end: BackEnd) -> Iterator[FelixLab]:
    with FelixLab(firewall=Firewall(), back_end=back_end) as lab:
        for name, (node, address) in PLACES.items():
            lab.attach(lab.cluster[node], name, address)
        yield lab


@pytest.fixture(scope="session")
def docker(shared_lab: FelixLab) -> Dockerd:
    """Docker on node1, started after felix, whose rules are first again."""
    docker = Dockerd(shared_lab.node1)

    def first() -> str:
        return next(line for line in shared_lab.saved(shared_lab.node1, "filter") if line.startswith("-A FORWARD "))

    wait_until("felix to have its rules before Docker's", lambda: "cali-FORWARD" in first())
    return docker


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
