"""What felix renders, loaded into a real kernel by both variants of iptables: taken, and saved as it should be."""

from collections.abc import Callable, Iterable
from random import Random

import pytest

from bed import Namespace
from fakes import felix_case
from fakes.felix_records import (
    HERE,
    host,
    host_endpoint,
    network_policy,
    network_profile,
    network_set,
    policy,
    pool,
    profile,
    rule,
    settings,
    tier,
    workload,
)
from fakes.random_rules import accepted_rule
from felix.desired import TABLES, ChainKey, Desired
from felix.pipeline import Pipeline
from kernel.sets import parse_save
from kernel.xtables import TableChange, TableKey, compose
from kernel.xtables_iptc import IptcWriter
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec, ProtoPort
from resources.kinds.rule import ICMP, EntityRule, Rule, RuleMetadata
from resources.names import NodeName

PROGRAMS = {4: "iptables", 6: "ip6tables"}
VARIANTS = ["nft", "legacy"]


def load_sets(netns: Namespace, desired: Desired) -> None:
    lines = []
    for name, made in desired.sets.items():
        family = "inet" if made.version == 4 else "inet6"
        lines.append(f"create {name} {made.type} family {family} maxelem 1048576")
        lines += [f"add {name} {member}" for member in sorted(made.members)]
    netns.run(["ipset", "restore"], stdin="\n".join([*lines, ""]))


def restore_text(desired: Desired, version: int) -> str:
    lines = []
    for table in TABLES:
        here = (version, table)
        chains = {key.chain: made for key, made in desired.chains.items() if (key.version, key.table) == here}
        lines += [f"*{table}", *(f":{name} - -" for name in chains)]
        for key, kernel in desired.kernel_chains.items():
            if (key.version, key.table) == here:
                lines += [f"-I {key.chain} {text}" for text in reversed(kernel.inserts.rules)]
                lines += [f"-A {key.chain} {text}" for text in kernel.appends.rules]
        lines += [f"-A {name} {text}" for name, made in chains.items() for text in made.rules]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


def load(netns: Namespace, desired: Desired, variant: str) -> None:
    load_sets(netns, desired)
    for version, program in PROGRAMS.items():
        netns.run([f"{program}-{variant}-restore", "--noflush"], stdin=restore_text(desired, version))


def saved(netns: Namespace, variant: str, version: int = 4) -> dict[tuple[str, str], list[str]]:
    """The rules as saved, by table and chain."""
    return grouped(
        line
        for table in TABLES
        for line in netns.run([f"{PROGRAMS[version]}-{variant}-save", "-t", table]).stdout.splitlines()
    )


