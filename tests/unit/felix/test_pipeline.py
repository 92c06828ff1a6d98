"""The desired state depends on the records there are, never on how they came; and one change costs what it needs."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from random import Random
from types import FrameType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fakes import felix_case
from fakes.felix_records import (
    ELSEWHERE,
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
from fakes.folded import Folded
from fakes.packets import machines
from fakes.random_history import Event, Flush, Historian, Interface, Put, shown
from fakes.shrinking import shortest
from felix.desired import Desired, IPSet, SetChange
from felix.pipeline import Pipeline
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.names import IfName, IPAddress, NodeName, parse_address, parse_network

Addresses = frozenset[IPAddress]
State = Mapping[ResourceKey | IfName, Resource | Addresses]
"""Records, and interfaces of the host with their addresses."""
Step = tuple[ResourceKey | IfName, Resource | Addresses | None]

ALLOW, DENY = Rule(action="Allow"), Rule(action="Deny")


def fresh(state: State) -> Desired:
    return started(state).desired()


def started(state: State) -> Pipeline:
    pipeline = Pipeline(NodeName(HERE))
    for step in state.items():
        take(pipeline, step)
    pipeline.flush()
    return pipeline


def take(pipeline: Pipeline, step: Step) -> None:
    key, value = step
    if isinstance(key, ResourceKey):
        assert not isinstance(value, frozenset)
        pipeline.update(key, value)
    else:
        assert value is None or isinstance(value, frozenset)
        pipeline.set_interface(key, value)


def state(*records: Step) -> State:
    return {key: value for key, value in records if value is not None}


def interface(name: str, *addresses: str) -> tuple[IfName, Addresses]:
    return IfName(name), frozenset(map(parse_address, addresses))


LOCAL = workload("aa1", "10.0.0.1/32", profiles=["net"])
CLASHING = workload("aa0", "10.0.0.9/32", interface="caliaa1", profiles=["other"])
REMOTE = workload("bb1", "10.0.1.1/32", "fd00::1", node=ELSEWHERE, profiles=["net"], labels={"role": "web"})
FROM_WEB = policy("web", "has(net)", [rule("Allow", "TCP", source=EntityRule(selector="role == 'web'"))])

OFFICE = {"zone": "office"}
FROM_OFFICE = policy("office", "", [rule("Allow", source=EntityRule(selector="zone == 'office'"))])

HISTORIES: dict[str, Sequence[State]] = {
    "endpoint": [
        state(network_profile("net"), LOCAL),
        state(network_profile("net"), LOCAL, REMOTE),
        state(network_profile("net"), REMOTE),
    ],
    "policy": [
        state(network_profile("net"), LOCAL, REMOTE),
        state(network_profile("net"), LOCAL, REMOTE, FROM_WEB),
        state(network_profile("net"), LOCAL, REMOTE, policy("web", "has(net)", [DENY], order=1)),
        state(network_profile("net"), LOCAL, REMOTE, policy("web", "has(net)", [DENY], tier="t"), tier("t", 1)),
    ],
    "profile": [
        state(LOCAL),
        state(LOCAL, network_profile("net")),
        state(LOCAL, profile("net", [DENY], labels={"net": "", "role": "web"}), FROM_WEB),
    ],
    "clash": [
        state(LOCAL, network_profile("net")),
        state(LOCAL, CLASHING, network_profile("net"), network_profile("other")),
        state(CLASHING, network_profile("other")),
    ],
    "move": [
        state(LOCAL, network_profile("net")),
        state(workload("aa1", "10.0.0.1/32", node=ELSEWHERE, profiles=["net"]), network_profile("net")),
        state(workload("aa1", "10.0.0.1/32", interface="calizz", profiles=["net"]), network_profile("net")),
    ],
    "surroundings": [
        state(host(HERE, "172.16.0.1/24"), pool("10.0.0.0/16", nat=True)),
        state(host(HERE, "172.16.0.1/24", tunnel="10.0.0.64"), host(ELSEWHERE, "172.16.0.2/24"),
              pool("10.0.0.0/16", nat=True, ipip="Always"), pool("fd00::/64", nat=True)),
        state(host(HERE, "172.16.0.1/24"), pool("10.0.0.0/16")),
    ],
    "vxlan": [
        state(host(HERE, "172.16.0.1/24", vxlan="10.0.0.64"), host(ELSEWHERE, "172.16.0.2/24", vxlan="10.1.0.64"),
              pool("10.0.0.0/8", vxlan="Always"), interface("eth0", "172.16.0.1")),
        state(host(HERE, "172.16.0.1/24", vxlan="10.0.0.64"), pool("10.0.0.0/8", vxlan="CrossSubnet"),
              interface("eth0", "172.16.0.1"), settings(FelixConfigurationSpec(vxlan_vni=7))),
        state(host(HERE, "172.16.0.1/24"), host(ELSEWHERE, "172.16.0.2/24", vxlan="10.1.0.64"),
              pool("10.0.0.0/8", vxlan="Always"), interface("eth0", "172.16.0.9")),
    ],
    "network set": [
        state(LOCAL, FROM_OFFICE, network_set("s", "192.0.2.0/24", "fd01::/16", labels=OFFICE)),
        state(LOCAL, FROM_OFFICE, network_set("s", "192.0.2.0/24", "0.0.0.0/0", "10.0.0.1", labels=OFFICE)),
        state(LOCAL, FROM_OFFICE, network_set("s", "192.0.2.0/24", "nonsense", labels=OFFICE),
              network_set("s", "192.0.2.5/24", labels=OFFICE, namespace="libnetwork")),
        state(LOCAL, FROM_OFFICE, network_set("s", "10.0.0.1/32")),
    ],
    "policy of a namespace": [
        state(LOCAL, network_policy("p", "", [ALLOW])),
        state(LOCAL, network_policy("p", "", [DENY]), network_policy("p", "", [DENY], namespace="default")),
        state(LOCAL, network_policy("p", "has(net)", [ALLOW]), policy("p", "", [DENY])),
    ],
    "host endpoint": [
        state(host_endpoint("a", "eth0", "192.0.2.1", labels=OFFICE), FROM_OFFICE, LOCAL),
        state(host_endpoint("a", "", "192.0.2.1", labels=OFFICE), FROM_OFFICE, LOCAL, interface("eth0", "192.0.2.1"),
              policy("p", "zone == 'office'", [DENY], apply_on_forward=True)),
        state(host_endpoint("a", "", "192.0.2.1", labels=OFFICE), interface("eth0"), interface("eth1", "192.0.2.1"),
              policy("p", "zone == 'office'", [DENY], do_not_track=True), host_endpoint("b", "*", profiles=["net"])),
        state(host_endpoint("b", "*", profiles=["net"]), network_profile("net"), host_endpoint("c", "eth1"),
              host_endpoint("d", "eth12"), policy("p", "!has(zone)", [DENY], pre_dnat=True)),
    ],
    "settings": [
        state(LOCAL, network_profile("net")),
        state(settings(FelixConfigurationSpec(ipv6_support=False))),
        state(LOCAL, network_profile("net")),
        state(LOCAL, network_profile("net"), settings(FelixConfigurationSpec(ipv6_support=False))),
        state(LOCAL, network_profile("net"), settings(FelixConfigurationSpec(interface_prefix="tap"))),
        state(LOCAL, network_profile("net"), settings(FelixConfigurationSpec(iptables_mark_mask=0xFF))),
    ],
}  # fmt: skip


def forwards(states: Sequence[State]) -> Sequence[State]:
    return states


def backwards(states: Sequence[State]) -> Sequence[State]:
    return states[::-1]


def with_empties(states: Sequence[State]) -> Sequence[State]:
    return [between for one in states for between in ({}, one)]


def squashed(states: Sequence[State]) -> Sequence[State]:
    return states[-1:]


def steps_between(before: State, after: State, *, flip: bool) -> list[Step]:
    changes: list[Step] = [(key, None) for key in before.keys() - after.keys()]
    changes += [(key, value) for key, value in after.items() if before.get(key) != value]
    return sorted(changes, key=lambda change: str(change[0]), reverse=flip)


@pytest.mark.parametrize("reorder", [forwards, backwards, with_empties, squashed])
@pytest.mark.parametrize("flip", [False, True], ids=["keys-up", "keys-down"])
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_desired_state_forgets_how_it_got_there(
    history: Sequence[State], reorder: Callable[[Sequence[State]], Sequence[State]], flip: bool
) -> None:
    pipeline, folded = Pipeline(NodeName(HERE)), Folded()
    for before, after in pairwise([{}, *reorder(history)]):
        for step in steps_between(before, after, flip=flip):
            take(pipeline, step)
        folded.fold(pipeline.flush())
        assert pipeline.desired() == folded.desired == fresh(after)


def test_nothing_is_left_of_what_is_gone() -> None:
    pipeline = Pipeline(NodeName(HERE))
    empty = fresh({})
    for key, value in felix_case.records():
        pipeline.update(key, value)
    pipeline.flush()
    for key, _ in felix_case.records():
        pipeline.update(key, None)
    update = pipeline.flush()
    assert pipeline.desired() == empty
    assert update.interfaces == {IfName("cali61dbcdeb9d0"): None}


SIDES = st.sampled_from(
    [EntityRule(), EntityRule(selector="role == 'web'"), EntityRule(selector="has(net)", not_selector="has(x)"),
     EntityRule(ports=["http"]), EntityRule(not_selector="has(x)"), EntityRule(nets=["10.0.0.0/8", "fd00::/8"])]
)  # fmt: skip
RULES = st.lists(
    st.builds(rule, st.sampled_from(["Allow", "Deny", "Pass"]), st.just("TCP"), source=SIDES, destination=SIDES),
    max_size=2,
)
LABELS = st.dictionaries(st.sampled_from(["role", "net", "x"]), st.sampled_from(["web", ""]), max_size=2)
IPS = ["10.0.0.1", "192.0.2.1", "fd00::1"]
STEPS: st.SearchStrategy[tuple[ResourceKey | IfName, Resource | Addresses]] = st.one_of(
    st.builds(
        workload,
        st.sampled_from(["e1", "e2", "e3"]),
        st.sampled_from(["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"]),
        node=st.sampled_from([HERE, ELSEWHERE]),
        interface=st.sampled_from(["calie1", "calie2", "calix", "eth9"]),
        profiles=st.lists(st.sampled_from(["net", "other", "none"]), unique=True, max_size=2),
        labels=LABELS,
        ports=st.sampled_from([[], [("http", "TCP", 80)]]),
    ),
    st.builds(profile, st.sampled_from(["net", "other"]), RULES, RULES, LABELS),
    st.builds(
        policy,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["has(net)", "role == 'web'", "all()", "!has(x)", "broken ("]),
        RULES,
        RULES,
        order=st.sampled_from([None, 1.0]),
        tier=st.sampled_from(["default", "t"]),
        pre_dnat=st.booleans(),
        do_not_track=st.booleans(),
        apply_on_forward=st.booleans(),
        hints=st.sampled_from([[], [], ["AssumeNeededOnEveryNode"]]),
    ),
    st.builds(
        network_policy,
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "has(net)", "!has(x)"]),
        RULES,
        RULES,
        namespace=st.sampled_from(["libnetwork", "default"]),
    ),
    st.builds(
        lambda nets, labels, namespace: network_set("s", *nets, labels=labels, namespace=namespace),
        st.lists(st.sampled_from(["10.0.0.0/8", "10.9.9.9/8", "10.0.0.1", "0.0.0.0/0", "128.0.0.0/1", "::/0", "x"])),
        LABELS,
        st.sampled_from(["", "libnetwork"]),
    ),
    st.builds(
        lambda name, interface, addresses, **fields: host_endpoint(name, interface, *addresses, **fields),
        st.sampled_from(["h1", "h2", "h3"]),
        st.sampled_from(["eth0", "eth1", "calie1", "*", ""]),
        st.lists(st.sampled_from([*IPS, "x"]), max_size=2),
        node=st.sampled_from([HERE, HERE, ELSEWHERE]),
        profiles=st.lists(st.sampled_from(["net", "other", "none"]), unique=True, max_size=2),
        labels=LABELS,
        ports=st.sampled_from([[], [("http", "TCP", 8080)]]),
    ),
    st.builds(
        lambda name, addresses: interface(name, *addresses),
        st.sampled_from(["eth0", "eth1", "calie1"]),
        st.lists(st.sampled_from(IPS), max_size=2),
    ),
    st.builds(tier, st.sampled_from(["default", "t"]), st.sampled_from([None, 1.0]), st.sampled_from(["Deny", "Pass"])),
    st.builds(pool, st.sampled_from(["10.0.0.0/16", "fd00::/64"]), nat=st.booleans(), ipip=st.just("Always")),
    st.builds(
        host, st.sampled_from([HERE, ELSEWHERE]), st.just("172.16.0.1/24"), tunnel=st.sampled_from(["", "10.0.0.9"])
    ),
    st.builds(
        lambda **fields: settings(FelixConfigurationSpec(**fields)),
        ipv6_support=st.sampled_from([None, False]),
        max_ipset_size=st.sampled_from([None, 1]),
        iptables_filter_deny_action=st.sampled_from(["Drop", "Reject"]),
        workload_source_spoofing=st.sampled_from(["Any", "Disabled"]),
        flow_logs_enabled=st.sampled_from([None, True]),
    ),
)


@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.one_of(STEPS, STEPS.map(lambda step: (step[0], None)), st.just("flush")), max_size=25))
def test_any_sequence_of_updates_ends_like_a_fresh_start(steps: list[Step | str]) -> None:
    pipeline, folded = Pipeline(NodeName(HERE)), Folded()
    there: dict[ResourceKey | IfName, Resource | Addresses] = {}
    for step in [*steps, "flush"]:
        if isinstance(step, str):
            folded.fold(pipeline.flush())
            anew = started(there)
            assert pipeline.desired() == folded.desired == anew.desired()
            assert pipeline.whole() == anew.whole()
            for machine in machines(pipeline.desired()).values():
                machine.check_all()
            continue
        key, value = step
        take(pipeline, step)
        there.pop(key, None)
        if value is not None:
            there[key] = value


def rules_differ(events: Sequence[Event]) -> str:
    """Return where what the updates amount to first differs from what a fresh start wants; nothing if it never does."""
    pipeline, folded = Pipeline(NodeName(HERE)), Folded()
    there: dict[ResourceKey | IfName, Resource | Addresses] = {}
    for event in events:
        match event:
            case Put(key, value):
                pipeline.update(key, value)
                there.pop(key, None)
                if value is not None:
                    there[key] = value
            case Interface(name, texts):
                addresses = None if texts is None else frozenset(map(parse_address, texts))
                pipeline.set_interface(IfName(name), addresses)
                there.pop(IfName(name), None)
                if addresses is not None:
                    there[IfName(name)] = addresses
            case Flush():
                folded.fold(pipeline.flush())
                wanted = fresh(there)
                for found in (pipeline.desired(), folded.desired):
                    if found != wanted:
                        return f"{found}\ninstead of {wanted}"
    return ""


@hypothesis_settings(max_examples=60, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(st.integers(0, 2**48))
def test_any_history_of_all_kinds_ends_in_the_same_rules(seed: int) -> None:
    events = Historian(Random(seed)).events(50)
    if rules_differ(events):
        short = shortest(events, lambda fewer: bool(rules_differ(fewer)))
        pytest.fail(f"seed {seed}: {rules_differ(short)}\n" + "\n".join(map(shown, short)))


# Endpoints.


def test_of_two_endpoints_with_one_interface_the_lowest_id_is_served() -> None:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in (LOCAL, CLASHING, network_profile("net"), network_profile("other")):
        pipeline.update(key, value)
    update = pipeline.flush()
    assert update.interfaces[IfName("caliaa1")] is not None
    assert pipeline.desired().interfaces[IfName("caliaa1")].addresses == {parse_network("10.0.0.9/32")}
    assert update.problems == {LOCAL[0]: (f"it waits: interface caliaa1 belongs to {CLASHING[0]}",)}
    pipeline.update(CLASHING[0], None)
    update = pipeline.flush()
    assert pipeline.desired().interfaces[IfName("caliaa1")].addresses == {parse_network("10.0.0.1/32")}
    assert update.problems == {LOCAL[0]: ()}


def test_two_endpoints_may_claim_one_address() -> None:
    other = workload("cc1", "10.0.0.1/32", profiles=["net"])
    desired = fresh(state(LOCAL, other, network_profile("net")))
    address = {parse_network("10.0.0.1/32")}
    assert {name: interface.addresses for name, interface in desired.interfaces.items()} == {
        "caliaa1": address, "calicc1": address,
    }  # fmt: skip


def test_an_interface_that_is_no_workloads_is_not_touched() -> None:
    pipeline = Pipeline(NodeName(HERE))
    key, value = workload("dd1", "10.0.0.1/32", interface="eth0", profiles=["net"])
    pipeline.update(key, value)
    update = pipeline.flush()
    assert pipeline.desired().interfaces == {}
    assert not any("eth0" in chain.chain for chain in pipeline.desired().chains)
    assert update.problems == {key: ("it is not served: interface eth0 does not begin with cali",)}


@pytest.mark.parametrize(
    "record",
    [
        workload("dd1", "10.0.0.0/24"),
        workload("dd1", "10.0.0.300"),
        workload("dd1", "::ffff:10.0.0.1/128"),
        workload("dd1", "0.0.0.0/32"),
        workload("dd1", "::/128"),
        workload("dd1", "10.0.0.1/32", interface="cali x"),
        workload("dd1", "10.0.0.1/32", interface="cali0123456789ab"),
        workload("dd1", "10.0.0.1/32", mac="nonsense"),
        workload("dd1", "10.0.0.1/32", ports=[("http", "ICMP", 80)]),
    ],
    ids=lambda record: str(record[1].spec.ip_networks) + record[1].spec.interface_name,
)
def test_an_endpoint_that_cannot_be_served_is_absent_and_harms_nobody(
    record: tuple[ResourceKey, Resource],
) -> None:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in (record, LOCAL, network_profile("net")):
        pipeline.update(key, value)
    update = pipeline.flush()
    assert pipeline.desired() == fresh(state(LOCAL, network_profile("net")))
    (problem,) = update.problems[record[0]]
    assert problem.startswith("it cannot be used and counts as absent: ")
    pipeline.update(record[0], None)
    assert pipeline.flush().problems == {record[0]: ()}


def test_a_policy_whose_selector_cannot_be_read_is_absent_with_the_column() -> None:
    pipeline = Pipeline(NodeName(HERE))
    key, value = policy("p", "role = 'x'", [ALLOW])
    pipeline.update(key, value)
    assert pipeline.flush().problems == {key: ("it cannot be used and counts as absent: expected == at column 6",)}


def test_missing_profiles_and_tiers_are_told() -> None:
    pipeline = Pipeline(NodeName(HERE))
    blocked = policy("p", "all()", [ALLOW], tier="t")
    pipeline.update(*LOCAL)
    pipeline.update(*blocked)
    assert pipeline.flush().problems == {
        LOCAL[0]: ("profile net does not exist: until it does it denies everything",),
        blocked[0]: ("tier t does not exist: until it does, what the policy selects is closed",),
    }
    pipeline.update(*network_profile("net"))
    pipeline.update(*tier("t", 1))
    assert pipeline.flush().problems == {LOCAL[0]: (), blocked[0]: ()}


def test_a_profile_that_comes_and_goes_is_told() -> None:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in (LOCAL, network_profile("net")):
        pipeline.update(key, value)
    assert pipeline.flush().problems == {}
    missing = ("profile net does not exist: until it does it denies everything",)
    pipeline.update(network_profile("net")[0], None)
    assert pipeline.flush().problems == {LOCAL[0]: missing}
    pipeline.update(*network_profile("net"))
    assert pipeline.flush().problems == {LOCAL[0]: ()}


def test_an_endpoint_that_changes_its_interface_keeps_its_policies() -> None:
    pipeline = Pipeline(NodeName(HERE))
    pipeline.update(*policy("p", "team == 'a'", [DENY]))
    for number in range(20):  # the order in which two interfaces are settled is any
        pipeline.update(*workload("aa1", "10.0.0.1/32", interface=f"cali{number}", labels={"team": "a"}))
        pipeline.flush()
        chains = {key.chain: chain for key, chain in pipeline.desired().chains.items()}
        assert "cali-pi-gnp/p" in chains
        assert any("cali-pi-gnp/p" in text for text in chains[f"cali-tw-cali{number}"].rules)
        assert pipeline.desired().interfaces.keys() == {f"cali{number}"}


def test_a_policy_alone_does_not_tell_interfaces_again() -> None:
    pipeline = Pipeline(NodeName(HERE))
    for key, value in (LOCAL, network_profile("net")):
        pipeline.update(key, value)
    pipeline.flush()
    pipeline.update(*policy("p", "all()", [DENY]))
    update = pipeline.flush()
    assert update.chains
    assert update.interfaces == {}


def test_a_set_that_is_too_large_is_left_out_and_what_uses_it_allows_nothing() -> None:
    world = state(
        LOCAL, network_profile("net"), workload("bb1", "10.0.1.1/32", node=ELSEWHERE, profiles=["net"]),
        settings(FelixConfigurationSpec(max_ipset_size=1)),
    )  # fmt: skip
    pipeline = Pipeline(NodeName(HERE))
    for step in world.items():
        take(pipeline, step)
    update = pipeline.flush()
    desired = pipeline.desired()
    assert not any("s:" in name for name in desired.sets)
    rules = [chain.rules for key, chain in desired.chains.items() if key.chain == "cali-pri-net"]
    assert rules == [(), ()]
    assert update.problems == {
        ResourceKey("profiles", "net"): ("selector has(net) has more than 1 members: rules with it allow nothing",)
    }


# What a change costs.


@cache
def crowd(count: int) -> Pipeline:
    """A host with so many endpoints and policies; made once, every test leaves it as it was."""
    pipeline = Pipeline(NodeName(HERE))
    records: list[tuple[ResourceKey, Resource]] = [network_profile("net")]
    for number in range(count):
        labels = {"app": f"app{number}"}
        name = f"{number * 7919 % 2**20:05x}"
        records.append(
            workload(name, f"10.{number >> 8}.{number & 255}.1/32", profiles=["net"], labels=labels)
        )
        ingress = [rule("Allow", "TCP", source=EntityRule(selector=f"app == 'app{number + 1}'"))]
        records.append(policy(f"p{number}", f"app == 'app{number}'", ingress))
    for key, value in records:
        pipeline.update(key, value)
    pipeline.flush()
    return pipeline


COMMON = 6
"""So many policies of everybody: endpoints share a chain of jumps in each direction."""


@cache
def company(count: int) -> Pipeline:
    """A host with so many endpoints that all ask the same policies."""
    pipeline = Pipeline(NodeName(HERE))
    pipeline.update(*network_profile("net"))
    for number in range(COMMON):
        pipeline.update(*policy(f"p{number}", "has(net)", [DENY], [ALLOW], types=["Ingress", "Egress"], order=number))
    pipeline.update(*policy("extra", "chosen == 'yes'", [DENY], [ALLOW], types=["Ingress", "Egress"], order=99))
    for number in range(count):
        name = f"{number * 7919 % 2**20:05x}"
        pipeline.update(*workload(name, f"10.{number >> 8}.{number & 255}.1/32", profiles=["net"]))
    pipeline.flush()
    return pipeline


def cost_of(pipeline: Pipeline, *steps: Step) -> tuple[int, int]:
    """Return how many chains were rendered and how many selectors tried."""
    rendered, evaluations = pipeline.rendered, pipeline.evaluations
    for step in steps:
        take(pipeline, step)
    pipeline.flush()
    return pipeline.rendered - rendered, pipeline.evaluations - evaluations


NEW = workload("fffff", "10.200.0.1/32", profiles=["net"], labels={"app": "app5"})


def instructions_of(work: Callable[[], object]) -> int:
    """Return how many instructions of Python `work` takes: what it costs, whatever else the machine does."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def change_of(pipeline: Pipeline, step: Step) -> Callable[[], object]:
    def work() -> None:
        take(pipeline, step)
        pipeline.flush()

    return work


