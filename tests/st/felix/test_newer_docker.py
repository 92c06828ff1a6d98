"""Rules as Docker 28 and 29 write them, beside ours (docs/docker-firewall.md). They are written by hand here, after the
lists of rules that moby keeps beside its integration tests; the daemon of these tests is an older one."""

import contextlib
from collections.abc import Iterator

import pytest

from bed import wait_until
from bed.felix import FelixLab
from bed.host import Host
from bed.probes import Prober
from fakes.felix_records import policy, rule
from resources.kinds.rule import EntityRule

WITHIN = {"a0>a1", "a1>a0", "a0>a2", "a2>a0", "a1>a2", "a2>a1", "b1>b2", "b2>b1"}
ADDRESS, GATEWAY, BRIDGE = "172.31.0.2", "172.31.0.1", "br-newer"
SUBNET = "172.31.0.0/24"


class Bridged(Prober):
    """What a container on a bridge network of Docker is to the host: a namespace behind a bridge."""

    name = "bridged"
    address = ADDRESS

    def __init__(self, host: Host) -> None:
        self.host = host
        self.net = host.fabric.namespace("bridged")
        host.ip(
            batch=f"link add {BRIDGE} type bridge\naddr add {GATEWAY}/24 dev {BRIDGE}\nlink set {BRIDGE} up\n"
            f"link add veth-newer master {BRIDGE} type veth peer name eth0 netns {self.net.netns}\n"
            "link set veth-newer up\n"
        )
        self.net.ip(batch=f"addr add {ADDRESS}/24 dev eth0\nlink set eth0 up\nroute add default via {GATEWAY}\n")

    def entered(self) -> contextlib.AbstractContextManager[None]:
        return self.net.entered()

    def close(self) -> None:
        self.net.close()
        self.host.ip("link", "del", BRIDGE)


# Docker 28 (and 29 by default): published port 8080 -> 80.
DOCKER_28 = f"""
iptables -t raw -A PREROUTING -d {ADDRESS}/32 ! -i {BRIDGE} -j DROP
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL ! -i {BRIDGE} -p tcp --dport 8080 -j DNAT --to {ADDRESS}:80
iptables -t nat -A POSTROUTING -s {SUBNET} ! -o {BRIDGE} -j MASQUERADE
iptables -N NEWER-FORWARD
iptables -N NEWER
iptables -A NEWER-FORWARD -o {BRIDGE} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A NEWER-FORWARD -o {BRIDGE} -j NEWER
iptables -A NEWER-FORWARD -i {BRIDGE} -j ACCEPT
iptables -A NEWER -d {ADDRESS}/32 ! -i {BRIDGE} -o {BRIDGE} -p tcp --dport 80 -j ACCEPT
iptables -A NEWER ! -i {BRIDGE} -o {BRIDGE} -j DROP
iptables -I FORWARD -j NEWER-FORWARD
"""
UNDO_28 = f"""
iptables -D FORWARD -j NEWER-FORWARD
iptables -F NEWER-FORWARD
iptables -F NEWER
iptables -X NEWER-FORWARD
iptables -X NEWER
iptables -t raw -D PREROUTING -d {ADDRESS}/32 ! -i {BRIDGE} -j DROP
iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL ! -i {BRIDGE} -p tcp --dport 8080 -j DNAT --to {ADDRESS}:80
iptables -t nat -D POSTROUTING -s {SUBNET} ! -o {BRIDGE} -j MASQUERADE
"""
# Docker 29 with --firewall-backend=nftables
DOCKER_29 = f"""
table ip docker-bridges {{
    chain filter-FORWARD {{
        type filter hook forward priority filter; policy accept;
        oifname "{BRIDGE}" jump filter-forward-in
        iifname "{BRIDGE}" accept
    }}
    chain filter-forward-in {{
        ct state established,related accept
        iifname "{BRIDGE}" accept
        ip daddr {ADDRESS} tcp dport 80 accept
        drop
    }}
    chain nat-PREROUTING {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local iifname != "{BRIDGE}" tcp dport 8080 dnat to {ADDRESS}:80
    }}
    chain nat-POSTROUTING {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {SUBNET} oifname != "{BRIDGE}" masquerade
    }}
    chain raw-PREROUTING {{
        type filter hook prerouting priority raw; policy accept;
        ip daddr {ADDRESS} iifname != "{BRIDGE}" drop
    }}
}}
"""


