"""Random policies, profiles and endpoints: the rendered rules decide as the records mean, packet by packet.

The one side walks rule text, the other reads the records; they share nothing but the selector language.
"""

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.felix_records import ELSEWHERE, HERE, policy, profile, tier, workload
from fakes.packets import Packet, machines
from fakes.policy_model import World
from felix.pipeline import Pipeline
from resources.kinds.rule import ICMP, EntityRule, Port, Protocol, Rule
from resources.names import NodeName

V4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.1.0.4"]
V6 = ["fd00::1", "fd00::2", "fd00::3", "fd01::4"]
OUTSIDE = {4: ["192.0.2.9"], 6: ["2001:db8::9"]}
NETS = {
    4: ["10.0.0.0/24", "10.0.0.2/32", "10.1.0.0/16", "192.0.2.0/24", "0.0.0.0/0"],
    6: ["fd00::/64", "fd00::2/128", "fd01::/16", "::/0"],
}
NUMBERS = [80, 81, 443, 8080]
MANY = [*range(1000, 1016), "2000:2005", 80]
SELECTORS = [
    "role == 'web'", "role == 'db'", "has(role)", "!has(role)", "role in {'web', 'db'} && !has(old)", "has(old)",
    "all()", "team == 'a'", "role != 'web'",
]  # fmt: skip
PROFILES = ["p0", "p1", "p2"]
TIERS = ["default", "first", "last", "gone"]


def selectors() -> st.SearchStrategy[str]:
    return st.sampled_from(SELECTORS)


@st.composite
def ports(draw: st.DrawFn, *, numeric: bool) -> list[Port]:
    if not draw(st.booleans()):
        return []
    named: list[Port] = draw(st.lists(st.sampled_from(["http", "dns"]), max_size=2, unique=True))
    if not numeric:
        return named
    numbers: list[Port] = draw(
        st.one_of(
            st.lists(st.sampled_from([80, 81, "8080:8081"]), max_size=2, unique=True),
            st.sampled_from([MANY[:15], MANY[:16], MANY]),
        )
    )
    return numbers + named


