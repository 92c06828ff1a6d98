"""Whatever cannot be understood opens nothing: random worlds, whole and with something spoilt, asked about packets."""

import ipaddress
from collections.abc import Callable, Sequence
from random import Random

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fakes.felix_records import HERE
from fakes.felix_records import settings as configuration
from fakes.random_world import HOSTS, NUMBERS, Dice, Records
from fakes.shrinking import shrunk, told
from felix.calc.answers import HostVerdict, Outcome
from felix.calc.graph import Graph
from felix.calc.match import Packet, State
from felix.calc.model import IcmpType
from felix.calc.verdict import HostView
from resources.kinds.felixconfiguration import FelixConfiguration, FelixConfigurationSpec
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.globalnetworkset import GlobalNetworkSet
from resources.kinds.hostendpoint import HostEndpoint
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.networkset import NetworkSet
from resources.kinds.profile import Profile
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.tier import Tier
from resources.names import IfName, NodeName

OPENNESS = {Outcome.DENIED: 0, Outcome.LEFT: 1, Outcome.ALLOWED: 2}
SPOILT: Sequence[Callable[[Rule], Rule]] = [
    lambda rule: msgspec.structs.replace(rule, destination=EntityRule(selector="broken ((")),
    lambda rule: msgspec.structs.replace(rule, source=EntityRule(not_selector="&&")),
    lambda rule: msgspec.structs.replace(rule, protocol="NONSENSE"),
    lambda rule: msgspec.structs.replace(rule, protocol=None, source=EntityRule(ports=[80])),
    lambda rule: msgspec.structs.replace(rule, protocol="TCP", destination=EntityRule(ports=["90:80"])),
    lambda rule: msgspec.structs.replace(rule, source=EntityRule(nets=["10.0.0.0/33"])),
]


class Spoiler(Dice):
    """Draws a world and spoils things in it."""

    def rules(self) -> list[Rule]:
        """Draw rules with which much is allowed, so that there is something to close."""
        return [*super().rules(), *([Rule(action="Allow")] if self.chance(2) else [])]

    def spoilt(self, records: Records) -> Records:
        """Return the records with things in them that cannot be understood, or that are missing."""
        changed = dict(records)
        if self.chance(4):
            found = records.get(configuration(FelixConfigurationSpec())[0])
            given = found.spec if isinstance(found, FelixConfiguration) else FelixConfigurationSpec()
            limited = msgspec.structs.replace(given, max_ipset_size=self.one([1, 2]))
            changed |= dict([configuration(limited)])
        for key, value in sorted(records.items()):
            match value:
                case Tier() if self.chance(4):
                    del changed[key]
                case GlobalNetworkSet() | NetworkSet() if self.chance(2):
                    nets = [self.one([net, "nonsense", "10.0.0.0/33", ""]) for net in value.spec.nets]
                    changed[key] = msgspec.structs.replace(value, spec=msgspec.structs.replace(value.spec, nets=nets))
                case HostEndpoint() if self.chance(2):
                    # not the addresses: they may be what tells the interface
                    ports = [self.one([port, msgspec.structs.replace(port, port=0)]) for port in value.spec.ports]
                    changed[key] = msgspec.structs.replace(value, spec=msgspec.structs.replace(value.spec, ports=ports))
                case GlobalNetworkPolicy() | NetworkPolicy() | Profile() if self.chance(2):
                    spec = msgspec.structs.replace(
                        value.spec, ingress=self._spoilt(value.spec.ingress), egress=self._spoilt(value.spec.egress)
                    )
                    changed[key] = msgspec.structs.replace(value, spec=spec)
        return changed

    def _spoilt(self, rules: Sequence[Rule]) -> list[Rule]:
        return [self.one(SPOILT)(rule) if self.chance(2) else rule for rule in rules]

    def question(self) -> tuple[str, Packet, IfName, IfName]:
        version = self.one([4, 6])
        source, destination = self.addresses(version)
        protocol, source_port, destination_port, icmp = self.transport(version)
        names = ["calih0", "calih1", "calih2", "eth0", "eth0"]
        packet = Packet(
            source=ipaddress.ip_address(source),
            destination=ipaddress.ip_address(destination),
            protocol=protocol,
            source_port=source_port,
            destination_port=self.one(NUMBERS) if destination_port else 0,
            icmp=IcmpType(*icmp) if icmp else None,
            state=self.one([State.NEW, State.NEW, State.NEW, State.INVALID]),
        )
        return self.one(["forward", "to", "from"]), packet, IfName(self.one(names)), IfName(self.one(names))


def view(records: Records) -> HostView:
    graph = Graph(NodeName(HERE))
    for key, value in records.items():
        graph.update(key, value)
    graph.set_interface(IfName("eth0"), frozenset(map(ipaddress.ip_address, HOSTS[HERE])))
    graph.flush()
    return HostView(NodeName(HERE), graph.whole(), graph.parameters)


def answer(host: HostView, question: tuple[str, Packet, IfName, IfName]) -> HostVerdict:
    way, packet, came, goes = question
    if way == "forward":
        return host.forward(packet, came, goes, spoofed=False)
    return host.to_host(packet, came, spoofed=False) if way == "to" else host.from_host(packet, goes)


@settings(max_examples=150, phases=(Phase.explicit, Phase.generate), deadline=None)
@given(st.integers(0, 2**48))
def test_what_is_spoilt_opens_nothing(seed: int) -> None:
    dice = Spoiler(Random(seed))
    whole = dice.world()
    spoilt = dice.spoilt(whole)
    changed = {key for key in whole.keys() | spoilt.keys() if whole.get(key) != spoilt.get(key)}
    before, after = view(whole), view(spoilt)
    for _ in range(40):
        question = dice.question()

        def opens(records: Records) -> bool:
            """Tell whether spoiling the same records opens something in a smaller world."""
            less = {key: value for key, value in records.items() if key not in changed}
            pair = [less | {key: all_[key] for key in changed if key in all_} for all_ in (whole, spoilt)]
            outcomes = [OPENNESS[answer(view(one), question).outcome] for one in pair]  # noqa: B023  (called here)
            return outcomes[1] > outcomes[0]

        if OPENNESS[answer(after, question).outcome] > OPENNESS[answer(before, question).outcome]:
            small = shrunk(whole, opens, tries=1000)
            texts = [told({k: v for k, v in world.items() if k in changed}) for world in (whole, spoilt)]
            pytest.fail(
                f"seed {seed}: {question}\n{told({k: v for k, v in small.items() if k not in changed})}\n"
                f"before: {texts[0]}\n{answer(before, question)}\nafter: {texts[1]}\n{answer(after, question)}"
            )


def test_spoiling_changes_verdicts() -> None:
    """The other test would be idle if what is spoilt made no difference."""
    closed = 0
    for seed in range(60):
        dice = Spoiler(Random(seed))
        whole = dice.world()
        before, after = view(whole), view(dice.spoilt(whole))
        for _ in range(40):
            question = dice.question()
            closed += answer(before, question).outcome is not answer(after, question).outcome
    assert closed > 50
