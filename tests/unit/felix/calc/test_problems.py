"""What is said about a record goes with its cause: cases that random histories found, made small."""

import ipaddress

from fakes.felix_records import HERE, host_endpoint, network_profile, policy, rule, settings, tier, workload
from felix.calc.graph import Graph
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule
from resources.names import IfName, NodeName

ETH0 = IfName("eth0")


def graph(*records: tuple[ResourceKey, Resource]) -> Graph:
    made = Graph(NodeName(HERE))
    for key, value in records:
        made.update(key, value)
    made.flush()
    return made


def test_a_policy_that_becomes_unreadable_is_no_longer_said_to_lack_its_tier() -> None:
    key, value = policy("p", "all()", tier="gone")
    made = graph((key, value))
    assert "tier gone does not exist" in made.whole().problems[key][0]
    made.update(*policy("p", "broken (", tier="gone"))
    (problem,) = made.flush().problems[key]
    assert problem.startswith("it cannot be used")


def test_a_host_endpoint_that_lost_its_interface_lacks_no_profile() -> None:
    key, value = host_endpoint("e", "", "172.16.0.1", profiles=["missing"])
    made = Graph(NodeName(HERE))
    made.update(key, value)
    made.set_interface(ETH0, frozenset({ipaddress.ip_address("172.16.0.1")}))
    made.flush()
    assert made.whole().problems[key] == ("profile missing does not exist: until it does it denies everything",)
    made.set_interface(ETH0, None)
    made.flush()
    assert made.whole().problems[key] == ("it is not in effect: no interface has 172.16.0.1",)


def test_an_endpoint_that_waits_for_its_interface_lacks_no_profile() -> None:
    key, value = workload("b", "10.0.0.2/32", interface="calix", profiles=["missing"])
    made = graph((key, value))
    other = workload("a", "10.0.0.1/32", interface="calix")
    made.update(*other)
    made.flush()
    assert made.whole().problems == {key: (f"it waits: interface calix belongs to {other[0]}",)}


def test_an_endpoint_for_one_interface_is_not_said_to_be_for_all() -> None:
    untracked = policy("u", "has(role)", [rule("Allow")], types=["Ingress"], do_not_track=True)
    labels = {"role": "host"}
    made = graph(untracked, host_endpoint("e", "*", labels=labels))
    key, value = host_endpoint("e", "eth0", labels=labels)
    assert "is doNotTrack and ignored" in made.whole().problems[key][0]
    made.set_interface(ETH0, frozenset())
    made.update(key, value)
    made.flush()
    assert made.whole().problems == {}


def test_a_set_that_stays_too_large_is_told_with_the_limit_of_today() -> None:
    def limit(most: int) -> tuple[ResourceKey, Resource]:
        return settings(FelixConfigurationSpec(max_ipset_size=most))

    web = policy("p", "all()", [rule("Allow", source=EntityRule(selector="all()"))])
    places = [workload(f"w{number}", f"10.0.0.{number}/32", profiles=["net"]) for number in range(1, 5)]
    made = graph(web, network_profile("net"), tier("default", 1_000_000), limit(1), *places)
    assert made.whole().problems[web[0]] == ("selector all() has more than 1 members: rules with it allow nothing",)
    made.update(*limit(2))
    made.flush()
    assert made.whole().problems[web[0]] == ("selector all() has more than 2 members: rules with it allow nothing",)


def test_a_host_endpoint_whose_interface_becomes_one_of_workloads_is_told_so() -> None:
    key, value = host_endpoint("e", "eth0")
    made = graph((key, value))
    made.set_interface(ETH0, frozenset())
    made.flush()
    assert key not in made.whole().problems
    made.update(*settings(FelixConfigurationSpec(interface_prefix="cali,eth")))
    conclusions = made.flush()
    assert conclusions.host_endpoints == {ETH0: None}
    assert conclusions.problems[key] == ("it is not in effect on eth0: that is an interface of a workload",)
