"""Random policies, profiles and endpoints: three readers of the same records agree on every packet.

The first walks the rendered rule text, the second asks the calculation's conclusions, the third reads the records
themselves; they share nothing but the selector language.
"""

import ipaddress
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakes.felix_records import HERE
from fakes.host_model import HostModel
from fakes.packets import Packet, machines
from fakes.policy_model import World
from fakes.random_world import HOSTS, NUMBERS, Dice, Records
from fakes.shrinking import shrunk, told
from felix.calc import match
from felix.calc.answers import Outcome
from felix.calc.model import IcmpType
from felix.calc.parameters import Parameters
from felix.calc.verdict import HostView
from felix.pipeline import Pipeline
from resources.names import IfName, NodeName

DROP_BIT = Parameters().marks.drop
"""Not among the bits that are cleared when a packet enters: somebody who sets this one asks for a drop, and gets it."""
STATES = {
    "NEW": match.State.NEW,
    "ESTABLISHED": match.State.ESTABLISHED,
    "INVALID": match.State.INVALID,
    "UNTRACKED": match.State.UNTRACKED,
}


WAYS = ("forward", "to_host", "from_host")


@dataclass
class Host:
    """The first host of a world, by three readers. None: policy leaves the packet to the host's own rules."""

    records: Records

    def __post_init__(self) -> None:
        pipeline = Pipeline(NodeName(HERE))
        for key, value in self.records.items():
            pipeline.update(key, value)
        pipeline.set_interface(IfName("eth0"), frozenset(map(ipaddress.ip_address, HOSTS[HERE])))
        pipeline.flush()
        self.machines = machines(pipeline.desired())
        self.model = HostModel(World(self.records), HERE, {"eth0": HOSTS[HERE]})
        self.view = HostView(NodeName(HERE), pipeline.whole(), pipeline.parameters)

    def by_rules(self, packet: Packet, way: str) -> bool | None:
        """Let the packet through the rules with either policy of the kernel's chain."""
        ask = getattr(self.machines[packet.version], way)
        by_policy = {policy: ask(packet, policy=policy) for policy in ("ACCEPT", "DROP")}
        assert not (by_policy["DROP"] and not by_policy["ACCEPT"])
        return bool(by_policy["DROP"]) if by_policy["ACCEPT"] == by_policy["DROP"] else None

    def meant(self, packet: Packet, way: str) -> bool | None:
        said: bool | None = getattr(self.model, way)(packet)
        return said

    def answered(self, packet: Packet, way: str) -> bool | None:
        asked, came, goes = as_asked(packet), IfName(packet.in_interface), IfName(packet.out_interface)
        match way:
            case "forward":
                verdict = self.view.forward(asked, came, goes, spoofed=packet.spoofed)
            case "to_host":
                verdict = self.view.to_host(asked, came, spoofed=packet.spoofed)
            case _:
                verdict = self.view.from_host(asked, goes)
        return {Outcome.ALLOWED: True, Outcome.DENIED: False, Outcome.LEFT: None}[verdict.outcome]

    def disagreement(self, packet: Packet, way: str) -> str:
        """Return how the readers differ; nothing if they agree."""
        by_rules, meant, answered = self.by_rules(packet, way), self.meant(packet, way), self.answered(packet, way)
        if by_rules is meant is answered:
            return ""
        return f"{way}: rules {by_rules}, records {meant}, verdict {answered}: {packet}"


def as_asked(packet: Packet) -> match.Packet:
    """Return the packet as the calculation is asked about it."""
    is_icmp = packet.protocol == match.ICMP_NUMBER[packet.version]
    return match.Packet(
        source=ipaddress.ip_address(packet.source),
        destination=ipaddress.ip_address(packet.destination),
        protocol=packet.protocol,
        source_port=packet.source_port,
        destination_port=packet.destination_port,
        icmp=IcmpType(*packet.icmp) if is_icmp else None,
        state=STATES[packet.state],
        sent_to=None if packet.sent_to is None else (ipaddress.ip_address(packet.sent_to[0]), packet.sent_to[1]),
    )


def draw_packet(dice: Dice) -> tuple[Packet, str]:
    """Draw a packet and the way that it takes."""
    version = dice.one([4, 4, 6])
    source, destination = dice.addresses(version)
    protocol, source_port, destination_port, icmp = dice.transport(version)
    interfaces = ["calih0", "calih1", "calih2", "eth0", "eth0", "eth1"]
    way = dice.one(["forward", "forward", "forward", "to_host", "from_host"])
    packet = Packet(
        source=source,
        destination=destination,
        protocol=protocol,
        source_port=source_port,
        destination_port=destination_port,
        icmp=icmp or (8, 0),
        in_interface="" if way == "from_host" else dice.one(interfaces),
        out_interface="" if way == "to_host" else dice.one(interfaces),
        state=dice.one(["NEW"] * 12 + ["ESTABLISHED", "INVALID", "UNTRACKED"]),
        spoofed=dice.chance(20),
        sent_to=(dice.addresses(version)[1], dice.one(NUMBERS)) if protocol in (6, 17) and dice.chance(6) else None,
        mark=dice.one([0, 0xFFFFFFFF & ~DROP_BIT]),
    )
    return packet, way


@settings(max_examples=150, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(st.integers(0, 2**48))
def test_rules_and_verdicts_decide_as_the_records_mean(seed: int) -> None:
    dice = Dice(Random(seed))
    records = dice.world()
    host = Host(records)
    for machine in host.machines.values():
        machine.check_all()
    for _ in range(30):
        packet, way = draw_packet(dice)
        if host.disagreement(packet, way):
            small = shrunk(records, lambda less: bool(Host(less).disagreement(packet, way)))  # noqa: B023  (called here)
            pytest.fail(f"seed {seed}: {Host(small).disagreement(packet, way)}\n{told(small)}")
