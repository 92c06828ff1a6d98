"""Static chains by settings: NAT, allow and deny actions, marks, insert mode, IPIP (reference felix.md 3.4 to 3.7)."""

from dataclasses import replace

import pytest

from fakes.felix_records import HERE, host, policy, pool, rule, settings, workload
from fakes.packets import Machine, Packet
from fakes.scenario import OUTSIDE, Scenario
from felix.calc.parameters import Parameters
from felix.desired import Chain, ChainKey, Desired, KernelChain
from felix.pipeline import Pipeline
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule
from resources.names import IfName, NodeName, parse_address


def desired(*records: tuple[ResourceKey, Resource]) -> Desired:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in records:
        pipeline.update(key, value)
    pipeline.flush()
    return pipeline.desired()


def texts(chain: Chain) -> list[str]:
    return [text.split('" ', 1)[1] for text in chain.rules]


def chain(made: Desired, table: str, name: str, version: int = 4) -> list[str]:
    return texts(made.chains[ChainKey(version, table, name)])


POOL = pool("10.1.0.0/16", nat=True)


def nat(*records: tuple[ResourceKey, Resource], version: int = 4) -> list[str]:
    return chain(desired(*records), "nat", "cali-nat-outgoing", version)


def test_nat_outgoing_is_there_while_a_pool_wants_it() -> None:
    assert nat(POOL) == [
        "-m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst "
        "--jump MASQUERADE --random-fully"
    ]
    assert nat(pool("10.1.0.0/16")) == []
    assert not any("pools" in name for name in desired(pool("10.1.0.0/16")).sets)


def test_only_what_leaves_the_pools_is_translated() -> None:
    world = Scenario().put(POOL, pool("10.2.0.0/16"), pool("10.3.0.0/16", nat=True, disabled=True))
    machine = world.machine
    assert machine.source_after_nat(world.packet("a0", OUTSIDE)) == "MASQUERADE --random-fully"
    assert machine.source_after_nat(world.packet("a0", "a2")) == "same"
    assert machine.source_after_nat(world.packet("a0", "b2")) == "same"
    assert machine.source_after_nat(world.packet("b1", OUTSIDE)) == "same"
    assert machine.source_after_nat(world.packet("10.3.0.1", OUTSIDE)) == "MASQUERADE --random-fully"


def test_nat_with_ports_address_exclusions_and_interface() -> None:
    spec = FelixConfigurationSpec(
        nat_port_range="32768:61000",
        nat_outgoing_exclusions="IPPoolsAndHostIPs",
        iptables_nat_outgoing_interface_filter="eth+",
        feature_detect_override="MASQFullyRandom=false",
    )
    match = (
        "--out-interface eth+ -m set --match-set cali40masq-ipam-pools src "
        "-m set ! --match-set cali40all-ipam-pools dst -m set ! --match-set cali40all-hosts-net dst"
    )
    assert nat(POOL, settings(spec)) == [
        f"-p tcp {match} --jump MASQUERADE --to-ports 32768-61000", f"-p tcp {match} --jump RETURN",
        f"-p udp {match} --jump MASQUERADE --to-ports 32768-61000", f"-p udp {match} --jump RETURN",
        f"{match} --jump MASQUERADE",
    ]  # fmt: skip
    assert "cali40all-hosts-net" in desired(POOL, settings(spec)).sets
    (text,) = nat(POOL, settings(FelixConfigurationSpec(nat_outgoing_address="192.0.2.7")))
    assert text.endswith("--jump SNAT --to-source 192.0.2.7 --random-fully")
    plain = FelixConfigurationSpec(nat_outgoing_address="192.0.2.7", feature_detect_override="SNATFullyRandom=false")
    assert nat(POOL, settings(plain))[0].endswith("--jump SNAT --to-source 192.0.2.7")


def test_pools_of_the_other_family() -> None:
    six = pool("fd00::/64", nat=True)
    spec = settings(FelixConfigurationSpec(nat_outgoing_address="192.0.2.7"))
    (text,) = nat(six, spec, version=6)
    assert text.endswith("cali60all-ipam-pools dst --jump MASQUERADE --random-fully")
    assert nat(six) == []


def test_ipip_rules_follow_the_pools_unless_the_settings_decide() -> None:
    tunnelled = pool("10.1.0.0/16", ipip="CrossSubnet")
    node = host(HERE, "172.16.0.1/24", tunnel="10.1.0.1")
    with_rules = desired(tunnelled, node)
    assert len(chain(with_rules, "filter", "cali-INPUT")) == 7
    assert chain(with_rules, "nat", "cali-POSTROUTING")[-1].startswith("--out-interface tunl0 ")
    assert with_rules.sets["cali40all-hosts-net"].members == {"172.16.0.1"}
    off = settings(FelixConfigurationSpec(ipip_enabled=False))
    for without in (desired(POOL, node), desired(tunnelled, node, off)):
        assert len(chain(without, "filter", "cali-INPUT")) == 5
        assert len(chain(without, "nat", "cali-POSTROUTING")) == 2
        assert "cali40all-hosts-net" not in without.sets
    on = settings(FelixConfigurationSpec(ipip_enabled=True, external_nodes_list=["192.0.2.0/24"]))
    assert desired(POOL, node, on).sets["cali40all-hosts-net"].members == {"172.16.0.1", "192.0.2.0/24"}
    assert not any("ipencap" in text or "-p 4 " in text for text in chain(with_rules, "filter", "cali-INPUT", 6))


