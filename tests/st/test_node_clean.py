"""calicoctl node clean: nothing of ours stays, nothing of others goes; checksystem on real hosts."""

import json
from collections.abc import Iterator

import pytest

from bed import Cluster, Done, Host, Workload, wait_until
from bed.network import Network
from bed.node import daemons, has_sessions, is_ready, records
from calicoctl.node.checks import openings

FOREIGN = """
iptables -P FORWARD DROP
iptables -N MINE
iptables -A MINE -s 198.51.100.0/24 -m comment --comment "not cali:abcdefghijklmnop" -j RETURN
iptables -A INPUT -j MINE
iptables -I FORWARD -i docker0 -j ACCEPT
iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
iptables -t mangle -A PREROUTING -p udp -j MARK --set-xmark 0x1/0x1
ip6tables -A INPUT -s 2001:db8::/32 -j DROP
ipset create mine hash:ip
ipset add mine 198.51.100.7
ipset create mycali40s hash:net
iptables -A FORWARD -m set --match-set mine src -j DROP
ip link add tempest type veth peer name temp0
ip link add mycali0 type veth peer name tempfile
ip link set mycali0 up
ip addr add 198.51.100.1/24 dev mycali0
ip route add 203.0.113.0/24 via 10.77.0.254
ip route add blackhole 198.18.0.0/15 proto static
ip route add unreachable 198.18.0.0/16 proto 42
"""
OTHERS = r"""
for save in iptables-save ip6tables-save; do $save | grep '^-' | grep -v 'cali-\|"cali:'; done
iptables -S | grep '^-[PN]' | grep -v cali-
ipset save mine; ipset save mycali40s
ip -o link | grep -E 'tempest|temp0|mycali0|tempfile' | sed 's/^[0-9]*: //' | sort
ip route | grep -v 'proto 8[01]'; ip rule
"""
OURS = """
ip route show proto 80; ip route show proto 81; ip -6 route show proto 80; ip -6 route show proto 81
iptables-save | grep 'cali-\\|"cali:'; ip6tables-save | grep 'cali-\\|"cali:'
ipset list -n | grep '^cali'; ip -o link | grep -E '(cali|temp)[0-9a-f]{11}'
ls -d /run/calico /run/docker/plugins/calico*.sock /var/lib/calico/* 2>/dev/null
pgrep -l 'calico|exabgp'
"""


class Pair:
    """Two hosts, meshed, with a workload of one network on each; foreign things are on node1."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.first, self.second = cluster.hosts
        self.first.run(f"set -e; {FOREIGN}")
        self.others_before = self.others()
        cluster.on_each(lambda host: host.run("calicoctl node run", timeout=60.0))
        self.network = Network(cluster)
        self.one, self.two = self.attach()

    def attach(self) -> tuple[Workload, Workload]:
        one, two = self.network.attach(self.first, "one"), self.network.attach(self.second, "two")
        wait_until("the sessions", lambda: all(has_sessions(host, 1) for host in self.cluster.hosts), timeout=30)
        two.await_ping(one.address)
        return one, two

    def others(self) -> str:
        return self.first.run(OTHERS, check=False).stdout

    def ours(self, host: Host) -> str:
        return host.run(OURS, check=False).stdout

    def clean(self) -> Done:
        """Clean node1, and take away what is left of its workload: a namespace without a way out."""
        done = self.first.run("calicoctl node clean --yes", check=False)
        self.one.net.close()
        return done

    def start_again(self) -> None:
        self.two.close()
        self.first.run("calicoctl node run", timeout=60.0)
        self.one, self.two = self.attach()


OTHER_NUMBER = """
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.node1}
spec: {defaultEndpointToHostAction: Return, deviceRouteProtocol: 90}
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with Cluster(2) as cluster:
        yield Pair(cluster)


def test_a_no_changes_nothing(pair: Pair) -> None:
    before = daemons(pair.first), records(pair.cluster), pair.ours(pair.first)
    for answer in ("n\n", "\n", ""):
        done = pair.first.run("calicoctl node clean", stdin=answer, check=False)
        assert done.exit == 1
        assert "Remove all routes, rules, sets and interfaces of calico from this host?" in done.stderr
        assert "1 container loses its network, and the records of node node1 are removed" in done.stderr
        assert (daemons(pair.first), records(pair.cluster), pair.ours(pair.first)) == before