EVERYBODY = policy("everybody", "has(net)", [ALLOW], order=7)
CHANGES: dict[str, Sequence[Step]] = {
    "endpoint here": [NEW],
    "label here": [NEW, workload("fffff", "10.200.0.1/32", profiles=["net"], labels={"app": "app6"})],
    "endpoint elsewhere": [
        workload("fffff", "10.200.0.1/32", node=ELSEWHERE, profiles=["net"], labels={"app": "app5"})
    ],
    "rules of a policy": [policy("p3", "app == 'app3'", [ALLOW, DENY])],
    "rules of a policy of everybody": [EVERYBODY, policy("everybody", "has(net)", [DENY], order=7)],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_costs_the_same_with_little_and_with_much_there(change: str) -> None:
    counts = []
    # an endpoint's dispatch chain names those that begin alike: one in sixteen of the host's own
    for size in (10, 200 if change == "endpoint here" else 1000):
        pipeline = crowd.__wrapped__(size)
        *before, last = CHANGES[change]
        for step in before:
            change_of(pipeline, step)()
        counts.append(instructions_of(change_of(pipeline, last)))
    assert counts[1] <= counts[0] * (1.8 if change == "endpoint here" else 1.01)


COLLEAGUE = workload("fffff", "10.200.0.1/32", profiles=["net"])
CHOSEN = workload("fffff", "10.200.0.1/32", profiles=["net"], labels={"chosen": "yes"})


@pytest.mark.parametrize("count", [10, 2000])
def test_an_endpoint_that_asks_what_others_ask_costs_no_shared_chain(count: int) -> None:
    pipeline = company(count)
    assert cost_of(pipeline, COLLEAGUE)[0] <= 6  # its two chains, and in both directions the root and one child
    rendered, _ = cost_of(pipeline, CHOSEN)
    assert rendered == 2 + 2 + 4  # its chains, those it shares with nobody, and the policy in both families
    assert cost_of(pipeline, COLLEAGUE)[0] == 2
    cost_of(pipeline, (COLLEAGUE[0], None))


def test_a_policy_that_begins_to_pick_one_endpoint_costs_the_same_with_little_and_with_much_there() -> None:
    counts = []
    for size in (10, 1000):
        pipeline = company.__wrapped__(size)
        change_of(pipeline, COLLEAGUE)()
        there = instructions_of(change_of(pipeline, CHOSEN))
        counts.append((there, instructions_of(change_of(pipeline, COLLEAGUE))))
    assert counts[1][0] <= counts[0][0] * 1.01
    assert counts[1][1] <= counts[0][1] * 1.01


NEW_ELSEWHERE = workload("fffff", "10.200.0.1/32", node=ELSEWHERE, profiles=["net"], labels={"app": "app5"})


@pytest.fixture(params=[10, 5000])
def crowded(request: pytest.FixtureRequest) -> Pipeline:
    count: int = request.param
    return crowd(count)


def test_one_endpoint_costs_what_one_endpoint_needs(crowded: Pipeline) -> None:
    rendered, tried = cost_of(crowded, NEW)
    assert rendered <= 6  # its two chains, and in both directions the dispatch root and one child
    assert tried <= 6
    assert cost_of(crowded, (NEW[0], None))[0] <= 4


def test_one_endpoint_elsewhere_renders_nothing(crowded: Pipeline) -> None:
    crowded.update(*NEW_ELSEWHERE)
    before = crowded.rendered
    update = crowded.flush()
    assert crowded.rendered == before
    assert not update.chains
    assert not any(isinstance(change, IPSet) for change in update.sets.values())
    crowded.update(NEW_ELSEWHERE[0], None)
    crowded.flush()


def test_one_policy_changed_renders_its_own_chains(crowded: Pipeline) -> None:
    changed = policy("p3", "app == 'app3'", [ALLOW])
    rendered, _ = cost_of(crowded, changed)
    assert rendered == 2  # one for each family
    original = policy("p3", "app == 'app3'", [rule("Allow", "TCP", source=EntityRule(selector="app == 'app4'"))])
    assert cost_of(crowded, original)[0] == 2


def test_records_that_say_the_same_cost_nothing(crowded: Pipeline) -> None:
    crowded.update(*network_profile("net"))
    crowded.update(*policy("p4", "app == 'app4'", [rule("Allow", "TCP", source=EntityRule(selector="app == 'app5'"))]))
    before = crowded.rendered
    update = crowded.flush()
    assert crowded.rendered == before
    assert (update.sets, update.chains, update.kernel_chains, update.interfaces) == ({}, {}, {}, {})


UPLINK = host_endpoint("uplink", "", "192.0.2.1", labels={"app": "app5"})


def test_a_host_endpoint_costs_its_own_chains_and_addresses_cost_nothing_else(crowded: Pipeline) -> None:
    rendered, tried = cost_of(crowded, UPLINK, interface("eth0", "192.0.2.1"))
    # its five chains (normal, forward, after NAT), failsafe ports (three tables' worth, two families), the dispatch
    # roots of it, and the one policy that picks it, in the mangle table, too
    assert rendered <= 5 + 6 + 7 + 4
    assert tried <= 6
    assert cost_of(crowded, interface("eth7", "198.51.100.1")) == (0, 0)
    assert cost_of(crowded, interface("eth0", "192.0.2.1", "192.0.2.2")) == (0, 0)
    assert cost_of(crowded, NEW)[0] <= 6, "an endpoint costs no more beside one"
    cost_of(crowded, (NEW[0], None))
    gone, _ = cost_of(crowded, (UPLINK[0], None), (IfName("eth0"), None), (IfName("eth7"), None))
    assert gone <= 7


def test_an_entry_of_a_network_set_is_one_member_and_renders_nothing(crowded: Pipeline) -> None:
    labels = {"app": "app5"}
    many = [f"172.16.{n >> 8}.{n & 255}" for n in range(3000)]
    crowded.update(*network_set("s", *many, labels=labels))
    crowded.flush()
    rendered, evaluations = crowded.rendered, crowded.evaluations
    crowded.update(*network_set("s", *many, "203.0.113.0/24", labels=labels))
    update = crowded.flush()
    assert (crowded.rendered, crowded.evaluations) == (rendered, evaluations)
    [change] = update.sets.values()
    assert change == SetChange(frozenset({"203.0.113.0/24"}), frozenset())
    crowded.update(network_set("s")[0], None)
    crowded.flush()