def test_only_known_hosts_may_send_us_ipip() -> None:
    world = Scenario().put(pool("10.1.0.0/16", ipip="Always"), host("node2", "172.16.60.216/24"))
    def arriving(source: str) -> bool:
        packet = Packet(source=source, destination="172.16.60.215", protocol=4, in_interface="eth0")
        return world.machine.to_host(packet, policy="ACCEPT")

    assert arriving("172.16.60.216")
    assert not arriving("172.16.60.217")


def test_returning_instead_of_accepting() -> None:
    world = Scenario().put(settings(FelixConfigurationSpec(iptables_filter_allow_action="Return")))
    assert not world.reaches("a0", "a1")
    assert world.machine.forward(world.packet("a0", "a1"), policy="ACCEPT")
    assert not world.machine.forward(world.packet("a0", "b1"), policy="ACCEPT")
    assert world.machine.forward(world.packet("a0", "a1", state="ESTABLISHED"), policy="ACCEPT")


def test_denying_with_an_answer() -> None:
    world = Scenario().put(
        settings(FelixConfigurationSpec(iptables_filter_deny_action="Reject")),
        policy("p", "name == 'a0'", [rule("Deny")]),
    )
    assert not world.reaches("a1", "a0")
    assert chain(world.desired, "filter", "cali-pi-gnp/p")[-1].endswith("--jump REJECT")
    assert chain(world.desired, "filter", "cali-to-wl-dispatch")[-1].endswith("--jump REJECT")


def test_other_mark_bits() -> None:
    world = Scenario().put(
        settings(FelixConfigurationSpec(iptables_mark_mask=0xFF000000)),
        policy("p", "name == 'a0'", [rule("Deny", source=EntityRule(selector="name == 'a1'")), rule("Pass")]),
    )
    rules = [text for made in world.desired.chains.values() for text in texts(made)]
    assert not any("0x10000/" in text for text in rules)
    assert world.reaches("a2", "a0")
    assert not world.reaches("a1", "a0")


def test_marks_of_others_are_kept() -> None:
    world = Scenario()
    _, mark = world.machine.walk("raw", "cali-PREROUTING", world.packet("a0", "a1", mark=0xFFFFFFFF))
    assert mark & 0xFFFF == 0xFFFF


def test_append_mode_puts_everything_last() -> None:
    made = desired(settings(FelixConfigurationSpec(chain_insert_mode="Append")))
    assert all(kernel.inserts == Chain((), ()) for kernel in made.kernel_chains.values())
    forward = made.kernel_chains[ChainKey(4, "filter", "FORWARD")]
    assert [text.split('" ', 1)[1].split()[-1] for text in forward.appends.rules] == [
        "cali-FORWARD", "ACCEPT", "0x10000/0x10000",
    ]  # fmt: skip


def test_several_interface_prefixes() -> None:
    spec = settings(FelixConfigurationSpec(interface_prefix="cali,tap"))
    made = desired(spec, workload("x", "10.0.0.1/32", interface="tap1"), workload("y", "10.0.0.2/32"))
    assert made.interfaces.keys() == {"tap1", "caliy"}
    assert "--in-interface tap+ --jump cali-from-wl-dispatch" in chain(made, "filter", "cali-FORWARD")


@pytest.mark.parametrize("switch", [True, False])
def test_connection_tracking_of_invalid_packets(switch: bool) -> None:
    world = Scenario().put(settings(FelixConfigurationSpec(disable_conntrack_invalid_check=switch)))
    assert world.reaches("a0", "a1", state="INVALID") is switch


def test_neighbour_discovery_reaches_the_host_before_policy() -> None:
    world = Scenario()
    key, value = workload("six", "fd00::1/128", profiles=[])
    world.put((key, value))
    made = world.desired
    assert "-p 58 -m icmp6 --icmpv6-type 135 --jump ACCEPT" in chain(made, "filter", "cali-wl-to-host", 6)
    assert not any("icmp" in text for text in chain(made, "filter", "cali-wl-to-host", 4))


def test_without_ipv6_nothing_of_it_is_kept() -> None:
    made = desired(settings(FelixConfigurationSpec(ipv6_support=False)), POOL, workload("x", "10.0.0.1/32", "fd00::1"))
    assert {key.version for key in made.chains} == {key.version for key in made.kernel_chains} == {4}
    assert all(one.version == 4 for one in made.sets.values())
    assert [str(net) for interface in made.interfaces.values() for net in interface.addresses] == ["10.0.0.1/32"]


VXLAN = (
    pool("10.1.0.0/16", vxlan="Always"),
    host(HERE, "172.16.0.1/24", vxlan="10.1.0.1"),
    host("node2", "172.16.0.2/24", vxlan="10.1.0.65"),
)


