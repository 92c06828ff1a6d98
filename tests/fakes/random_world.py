"""Random clusters: endpoints on two hosts, profiles, tiers and policies over the whole rule language, and packets.

Everything is drawn from a `random.Random`: a seeded one for long runs, Hypothesis's own where it should shrink. Values
come from small pools, so that selectors pick, nets contain and ports meet.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from fakes.felix_records import (
    ELSEWHERE,
    HERE,
    host_endpoint,
    network_policy,
    network_set,
    policy,
    pool,
    profile,
    settings,
    tier,
    workload,
)
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec, ProtoPort
from resources.kinds.rule import ICMP, EntityRule, Port, Protocol, Rule
from resources.kinds.workloadendpoint import WorkloadEndpoint

T = TypeVar("T")
Records = dict[ResourceKey, Resource]

ADDRESSES = {
    HERE: [("10.0.0.1", "fd00::1"), ("10.0.0.2", "fd00::2"), ("10.0.0.3", "fd00::3")],
    ELSEWHERE: [("10.1.0.4", "fd01::4"), ("10.1.0.5", "fd01::5")],
}
HOSTS = {HERE: ("172.16.0.1", "fd99::1"), ELSEWHERE: ("172.16.0.2", "fd99::2")}
"""The addresses of each host on its uplink, eth0."""
OUTSIDE = {4: ["192.0.2.9", "192.0.2.130"], 6: ["2001:db8::9", "2001:db8::ff"]}
NETS = {
    4: ["10.0.0.0/24", "10.0.0.2/32", "10.1.0.0/16", "192.0.2.0/24", "192.0.2.128/25", "0.0.0.0/0", "10.0.0.0/8"],
    6: ["fd00::/64", "fd00::2/128", "fd01::/16", "2001:db8::/32", "2001:db8::80/121", "::/0", "fd00::/8"],
}
SELECTORS = [
    "role == 'web'", "role == 'db'", "has(role)", "!has(role)", "role in {'web', 'db'} && !has(old)", "has(old)",
    "all()", "team == 'a'", "role != 'web'", "team starts with 'a' || old contains 'e'", "team not in {'a', 'b'}",
]  # fmt: skip
MANY: list[Port] = [*range(1000, 1016), "2000:2005", 80, "3000:3001", 443]
NUMBERS = [80, 81, 443, 8080, 8081, 1000, 1014, 1015, 1016, 2003, 2006, 3001, 4789, 22, 53, 179]
NAMED = ["http", "dns", "sig"]
DECLARED = [
    ("http", "TCP", 80), ("http", "TCP", 8080), ("dns", "UDP", 81), ("dns", "TCP", 81), ("sig", "SCTP", 443),
    ("http", "UDP", 80),
]  # fmt: skip
PROTOCOLS: list[Protocol] = [
    "TCP", "TCP", "TCP", "UDP", "UDP", "SCTP", "ICMP", "ICMPv6", "UDPLite", 6, 17, 132, 47, 50, 1, 58, 94,
]  # fmt: skip
WITH_PORTS = ("TCP", "UDP", "SCTP", 6, 17, 132)
ICMP_TYPES = {4: [(8, 0), (13, 0), (8, 7), (3, 4), (0, 0)], 6: [(128, 0), (128, 9), (139, 0), (1, 4), (129, 0)]}
"""Types and codes that are sent: two that open a flow and one of them with another code, an error, a reply."""
PROFILES = ["p0", "p1", "p2"]
TIERS = ["default", "first", "last", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How much of what a world has at most."""

    policies: int = 5
    least_policies: int = 0
    rules: int = 4
    profiles: int = 3
    host_endpoints: int = 3
    """In one world of two."""