def test_nothing_of_ours_stays_and_nothing_of_others_goes(pair: Pair) -> None:
    first, second = pair.first, pair.second
    assert pair.others() == pair.others_before
    address, handles = str(pair.one.address), _handles(pair)
    others = {key: value for key, value in records(pair.cluster).items() if "node1" not in key + value}
    done = pair.clean()
    assert "stopped calico\n" in done.stdout
    assert "removed node node1 and its endpoints, addresses and blocks from the datastore\n" in done.stdout
    assert done.stdout.endswith("Nothing of calico is left on this host (its logs are in /var/log/calico).\n")
    assert done.stderr == ""
    assert pair.ours(first) == ""
    assert pair.others() == pair.others_before
    left = records(pair.cluster)
    assert [key for key, value in left.items() if "node1" in key + value] == []
    assert [key for key in pair.cluster.store.contents("/calico/felix/") if "node1" in key] == []
    (handle,) = set(handles) - set(_handles(pair))
    assert left == {key: value for key, value in others.items() if key != handle}
    assert address not in json.dumps(left)
    wait_until("node2 to forget its routes", lambda: str(first.address) not in second.ip("route").stdout)
    assert "No IPv4 peers found." in second.run("calicoctl node status").stdout
    assert pair.two.ping(second.address).ok
    again = first.run("calicoctl node clean --yes")
    assert again.stdout == "Nothing of calico is left on this host (its logs are in /var/log/calico).\n"
    # felix may have had another number for its routes
    first.run("calicoctl apply -f -", stdin=OTHER_NUMBER)
    first.ip("route", "add", "blackhole", "10.99.0.0/26", "proto", "90")
    assert "removed 1 routes\n" in first.run("calicoctl node clean --yes").stdout
    assert first.ip("route", "show", "proto", "90").stdout == ""
    first.run("calicoctl delete felixconfiguration node.node1")
    pair.start_again()
    assert pair.others() == pair.others_before


def _handles(pair: Pair) -> list[str]:
    return [key for key in records(pair.cluster) if "/ipam/v2/handle/" in key]


def test_without_the_datastore_the_kernel_is_cleaned_and_the_records_can_be_removed_later(pair: Pair) -> None:
    first, second = pair.first, pair.second
    pair.cluster.store.stop()
    done = pair.clean()
    pair.cluster.store.start()
    assert done.exit == 1
    assert f"the records of node node1 could not be removed: no answer from etcd at {pair.cluster.store.endpoints}" in (
        done.stderr
    )
    assert "when the datastore answers: calicoctl delete node node1" in done.stderr
    assert daemons(first) == {}
    kept = pair.ours(first).splitlines()
    assert all(line.startswith(("/run/calico", "/var/lib/calico")) for line in kept), kept
    assert pair.others() == pair.others_before
    assert any("node1" in key for key in records(pair.cluster))
    assert second.run("calicoctl delete node node1").stdout == "Successfully deleted 1 'Node' resource(s)\n"
    assert [key for key, value in records(pair.cluster).items() if "node1" in key + value] == []
    pair.start_again()


def test_every_opening_that_checksystem_lists_is_one_the_hosts_need(pair: Pair) -> None:
    done = pair.first.run("calicoctl node checksystem")
    lines = done.stdout.splitlines()
    listed = lines[lines.index("What this host's firewall must let in (INPUT):") + 1 : -1]
    wanted = openings(etcd_ports=[2379])
    assert [line.strip().split("  ")[0] for line in listed] == [opening.what for opening in wanted]
    assert lines[-1] == "System meets minimum system requirements to run Calico!"
    assert not any("FAIL" in line for line in lines)


def test_checksystem_says_what_is_missing_and_how_to_mend_it(pair: Pair) -> None:
    host = pair.first
    host.run("mount --bind /dev/null /usr/sbin/ipset && mount --bind /dev/null /etc/hosts")
    try:
        done = host.run("calicoctl node checksystem", check=False)
    finally:
        host.run("umount /usr/sbin/ipset /etc/hosts")
    assert done.exit == 1
    assert done.stdout.endswith("System doesn't meet one or more minimum systems requirements to run Calico\n")
    rows = {line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line.startswith("\t\t")}
    assert (rows["ipset"], rows["ip_set"], rows["veth"]) == ("FAIL", "FAIL", "OK")
    assert "install what is missing: ipset (Debian: iptables ipset iproute2 conntrack)" in done.stderr
    assert "node1 is not in /etc/hosts: programs that ask for it wait for DNS when DNS is down" in done.stderr
    assert is_ready(host, "felix")
