"""What a rule matches, in words."""

import pytest

from felix.calc.rules import read_rule
from felix.calc.words import matches
from resources.kinds.rule import ICMP, EntityRule, Rule


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(action="Deny"), "anything"),
        (Rule(action="Allow", protocol="TCP", source=EntityRule(selector="role == 'web'"),
              destination=EntityRule(ports=[80, "90:95"])), 'tcp from role == "web" to ports 80,90:95'),
        (Rule(action="Allow", protocol=47), "protocol 47"),
        (Rule(action="Allow", not_protocol="UDP"), "not udp"),
        (Rule(action="Allow", protocol="ICMP", icmp=ICMP(type=3, code=4)), "icmp type 3 code 4"),
        (Rule(action="Allow", protocol="ICMPv6", not_icmp=ICMP(type=128)), "icmpv6 not type 128"),
        (Rule(action="Allow", ip_version=4), "IPv4"),
        (Rule(action="Deny", source=EntityRule(nets=["10.0.0.0/8", "192.0.2.1/32"], not_nets=["10.9.0.0/16"])),
         "from 10.0.0.0/8,192.0.2.1/32 not 10.9.0.0/16"),
        (Rule(action="Deny", source=EntityRule(not_selector="has(a)")), "from not (has(a))"),
        (Rule(action="Deny", protocol="TCP", destination=EntityRule(not_ports=[22])), "tcp to not port 22"),
        (Rule(action="Allow", protocol="TCP", destination=EntityRule(ports=["http"])), "tcp to port http"),
        (Rule(action="Allow", protocol="TCP", destination=EntityRule(selector="has(a)", ports=["http", 80])),
         "tcp to has(a) ports 80,http"),
        (Rule(action="Allow", protocol="TCP", destination=EntityRule(selector="has(a)", ports=["http"])),
         "tcp to has(a) port http"),
        (Rule(action="Deny", source=EntityRule(nets=["10.0.0.0/8"]), destination=EntityRule(nets=["fd00::/8"])),
         "nothing: no packet can be all of it"),
    ],
)  # fmt: skip
def test_words(rule: Rule, words: str) -> None:
    assert matches(read_rule(rule)) == words
