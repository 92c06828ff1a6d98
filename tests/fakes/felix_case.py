"""The representative case of reference felix.md 3.11: one host, one endpoint, one profile, one policy."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fakes.felix_records import host, network_profile, policy, pool, rule, settings, workload
from felix.pipeline import Pipeline
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule
from resources.names import NodeName

SAVED = Path(__file__).parents[1] / "fixtures" / "felix-case.save"
"""What iptables-save prints when the case is loaded, chain declarations left out; legacy and nft print the same."""
OURS_ALONE = {
    ("mangle", "FORWARD"): 1,
    ("mangle", "cali-FORWARD"): 3,
    ("mangle", "OUTPUT"): 1,
    ("mangle", "POSTROUTING"): 1,
    ("mangle", "cali-not-asked"): 1,
    ("filter", "cali-FORWARD"): 1,
}
"""How many rules the original has not, all at the end of their chains: new flows that escaped policy are dropped."""
EMPTY_CHAINS = {
    "raw": {"cali-rpf-skip", "cali-from-host-endpoint", "cali-to-host-endpoint"},
    "mangle": {"cali-from-host-endpoint", "cali-to-host-endpoint"},
    "nat": {"cali-fip-dnat", "cali-fip-snat"},
    "filter": {
        "cali-from-host-endpoint", "cali-to-host-endpoint", "cali-from-hep-forward", "cali-to-hep-forward",
        "cali-cidr-block",
    },
}  # fmt: skip


def records() -> list[tuple[ResourceKey, Resource]]:
    web = rule(
        "Allow", "TCP", source=EntityRule(selector='role == "web"'), destination=EntityRule(ports=[6379])
    )
    return [
        pool("17.16.10.0/24", nat=True, ipip="Always"),
        host("node1", "172.16.60.215/24", tunnel="17.16.10.129"),
        host("node2", "172.16.60.216/24"),
        host("node3", "172.16.60.217/24"),
        settings(FelixConfigurationSpec(default_endpoint_to_host_action="Return"), name="node.node1"),
        network_profile("calico-net1"),
        policy("redis-in", "has(calico-net1)", [web, rule("Pass", "ICMP")], types=["Ingress"]),
        workload("61dbcdeb9d0", "17.16.10.128/32", profiles=["calico-net1"]),
        workload("71dbcdeb9d0", "17.16.10.64/32", node="node2", profiles=["calico-net1"], labels={"role": "web"}),
    ]


def pipeline() -> Pipeline:
    """The case, flushed."""
    made = Pipeline(NodeName("node1"))
    for key, value in records():
        made.update(key, value)
    made.flush()
    return made


def of_the_original(rules: Mapping[tuple[str, str], list[str]]) -> dict[tuple[str, str], list[str]]:
    """Return rules, by table and chain, without those that the original has not."""
    kept = {place: made[: len(made) - OURS_ALONE.get(place, 0)] for place, made in rules.items()}
    return {place: made for place, made in kept.items() if made}


def tags_by_chain(lines: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """Read the hashes of our rules out of a save, by table and chain."""
    tags: dict[tuple[str, str], list[str]] = {}
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:].strip()
        elif found := re.match(r'-A (\S+) .*?"cali:([^"]{16})"', line):
            tags.setdefault((table, found[1]), []).append(found[2])
    return tags