def vxlan_rules(made: Desired, version: int = 4) -> list[str]:
    return [
        f"{key.table} {text}"
        for key, one in sorted(made.chains.items())
        for text in texts(one)
        if key.version == version
        and key.chain in ("cali-INPUT", "cali-OUTPUT", "cali-PREROUTING", "cali-POSTROUTING")
        and ("4789" in text or "vxlan" in text)
    ]


def test_vxlan_only_between_hosts() -> None:
    outside = host("node3", "172.16.0.3/24")
    external = settings(FelixConfigurationSpec(external_nodes_list=["192.0.2.0/24"]))
    made = desired(*VXLAN, outside, external)
    assert vxlan_rules(made) == [
        'filter -m comment --comment "Allow IPv4 VXLAN packets from allowed hosts" -p 17 '
        "-m multiport --destination-ports 4789 -m set --match-set cali40all-vxlan-net src "
        "-m addrtype --dst-type LOCAL --jump ACCEPT",
        'filter -m comment --comment "Drop IPv4 VXLAN packets from non-allowed hosts" -p 17 '
        "-m multiport --destination-ports 4789 -m addrtype --dst-type LOCAL --jump DROP",
        'filter -m comment --comment "Allow IPv4 VXLAN packets to other allowed hosts" -p 17 '
        "-m multiport --destination-ports 4789 -m set --match-set cali40all-vxlan-net dst "
        "-m addrtype --src-type LOCAL --jump ACCEPT",
        "raw -p 17 -m multiport --destination-ports 4789 --jump NOTRACK",
        f"raw -m mark --mark 0/{Parameters().marks.scratch0:#x} -p 17 -m multiport --destination-ports 4789 "
        "--jump NOTRACK",
    ]
    # without an interface that has the address this host has no end of its own: nobody is at the other one
    assert made.sets["cali40all-vxlan-net"].members == {"192.0.2.0/24"}
    assert vxlan_rules(made, 6) == vxlan_rules(desired(*VXLAN[1:])) == []
    assert vxlan_rules(desired(*VXLAN, settings(FelixConfigurationSpec(vxlan_enabled=False)))) == []


def test_the_hosts_own_packets_leave_the_tunnel_by_its_address() -> None:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in VXLAN:
        pipeline.update(key, value)
    pipeline.flush()
    assert not [text for text in vxlan_rules(pipeline.desired()) if text.startswith("nat")]
    pipeline.set_interface(IfName("eth0"), frozenset([parse_address("172.16.0.1")]))
    pipeline.flush()
    made = pipeline.desired()
    assert [text for text in vxlan_rules(made) if text.startswith("nat")] == [
        "nat --out-interface vxlan.calico -m addrtype ! --src-type LOCAL --limit-iface-out "
        "-m addrtype --src-type LOCAL --jump MASQUERADE --random-fully"
    ]
    assert made.sets["cali40all-vxlan-net"].members == {"172.16.0.2"}


ACCEPTS = Chain(("--jump ACCEPT",), ("",))
"""A rule of another program's, above all of ours."""


def above_ours(made: Desired) -> Desired:
    key = ChainKey(4, "filter", "FORWARD")
    ours = made.kernel_chains[key]
    theirs = Chain((*ACCEPTS.rules, *ours.inserts.rules), (*ACCEPTS.tags, *ours.inserts.tags))
    return replace(made, kernel_chains={**made.kernel_chains, key: KernelChain(inserts=theirs, appends=ours.appends)})


def test_a_new_flow_of_a_workload_that_others_accept_before_policy_is_asked_is_dropped() -> None:
    world = Scenario()
    allowed = [("a0", "a1"), ("a0", OUTSIDE), ("a2", "a0")]
    machine = Machine(above_ours(world.desired), local=world.machine.local)
    for source, target in [*allowed, ("b1", "a0"), (OUTSIDE, "a0")]:
        assert not machine.forward(world.packet(source, target))
        assert machine.forward(world.packet(source, target, state="ESTABLISHED"))
    for source, target in allowed:
        assert world.machine.forward(world.packet(source, target))
    other = Packet(source="172.17.0.2", destination="192.0.2.99", in_interface="docker0", out_interface="eth0")
    assert machine.forward(replace(other, mark=0xFFFFFFFF))  # what is no workload's is not ours to judge
    assert machine.from_host(replace(other, in_interface="", out_interface="eth0", mark=0xFFFFFFFF))


@pytest.mark.parametrize(
    "spec",
    [FelixConfigurationSpec(chain_insert_mode="Append"), FelixConfigurationSpec(iptables_mark_mask=0x1F0000)],
    ids=["rules of others are to be first", "no bit is left"],
)
def test_where_that_is_not_to_be_or_cannot_be(spec: FelixConfigurationSpec) -> None:
    made = desired(settings(spec))
    assert ChainKey(4, "mangle", "FORWARD") not in made.kernel_chains
    assert not any("cali-not-asked" in text for one in made.kernel_chains.values() for text in one.inserts.rules)