class Dice:
    """Draws parts of a world."""

    def __init__(self, random: Random, shape: Shape = Shape()) -> None:
        self.random = random
        self.shape = shape

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.random.randrange(len(choices))]

    def chance(self, one_in: int) -> bool:
        return self.random.randrange(one_in) == 0

    def some(self, choices: Sequence[T], most: int, least: int = 0) -> list[T]:
        """Draw different ones, in any order."""
        left, drawn = list(choices), []
        for _ in range(self.random.randint(least, min(most, len(left)))):
            drawn.append(left.pop(self.random.randrange(len(left))))
        return drawn

    # Rules.

    def rule(self) -> Rule:
        version = self.one([4, 4, 6])
        protocol: Protocol | None = None if self.chance(4) else self.one(PROTOCOLS)
        ported = protocol in WITH_PORTS
        is_icmp = protocol in ("ICMP", "ICMPv6", 1, 58)
        refused: list[Protocol] = ["UDP", 47, "TCP", "SCTP", 50, 1, "ICMPv6"]
        return Rule(
            action=self.one(["Allow", "Allow", "Allow", "Deny", "Pass", "Log"]),
            ip_version=self.one([4, 6]) if self.chance(6) else None,
            protocol=protocol,
            not_protocol=self.one(refused) if self.chance(6) else None,
            icmp=self.icmp() if is_icmp and self.chance(2) else None,
            not_icmp=self.icmp() if self.chance(6) else None,
            source=self.side(version, ported=ported, unprotocolled=protocol is None),
            destination=self.side(version, ported=ported, unprotocolled=protocol is None),
        )

    def icmp(self) -> ICMP:
        kind, code = self.one(ICMP_TYPES[4] + ICMP_TYPES[6])
        return ICMP(type=kind, code=self.one([None, code, 4]))

    def side(self, version: int, *, ported: bool, unprotocolled: bool) -> EntityRule:
        if self.chance(3):
            return EntityRule()

        def nets() -> list[str]:
            return self.some(NETS[version] if not self.chance(8) else NETS[4] + NETS[6], 3, 1) if self.chance(4) else []

        def ports() -> list[Port]:
            return self.ports(numeric=ported) if (ported or unprotocolled) and self.chance(3) else []

        return EntityRule(
            nets=nets(),
            not_nets=nets(),
            selector=self.one(SELECTORS) if self.chance(3) else "",
            not_selector=self.one(SELECTORS) if self.chance(5) else "",
            namespace_selector=self.one(["all()", "global()", "team == 'a'"]) if self.chance(8) else "",
            ports=ports(),
            not_ports=ports(),
        )

    def ports(self, *, numeric: bool) -> list[Port]:
        named: list[Port] = list(self.some(NAMED, 2))
        if not numeric:
            return named
        if self.chance(4):
            return self.one([MANY[:15], MANY[:16], MANY]) + named
        few: list[Port] = [80, 81, "8080:8081", 443, "1:1024"]
        return self.some(few, 2) + named

    def rules(self) -> list[Rule]:
        return [self.rule() for _ in range(self.random.randint(0, self.shape.rules))]

    def labels(self) -> dict[str, str]:
        return {name: self.one(["web", "db", "a"]) for name in self.some(["role", "team", "old"], 2)}

    # Records.

    def order(self) -> float | None:
        return self.one([None, 1.0, 2.0, -1.5])

    def endpoint(self, node: str, number: int) -> tuple[ResourceKey, WorkloadEndpoint]:
        v4, v6 = ADDRESSES[node][number]
        name = f"{'h' if node == HERE else 'e'}{number}"
        return workload(
            name,
            *([] if self.chance(8) else [f"{v4}/32"]),
            *([] if self.chance(8) else [f"{v6}/128"]),
            node=node,
            profiles=self.some(PROFILES, 2),
            labels=self.labels(),
            ports=self.some(DECLARED, 3),
            spoofed=self.some([*NETS[4], *NETS[6]], 2) if self.chance(5) else [],
        )

    def profile(self, name: str) -> tuple[ResourceKey, Resource]:
        return profile(name, self.rules(), self.rules(), self.labels())

    def tier(self, name: str) -> tuple[ResourceKey, Resource]:
        if name == "default":
            return tier(name, 1_000_000.0, "Deny")
        return tier(name, self.order(), self.one(["Deny", "Pass"]))

    def policy(self, name: str) -> tuple[ResourceKey, Resource]:
        return policy(
            name,
            self.one(SELECTORS),
            self.rules(),
            self.rules(),
            types=self.one([[], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            order=self.order(),
            tier=self.one(["default", "default", "default", "first", "first", "last", "gone"]),
            namespace_selector=self.one(["all()", "team == 'a'"]) if self.chance(16) else "",
            apply_on_forward=self.chance(3),
        )

    def early_policy(self, name: str) -> tuple[ResourceKey, Resource]:
        """Draw a policy of host endpoints before NAT or before connection tracking."""
        pre_dnat = self.chance(2)
        return policy(
            name,
            self.one(SELECTORS),
            self.rules(),
            [] if pre_dnat else self.rules(),
            types=["Ingress"] if pre_dnat else self.one([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            order=self.order(),
            tier=self.one(["default", "default", "first", "last", "gone"]),
            pre_dnat=pre_dnat,
            do_not_track=not pre_dnat,
        )

    def network_policy(self, name: str) -> tuple[ResourceKey, Resource]:
        return network_policy(
            name,
            self.one(SELECTORS),
            self.rules(),
            self.rules(),
            namespace=self.one(["libnetwork", "libnetwork", "libnetwork", "other"]),
            types=self.one([[], ["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            order=self.order(),
            tier=self.one(["default", "default", "first", "last"]),
        )

    def network_set(self, name: str) -> tuple[ResourceKey, Resource]:
        nets = self.some([*NETS[4], *NETS[6], *OUTSIDE[4], *OUTSIDE[6]], 3)
        return network_set(name, *nets, labels=self.labels(), namespace=self.one(["", "", "libnetwork", "other"]))

    def host_endpoint(self, name: str) -> tuple[ResourceKey, Resource]:
        node = self.one([HERE, HERE, ELSEWHERE])
        return host_endpoint(
            name,
            self.one(["eth0", "eth0", "*", "", "eth1"]),
            *self.some(HOSTS[node], 2, 1),
            node=node,
            profiles=self.some(PROFILES, 2),
            labels=self.labels(),
            ports=self.some(DECLARED, 2),
        )

    def settings(self) -> tuple[ResourceKey, Resource]:
        return settings(
            FelixConfigurationSpec(
                default_endpoint_to_host_action=self.one(["Drop", "Return", "Accept"]),
                iptables_filter_deny_action=self.one(["", "", "Reject"]),
                allow_vxlan_packets_from_workloads=self.one([None, None, True]),
                allow_ipip_packets_from_workloads=self.one([None, None, True]),
                disable_conntrack_invalid_check=self.one([None, None, True]),
                flow_logs_enabled=self.one([None, None, True]),
                workload_source_spoofing=self.one(["", "Any"]),
                failsafe_inbound_host_ports=self.failsafe(),
                failsafe_outbound_host_ports=self.failsafe(),
            )
        )

    def failsafe(self) -> list[ProtoPort] | None:
        """Draw a list of failsafe ports; mostly that which is built in."""
        if not self.chance(3):
            return None
        return [
            ProtoPort(
                protocol=self.one(["tcp", "udp", "sctp"]),
                port=self.one([80, 443, 1014]),
                net=self.one(["", "", "192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"]),
            )
            for _ in range(self.random.randint(0, 3))
        ]

    def world(self) -> Records:
        """Draw the records of a whole cluster."""
        records = [self.endpoint(node, number) for node, places in ADDRESSES.items() for number in range(len(places))]
        drawn: Records = {key: value for key, value in records if not self.chance(8)}
        drawn |= dict(self.profile(name) for name in self.some(PROFILES, self.shape.profiles, 1))
        drawn |= dict(self.tier(name) for name in ("default", *self.some(TIERS[1:3], 2)))
        count = self.random.randint(self.shape.least_policies, self.shape.policies)
        drawn |= dict(self.policy(f"p{number}") for number in range(count))
        drawn |= dict(self.network_policy(f"p{number}") for number in range(self.random.randint(0, 2)))
        drawn |= dict(self.network_set(f"set{number}") for number in range(self.random.randint(0, 3)))
        if not self.chance(4):
            drawn |= dict([self.settings()])
        for cidr in self.some([*NETS[4][:3], *NETS[6][:3]], 3) if self.chance(3) else []:
            drawn |= dict([pool(cidr, nat=self.chance(2))])
        if self.shape.host_endpoints and self.chance(2):
            count = self.random.randint(1, self.shape.host_endpoints)
            drawn |= dict(self.host_endpoint(f"hep{number}") for number in range(count))
            drawn |= dict(self.early_policy(f"early{number}") for number in range(self.random.randint(0, 2)))
        return drawn

    # Packets.

    def addresses(self, version: int) -> tuple[str, str]:
        """Draw a source and another destination, both of places."""
        inside = [pair[0 if version == 4 else 1] for places in ADDRESSES.values() for pair in places]
        source, destination = self.some([*inside, *OUTSIDE[version]], 2, 2)
        return source, destination

    def transport(self, version: int) -> tuple[int, int, int, tuple[int, int] | None]:
        """Draw protocol, source port, destination port, and ICMP's type and code."""
        protocol = self.one([6, 6, 6, 17, 17, 132, 1 if version == 4 else 58, 1 if version == 4 else 58, 47, 50, 94, 4])
        if protocol in (6, 17, 132):
            return protocol, self.one(NUMBERS), self.one(NUMBERS), None
        return protocol, 0, 0, self.one(ICMP_TYPES[version]) if protocol in (1, 58) else None


def local_addresses(records: Mapping[ResourceKey, Resource], node: str) -> dict[str, str]:
    """Return the interface of each address of a host's workloads."""
    return {
        str(ipaddress.ip_network(text).network_address): value.spec.interface_name
        for value in records.values()
        if isinstance(value, WorkloadEndpoint) and value.spec.node == node
        for text in value.spec.ip_networks
    }