@pytest.fixture
def bridged(lab: FelixLab) -> Iterator[Bridged]:
    made = Bridged(lab.node1)
    yield made
    made.close()


@pytest.fixture(params=["28", "29"])
def newer_docker(request: pytest.FixtureRequest, lab: FelixLab, bridged: Bridged) -> Iterator[str]:
    node1 = lab.node1
    if request.param == "28":
        node1.run(DOCKER_28)
        wait_until(
            "ours to be first again",
            lambda: "cali-FORWARD" in node1.run("iptables -S FORWARD").stdout.splitlines()[1],
        )
        yield "28"
        node1.run(UNDO_28)
    else:
        node1.run(["nft", "-f", "-"], stdin=DOCKER_29)
        yield "29"
        node1.run("nft delete table ip docker-bridges")


@pytest.mark.usefixtures("newer_docker")
def test_containers_of_ours_reach_each_other_as_before(lab: FelixLab) -> None:
    lab.expect(WITHIN)


@pytest.mark.usefixtures("newer_docker")
def test_a_container_on_a_bridge_is_reached_by_its_published_port_only(lab: FelixLab, bridged: Bridged) -> None:
    """Its own address is closed, from our containers too: their packets come in by another interface."""
    a0 = lab.workloads["a0"]
    with bridged.tcp_listen(80):
        assert not a0.tcp_connect(ADDRESS, 80, timeout=0.5).ok
        assert a0.tcp_connect(str(lab.node1.address), 8080).ok
        assert lab.node1.tcp_connect(ADDRESS, 80).ok  # the host itself may
    assert not a0.ping(ADDRESS, timeout=0.4).ok


@pytest.mark.usefixtures("newer_docker")
def test_policy_holds_for_the_way_to_the_published_port(lab: FelixLab, bridged: Bridged) -> None:
    """Egress policy sees the container's own address and port: it is asked after the translation."""
    a0 = lab.workloads["a0"]
    deny = rule("Deny", "TCP", destination=EntityRule(nets=[SUBNET], ports=[80]))
    lab.put(policy("p", "name == 'a0'", [], [deny, rule("Allow")], types=["Egress"]))
    with bridged.tcp_listen(80):
        assert not a0.tcp_connect(str(lab.node1.address), 8080, timeout=0.5).ok


@pytest.mark.usefixtures("newer_docker")
def test_a_container_on_a_bridge_reaches_ours_where_policy_lets_it(lab: FelixLab, bridged: Bridged) -> None:
    a0 = lab.workloads["a0"]
    with a0.tcp_listen(80):
        assert not bridged.tcp_connect(a0.address, 80, timeout=0.5).ok
        lab.put(policy("p", "name == 'a0'", [rule("Allow", source=EntityRule(nets=[SUBNET]))], types=["Ingress"]))
        reply = bridged.tcp_connect(a0.address, 80)
    assert reply.ok
    assert reply.seen_as == str(lab.node1.address)  # Docker's masquerading comes after our policy


FORWARD = "nft add chain inet theirs forward '{ type filter hook forward priority %s; policy drop; }'"


@pytest.mark.parametrize("priority", ["-10", "0", "10"])
def test_a_native_chain_that_drops_by_policy_is_stronger_than_our_accept_and_has_to_let_us_in(
    lab: FelixLab, priority: str
) -> None:
    node1 = lab.node1
    node1.run("nft add table inet theirs; " + FORWARD % priority)
    try:
        lab.expect(set(), [lab.workloads[name] for name in ("a0", "a1", "a2")])
        node1.run(
            "nft add rule inet theirs forward iifname 'cali*' accept; "
            "nft add rule inet theirs forward oifname 'cali*' accept"
        )
        lab.expect(WITHIN)
    finally:
        node1.run("nft delete table inet theirs")