def grouped(lines: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            found.setdefault((table, line.split()[1]), []).append(line)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_case_of_the_reference_byte_for_byte(netns: Namespace, variant: str) -> None:
    load(netns, felix_case.pipeline().desired(), variant)
    assert felix_case.of_the_original(saved(netns, variant)) == grouped(felix_case.SAVED.read_text().splitlines())


def every_field() -> Desired:
    """A host on which every match, target and comment that we can render stands in a rule."""
    many = [*range(1000, 1020), "2000:2010"]
    sides = [
        EntityRule(),
        EntityRule(nets=["10.0.0.0/8"], not_nets=["10.1.0.0/16"]),
        EntityRule(nets=["10.0.0.0/8", "192.0.2.0/24", "fd00::/8", "2001:db8::/32"]),
        EntityRule(not_nets=["10.1.0.0/16", "fd00::/8"]),
        EntityRule(nets=["0.0.0.0/0", "::/0"]),
        EntityRule(selector="has(net)", not_selector="has(x)"),
        EntityRule(not_selector="has(x)"),
        EntityRule(ports=[80, "90:95", "http"], selector="has(net)"),
        EntityRule(ports=list(many), not_ports=[1, *many, "http"]),
    ]
    annotations = {f"key{n}": "ü\"'\n$(x)\\" * 60 for n in range(20)}
    rules = [
        Rule(action=action, protocol=protocol, source=source, destination=destination,
             metadata=RuleMetadata(annotations=annotations))
        for action, protocol in (("Allow", "TCP"), ("Deny", "UDP"), ("Pass", "SCTP"), ("Log", 6))
        for source in sides
        for destination in sides
    ]  # fmt: skip
    rules += [
        Rule(action="Allow", protocol=protocol) for protocol in ("ICMP", "ICMPv6", "UDPLite", 47, 1, 58, 255)
    ]
    rules += [
        Rule(action="Deny", protocol="ICMP", icmp=ICMP(type=3, code=4), not_icmp=ICMP(type=8)),
        Rule(action="Deny", protocol="ICMPv6", icmp=ICMP(type=128), not_icmp=ICMP(type=1, code=0)),
        Rule(action="Deny", protocol=58, not_icmp=ICMP(type=254)),
        Rule(action="Deny", not_icmp=ICMP(type=0)),
        Rule(action="Deny", protocol="TCP", not_protocol="UDP"),
        Rule(action="Deny", not_protocol="UDPLite"),
        Rule(action="Deny", not_protocol="ICMPv6"),
    ]
    spec = FelixConfigurationSpec(
        iptables_filter_deny_action="Reject", nat_port_range="1000:2000", nat_outgoing_exclusions="IPPoolsAndHostIPs",
        iptables_nat_outgoing_interface_filter="eth+", workload_source_spoofing="Any", nat_outgoing_address="192.0.2.1",
        interface_prefix="cali,tap", default_endpoint_to_host_action="Return", log_prefix="x" * 40,
        external_nodes_list=["0.0.0.0/0"], flow_logs_enabled=True,
        failsafe_inbound_host_ports=[
            ProtoPort(protocol="TCP", port=22), ProtoPort(protocol="UDP", port=68, net="192.0.2.0/24"),
            ProtoPort(protocol="SCTP", port=9, net="2001:db8::/32"),
        ],
    )  # fmt: skip
    pipeline = Pipeline(NodeName(HERE))
    records: tuple[tuple[ResourceKey, Resource], ...] = (
        settings(spec),
        pool("10.0.0.0/8", nat=True, ipip="Always"), pool("fd00::/8", nat=True),
        host(HERE, "192.0.2.1/24", ipv6="2001:db8::1/64", tunnel="10.0.0.1"),
        network_profile("net"), profile("x" * 200, [rule("Deny")]), tier("t" * 63, 1, "Pass"),
        policy("p" * 253, "has(net)", rules, rules), policy("q", "has(net)", rules[:3], tier="t" * 63),
        workload("1", "10.0.0.1", "fd00::1", profiles=["net", "x" * 200],
                 ports=[("http", "TCP", 80), ("http", "SCTP", 81)], spoofed=["192.0.2.0/24", "2001:db8::/32"]),
        workload("2", "10.0.0.2/32", profiles=["missing"]), workload("22", "10.0.0.3/32"),
        workload("3", "10.0.0.4/32", interface="tap_-.3"),
        host_endpoint("a", "eth0", profiles=["net"]), host_endpoint("b", "eth0123456789ab"),
        host_endpoint("c", "*", profiles=["x" * 200], labels={"wild": ""}),
        policy("h-nat", "has(net) || has(wild)", rules, pre_dnat=True),
        policy("h-raw", "has(net) || has(wild)", rules, rules, do_not_track=True),
        policy("h-forward", "has(net) || has(wild)", rules, rules, apply_on_forward=True),
        network_policy("n" * 253, "", rules[:3], rules[:3], tier="t" * 63),
        network_set("s", "0.0.0.0/0", "::/0", "10.1.2.3/8", "::ffff:1.2.3.4/127", "::1.2.3.4", labels={"x": ""}),
    )  # fmt: skip
    for key, value in records:
        pipeline.update(key, value)
    pipeline.flush()
    return pipeline.desired()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernel_takes_every_rule_that_we_can_render(netns: Namespace, variant: str) -> None:
    desired = every_field()
    logged = {key.table for key, made in desired.chains.items() for text in made.rules if "NFLOG" in text}
    assert logged == {"raw", "mangle", "filter"}
    load(netns, desired, variant)
    for version in PROGRAMS:
        kept = saved(netns, variant, version)
        for key, made in desired.chains.items():
            if key.version == version and made.rules:
                assert len(kept[key.table, key.chain]) == len(made.rules), key
                for line, tag in zip(kept[key.table, key.chain], made.tags, strict=True):
                    assert f'"cali:{tag}"' in line


def test_members_of_sets_are_read_as_they_were_written(netns: Namespace) -> None:
    """What is printed differently would be put right at every refresh."""
    desired = every_field()
    load_sets(netns, desired)
    found = parse_save(netns.run(["ipset", "save"]).stdout, ("cali40", "cali60"))
    assert {name: made.members for name, made in found.items()} == {
        name: made.members for name, made in desired.sets.items()
    }
    assert any("::ffff:1.2.3.4/127" in made.members for made in found.values())


def accepted(seed: int) -> Desired:
    """A host with a policy of 400 rules that calicoctl takes."""
    random = Random(seed)
    rules = [accepted_rule(random) for _ in range(400)]
    pipeline = Pipeline(NodeName(HERE))
    for key, value in (
        tier("default", 1),
        policy("p", "has(net)", rules[:300], rules[300:]),
        network_profile("net"),
        workload("1", "10.0.0.1", "fd00::1", profiles=["net"], ports=[("http", "TCP", 80), ("http-alt", "SCTP", 81)]),
    ):
        pipeline.update(key, value)
    pipeline.flush()
    return pipeline.desired()


@pytest.mark.parametrize("make", [every_field, lambda: accepted(7)], ids=["every field", "accepted"])
def test_small_changes_of_legacy_tables_write_the_same(netns: Namespace, make: Callable[[], Desired]) -> None:
    """Every rule that we can render, in process by python-iptables and by the restore program."""
    desired = make()
    load(netns, desired, "legacy")
    for version, program in PROGRAMS.items():
        before = saved(netns, "legacy", version)
        for table in set(TABLES) - {"nat"}:  # nat is always left to the restore program
            key = TableKey(version, table)
            chains = {k.chain: made for k, made in desired.chains.items() if TableKey(k.version, k.table) == key}
            kernel = {k.chain: made for k, made in desired.kernel_chains.items() if TableKey(k.version, k.table) == key}
            netns.run(f"{program}-legacy -t {table} -F; {program}-legacy -t {table} -X")
            change = TableChange(
                chains={chain: made.rules for chain, made in chains.items()},
                insert={chain: made.inserts.rules for chain, made in kernel.items()},
                append={chain: made.appends.rules for chain, made in kernel.items()},
            )
            left_to_restore = any("NOTRACK" in text for made in chains.values() for text in made.rules)
            with netns.entered():
                assert IptcWriter().write(key, change) is not left_to_restore
            if left_to_restore:
                netns.run([f"{program}-legacy-restore", "--noflush"], stdin="\n".join([*compose(key, change), ""]))
        assert saved(netns, "legacy", version) == before


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_kernel_takes_every_rule_that_calicoctl_takes(netns: Namespace, variant: str) -> None:
    desired = accepted(5)
    load(netns, desired, variant)
    for version in PROGRAMS:
        kept = saved(netns, variant, version)
        for chain in ("cali-pi-gnp/p", "cali-po-gnp/p"):
            made = desired.chains[ChainKey(version, "filter", chain)]
            assert len(made.rules) > 100
            assert len(kept["filter", chain]) == len(made.rules)
