"""Rules as users might write them, right and wrong, with every field of the language."""

import json
from random import Random
from typing import Any

from resources.documents import InvalidFile, load
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.rule import Rule

PROTOCOLS = (
    "TCP", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "UDPLite", "GRE", "esp", "ah", "OSPF", 1, 2, 4, 6, 17, 47, 58, 132,
    136, 255, "47", 0, "tcp", "foo",
)  # fmt: skip
NETS = {
    4: ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "0.0.0.0/0", "10.0.0.1/8", "10.0.0.1"),
    6: ("fd00::/8", "2001:db8::/32", "2001:db8::5/128", "::/0", "fd00::1/8"),
}
SELECTORS = (
    "all()", "has(a)", "a == 'x' && !(b in {'y', \"z\"})", "a contains 'x' || !has(c)", "a not in {}", "a = 'x'",
)  # fmt: skip
NAMESPACES = ("all()", "global()", "has(team)", "!has(team)", "global() && has(x)")
PORTS = (1, 53, 80, "8080:8090", 65535, "1:65535", "http", "http-alt", "0x50", 0, "90:80", 70000)


def accepted_rule(random: Random) -> Rule:
    """Return a rule that calicoctl takes, as it is stored."""
    while True:
        document = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "p"},
            "spec": {"ingress": [rule_document(random)]},
        }
        try:
            (read,) = load(json.dumps(document).encode(), "f").documents
        except InvalidFile:
            continue
        assert isinstance(read.resource, GlobalNetworkPolicy)
        return read.resource.spec.ingress[0]


def rule_document(random: Random) -> dict[str, Any]:
    """Return a rule as JSON; about half of them are right."""
    rule: dict[str, Any] = {"action": random.choice(("Allow", "Deny", "Pass", "Log", "Allow", "Deny"))}
    family = random.choice((4, 6))
    if _chance(random, 7):
        rule["protocol"] = random.choice(PROTOCOLS)
    if _chance(random, 1):
        rule["notProtocol"] = random.choice(PROTOCOLS)
    if _chance(random, 1):
        rule["ipVersion"] = random.choice((4, 6, family, 5))
    for field in ("icmp", "notICMP"):
        if _chance(random, 2 if rule.get("protocol") in ("ICMP", "ICMPv6", 1, 58) else 0.5):
            rule[field] = {"type": random.choice((0, 3, 8, 128, 254, 255))}
            if _chance(random, 5):
                rule[field]["code"] = random.choice((0, 4, 255, 256))
    for side in ("source", "destination"):
        if _chance(random, 6):
            rule[side] = _side(random, family)
    if _chance(random, 0.3):
        rule["http"] = {"methods": ["GET"]}
    if _chance(random, 1):
        rule["metadata"] = {"annotations": {"why": "because: \"it's\" so"}}
    return rule


def _chance(random: Random, tenths: float) -> bool:
    return random.random() * 10 < tenths


def _side(random: Random, family: int) -> dict[str, Any]:
    side: dict[str, Any] = {}
    many = {"nets": NETS[family], "notNets": NETS[family], "ports": PORTS, "notPorts": PORTS}
    for field, values in many.items():
        if _chance(random, 2):
            side[field] = [random.choice(values) for _ in range(random.choice((1, 1, 2, 17)))]
    one = {"selector": SELECTORS, "notSelector": SELECTORS, "namespaceSelector": NAMESPACES}
    for field, texts in one.items():
        if _chance(random, 1.5):
            side[field] = random.choice(texts)
    if _chance(random, 0.3):
        side["services"] = {"name": "db", "namespace": "x"}
    if _chance(random, 0.3):
        side["serviceAccounts"] = random.choice(({"names": ["a"]}, {"selector": "has(x)"}, {}))
    return side
