"""Links of 1450, 1500 and 9000 bytes: what workloads are told, and that packets of just that size pass (no tunnel).

With a tunnel: tests/st/test_ipip.py.
"""

import json
from collections.abc import Iterator

import pytest

from bed import wait_until
from bed.felix import FelixLab
from bed.host import Host
from bed.transfer import transfer
from bed.workload import Workload

pytestmark = pytest.mark.any_back_end

ICMP_HEADERS = 28
MEBIBYTE = 1 << 20


def set_links(lab: FelixLab, mtu: int) -> None:
    """Give all links between the hosts another size, and wait until felix has told the hosts of it."""
    lab.cluster.resize_links(mtu)
    for host in lab.hosts:
        wait_until(f"felix on {host.name} to tell {mtu}", lambda: told(host) == mtu)  # noqa: B023


def told(host: Host) -> int:
    file = host.path("/var/lib/calico/mtu")
    return int(file.read_text()) if file.exists() else 0


def mtu_of(workload: Workload) -> int:
    (link,) = json.loads(workload.ip("-j", "link", "show", "dev", "cali0").stdout)
    return int(link["mtu"])


@pytest.fixture
def sized(lab: FelixLab) -> Iterator[FelixLab]:
    yield lab
    set_links(lab, 1500)


@pytest.fixture
def large(sized: FelixLab) -> tuple[Workload, Workload]:
    """Two workloads on two hosts that were made when the links took 9000 bytes."""
    set_links(sized, 9000)
    return pair(sized, 10)


def pair(lab: FelixLab, number: int) -> tuple[Workload, Workload]:
    one = lab.attach(lab.node1, f"m{number}", f"10.65.0.{number}")
    two = lab.attach(lab.node2, f"n{number}", f"10.65.0.{number + 64}")
    one.await_ping(two.address)
    return one, two


@pytest.mark.parametrize("mtu", [9000, 1500, 1450])
def test_workloads_have_the_size_of_the_links_and_what_is_larger_is_answered(
    sized: FelixLab, large: tuple[Workload, Workload], mtu: int
) -> None:
    set_links(sized, mtu)
    one, two = pair(sized, 20)
    assert (mtu_of(one), mtu_of(two)) == (mtu, mtu)
    whole = one.ping(two.address, size=mtu - ICMP_HEADERS, whole=True)
    assert whole.ok, whole
    over = one.ping(two.address, size=mtu - ICMP_HEADERS + 1, whole=True)
    assert over.error == "Message too long"  # by its own interface
    # one that was made when the links were larger is told by its host, and adapts
    if mtu < mtu_of(large[0]):
        over = large[0].ping(two.address, size=mtu - ICMP_HEADERS + 1, whole=True)
        assert over.error == "packet too big"
        transfer(large[0], large[1], large[1].address, 64 * MEBIBYTE)
    took = transfer(one, two, two.address, 1024 * MEBIBYTE)
    print(f"1 GiB over links of {mtu} bytes in {took:.1f} s")