@st.composite
def sides(draw: st.DrawFn, *, version: int, numeric: bool) -> EntityRule:
    rarely = st.integers(0, 3).map(lambda chance: chance == 0)
    nets = st.lists(st.sampled_from(NETS[version]), min_size=1, max_size=3, unique=True)
    return EntityRule(
        nets=draw(nets) if draw(rarely) else [],
        not_nets=draw(nets) if draw(rarely) else [],
        selector=draw(selectors()) if draw(rarely) else "",
        not_selector=draw(selectors()) if draw(rarely) else "",
        ports=draw(ports(numeric=numeric)) if draw(rarely) else [],
        not_ports=draw(ports(numeric=numeric)) if draw(rarely) else [],
    )


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    version = draw(st.sampled_from([4, 4, 6]))
    protocol: Protocol | None = draw(
        st.sampled_from(["TCP", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", 6, 17, 47, 1, 58, None, None])
    )
    numeric = protocol in ("TCP", "UDP", "SCTP", 6, 17)
    icmp = st.builds(ICMP, type=st.sampled_from([0, 3, 8]), code=st.sampled_from([None, 0, 4]))
    return Rule(
        action=draw(st.sampled_from(["Allow", "Allow", "Deny", "Pass", "Log"])),
        ip_version=draw(st.sampled_from([None, None, None, 4, 6])),
        protocol=protocol,
        not_protocol=draw(st.sampled_from([None, None, None, "UDP", 47])),
        icmp=draw(st.none() | icmp) if protocol in ("ICMP", "ICMPv6", 1, 58) else None,
        not_icmp=draw(icmp) if draw(st.integers(0, 5)) == 0 else None,
        source=draw(sides(version=version, numeric=numeric)),
        destination=draw(sides(version=version, numeric=numeric)),
    )


LABELS = st.dictionaries(st.sampled_from(["role", "team", "old"]), st.sampled_from(["web", "db", "a"]), max_size=2)
ORDERS = st.sampled_from([None, 1.0, 2.0, -1.5])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Pipeline, World]:
    made = Pipeline(NodeName(HERE))
    endpoints = []
    for number in range(draw(st.integers(1, 4))):
        key, endpoint = workload(
            f"e{number}",
            f"{draw(st.sampled_from(V4))}/32",
            f"{draw(st.sampled_from(V6))}/128",
            node=HERE if number < 2 else ELSEWHERE,
            profiles=draw(st.lists(st.sampled_from(PROFILES), max_size=2, unique=True)),
            labels=draw(LABELS),
            ports=draw(
                st.lists(
                    st.sampled_from(
                        [("http", "TCP", 80), ("http", "TCP", 8080), ("dns", "UDP", 81), ("dns", "TCP", 81)]
                    ),
                    max_size=2,
                )
            ),
        )
        made.update(key, endpoint)
        endpoints.append(endpoint)
    profiles = {}
    for name in draw(st.lists(st.sampled_from(PROFILES), unique=True)):
        listed = st.lists(rules(), max_size=2)
        key, profiles[name] = profile(name, draw(listed), draw(listed), draw(LABELS))
        made.update(key, profiles[name])
    tiers = {}
    for name in ["default", *draw(st.lists(st.sampled_from(TIERS[1:3]), unique=True))]:
        order = 1_000_000.0 if name == "default" else draw(ORDERS)
        key, tiers[name] = tier(name, order, "Deny" if name == "default" else draw(st.sampled_from(["Deny", "Pass"])))
        made.update(key, tiers[name])
    policies = {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True)):
        key, policies[name] = policy(
            name,
            draw(selectors()),
            draw(st.lists(rules(), max_size=3)),
            draw(st.lists(rules(), max_size=3)),
            types=draw(st.sampled_from([[], ["Ingress"], ["Egress"], ["Ingress", "Egress"]])),
            order=draw(ORDERS),
            tier=draw(st.sampled_from([*TIERS, "default", "default"])),
            pre_dnat=draw(st.integers(0, 9)) == 0,
        )
        made.update(key, policies[name])
    return made, World(endpoints, profiles, tiers, policies)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    version = draw(st.sampled_from([4, 4, 6]))
    address = st.sampled_from((V4 if version == 4 else V6) + OUTSIDE[version])
    port = st.sampled_from([*NUMBERS, 1000, 1014, 1015, 1016, 2003, 2006])
    return Packet(
        source=draw(address),
        destination=draw(address),
        protocol=draw(st.sampled_from([6, 6, 17, 132, 1 if version == 4 else 58, 47])),
        source_port=draw(port),
        destination_port=draw(port),
        icmp=draw(st.sampled_from([(8, 0), (3, 4), (0, 0)])),
        in_interface=draw(st.sampled_from(["calie0", "calie1", "eth0"])),
        out_interface=draw(st.sampled_from(["calie0", "calie1", "eth0"])),
        state=draw(st.sampled_from(["NEW"] * 8 + ["ESTABLISHED", "INVALID"])),
        mark=draw(st.sampled_from([0, 0xFFFFFFFF])),
    )


def expected(world: World, packet: Packet) -> bool:
    """Both ends' policies decide; an interface of ours that nobody has lets nothing through.

    The first chain that knows the flow accepts it for good.
    """
    by_interface = {str(e.interface): e for e in world.endpoints if e.node == HERE}
    for interface, direction in ((packet.in_interface, "egress"), (packet.out_interface, "ingress")):
        if interface.startswith("cali"):
            endpoint = by_interface.get(interface)
            if endpoint is None or not world.allows(endpoint, direction, packet):
                return False
            if packet.state == "ESTABLISHED":
                return True
    return True


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(worlds(), st.lists(packets(), min_size=12, max_size=12))
def test_rendered_rules_decide_as_the_records_mean(made: tuple[Pipeline, World], sent: Sequence[Packet]) -> None:
    pipeline, world = made
    pipeline.flush()
    tables = machines(pipeline.desired())
    for machine in tables.values():
        machine.check_all()
    for packet in sent:
        if packet.in_interface.startswith("cali") or packet.out_interface.startswith("cali"):
            assert tables[packet.version].forward(packet) is expected(world, packet), packet
