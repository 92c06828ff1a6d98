"""One random cluster after the other, packets at each, and what the kernel did beside what the verdict says."""

import functools
import ipaddress
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agreement.field import HOST_ADDRESSES, PUBLISHED, UPLINK, Arrival, Field, on_one_processor, settled
from agreement.frames import built, expected, state_of, tag
from fakes.felix_records import HERE
from fakes.random_world import ADDRESSES, OUTSIDE, Dice, Records, Shape
from fakes.shrinking import shrunk, told
from felix.calc.answers import Outcome, Way
from felix.calc.match import Packet, State
from felix.calc.model import IcmpType
from felix.calc.reach import Cluster, Place, Site, Verdict, Where
from felix.calc.verdict import HostView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, IPAddress, NodeName

CHAINS = {Way.FORWARDED: "FORWARD", Way.TO_HOST: "INPUT", Way.FROM_HOST: "OUTPUT"}
WITH_PORTS = (6, 17, 132)
USUAL = Shape()
SHRINKING_TRIES = 200


@dataclass(frozen=True, slots=True)
class Shot:
    """A packet and where it is really sent from."""

    packet: Packet
    origin: Place


@dataclass(frozen=True, slots=True)
class Disagreement:
    """`is_answer`: it is about the answer to the shot, and so is the verdict."""

    shot: Shot
    verdict: Verdict
    passed: bool
    where: tuple[Arrival, ...]
    is_answer: bool = False

    def __str__(self) -> str:
        lines = [f"{'the answer to ' if self.is_answer else ''}{self.shot.packet} from {self.shot.origin}"]
        lines.append(f"the kernel: {'passed' if self.passed else 'dropped'} {self.where or ''}")
        lines.append(f"the verdict: {self.verdict.outcome.value}")
        for host in self.verdict.hosts:
            lines.append(f"  {host.node} {host.way.value}: {host.outcome.value}, {host.answers}")
        return "\n".join(lines)


@dataclass
class Tally:
    """What came of a run."""

    worlds: int = 0
    packets: int = 0
    allowed: int = 0
    by_protocol: dict[int, int] = field(default_factory=dict)
    by_reason: dict[str, int] = field(default_factory=dict)


class Range:
    """A field with a world on it."""

    def __init__(self, ground: Field) -> None:
        self.ground = ground
        self.records: Records = {}
        self.before: Records = {}
        self.policies: dict[str, str] = {}
        self.patience_seconds = 3.0
        """So long a packet that should pass is waited for."""
        self.answers = 0
        """How many packets were sent back so far."""
        self._next_tag = 0

    def put(self, records: Mapping[ResourceKey, Resource]) -> None:
        """Make the store's records these, by the difference, in any order."""
        changes: list[tuple[ResourceKey, Resource | None]] = [
            (key, None) for key in self.records if key not in records
        ]
        changes += [(key, value) for key, value in records.items() if self.records.get(key) != value]
        random.Random(len(changes)).shuffle(changes)
        self.ground.take(changes)
        self.before, self.records = self.records, dict(records)

    def set_policies(self, policies: Mapping[str, str]) -> None:
        """Set the policies of the kernel's chains on every host."""
        if policies != self.policies:
            for machine in self.ground.machines.values():
                machine.set_policy(self.ground.variant, policies)
            self.policies = dict(policies)

    def cluster(self) -> Cluster:
        return Cluster(
            Site(
                view=HostView(NodeName(node), machine.pipeline.whole(), machine.pipeline.parameters),
                addresses=HOST_ADDRESSES[node],
                uplink=UPLINK,
            )
            for node, machine in self.ground.machines.items()
        )

    def fire(self, given: Sequence[Shot]) -> tuple[list[Disagreement], list[tuple[Shot, Verdict]]]:
        """Send all; return where kernel and verdict differ, and all verdicts.

        In one volley no packet can be of another's flow.
        """
        cluster = self.cluster()
        asked = [(shot, cluster.ask(shot.packet, shot.origin)) for shot in given]
        asked = [(shot, verdict) for shot, verdict in asked if _is_answerable(verdict, shot)]
        found: list[Disagreement] = []
        left = asked
        while left:
            flows: set[object] = set()
            volley: list[tuple[Shot, Verdict]] = []
            later: list[tuple[Shot, Verdict]] = []
            for shot, verdict in left:
                mine = {_flow(shot.packet), _flow(verdict.packet)}
                (later if mine & flows else volley).append((shot, verdict))
                flows |= mine
            found += self._volley(volley)
            found += self._answers(cluster, volley)
            left = later
        return found, asked

    def _answers(self, cluster: Cluster, shots: Sequence[tuple[Shot, Verdict]]) -> list[Disagreement]:
        """Answer what arrived in workloads and outside (the hosts answer by themselves)."""
        answers, answered = [], []
        for shot, verdict in shots:
            is_simple = shot.packet == verdict.packet and shot.packet.protocol in (6, 17)
            is_tracked = not any(host.is_untracked for host in verdict.hosts) and shot.packet.state is State.NEW
            if is_simple and is_tracked and self.passes(verdict) and verdict.destination.where is not Where.HOST:
                back = cluster.place_of(shot.packet.source)
                if back == shot.origin:
                    answer = Shot(_answer(shot.packet), verdict.destination)
                    answers.append((answer, cluster.ask(answer.packet, answer.origin)))
                    answered.append(shot)
        self.answers += len(answers)
        found = self._volley(answers, fresh=False) if answers else []
        shot_of = {id(answer): shot for (answer, _), shot in zip(answers, answered, strict=True)}
        return [replace(one, shot=shot_of[id(one.shot)], is_answer=True) for one in found]

    def _volley(self, shots: Sequence[tuple[Shot, Verdict]], *, fresh: bool = True) -> list[Disagreement]:
        if fresh:
            self.ground.forget_flows()
        tags = []
        wanted = set()
        with on_one_processor():
            for _, verdict in shots:
                self._next_tag += 1
                mark = tag(self._next_tag)
                tags.append(mark)
                if self.passes(verdict):
                    wanted.add(mark)
            for mark, (shot, _) in zip(tags, shots, strict=True):
                self.ground.send(built(shot.packet, mark), shot.origin.node, shot.origin.interface)
            arrived = settled(self.ground, wanted, patience_seconds=self.patience_seconds)
        found = []
        for mark, (shot, verdict) in zip(tags, shots, strict=True):
            head = expected(verdict.packet)
            there = tuple(arrival for arrival in arrived.get(mark, ()) if arrival.seen == head)
            if [self._is_at(arrival, verdict.destination) for arrival in there] != [True] * self.passes(verdict):
                found.append(Disagreement(shot, verdict, bool(there), there))
        return found

    def passes(self, verdict: Verdict) -> bool:
        """Tell whether the packet should pass; what is left to the hosts' own rules is up to the chains' policies."""
        return all(
            host.outcome is Outcome.ALLOWED
            or (host.outcome is Outcome.LEFT and self.policies[CHAINS[host.way]] == "ACCEPT")
            for host in verdict.hosts
        )

    @staticmethod
    def _is_at(arrival: Arrival, place: Place) -> bool:
        if place.where is Where.OUTSIDE:
            return arrival.node == ""
        return (arrival.node, arrival.interface) == (place.node, place.interface or "")


def _answer(packet: Packet) -> Packet:
    return replace(
        packet, source=packet.destination, destination=packet.source, source_port=packet.destination_port,
        destination_port=packet.source_port, state=State.ESTABLISHED,
    )  # fmt: skip


def _is_answerable(verdict: Verdict, shot: Shot) -> bool:
    """Tell whether the packet goes where NAT would send it: not if policy keeps it from being tracked."""
    return shot.packet.sent_to is None or not any(host.is_untracked for host in verdict.hosts)


def _flow(packet: Packet) -> object:
    """Return what connection tracking goes by, whichever end begins."""
    packet = packet.translated
    ends = [(packet.source, packet.source_port), (packet.destination, packet.destination_port)]
    if packet.protocol in WITH_PORTS:
        return packet.protocol, frozenset(ends)
    return packet.protocol, frozenset(address for address, _ in ends)


class Gunner:
    """Draws worlds and shots from one seed."""

    def __init__(self, seed: int, nodes: Sequence[str], *, shape: Shape = USUAL) -> None:
        self.dice = Dice(random.Random(seed), shape)
        self.nodes = nodes

    def policies(self) -> dict[str, str]:
        """Draw the policies of the kernel's chains. Of FORWARD mostly DROP, as Docker has it."""
        one = self.dice.one
        return {
            "INPUT": one(["ACCEPT", "DROP"]), "FORWARD": one(["DROP", "DROP", "ACCEPT"]), "OUTPUT": "ACCEPT",
        }  # fmt: skip

    def shot(self, cluster: Cluster) -> Shot:
        dice = self.dice
        version = dice.one([4, 4, 6])
        inside = {
            ipaddress.ip_address(pair[version == 6]): node for node, places in ADDRESSES.items() for pair in places
        }
        hosts = {
            address: node for node in self.nodes for address in HOST_ADDRESSES[node] if address.version == version
        }
        outside = [ipaddress.ip_address(address) for address in OUTSIDE[version]]
        source, destination = dice.some([*inside, *inside, *hosts, *hosts, *outside], 2, 2)
        if source == destination or (source in hosts and destination in hosts):
            return self.shot(cluster)
        origin, target = self._origin(cluster, source, inside, hosts), cluster.place_of(destination)
        is_nowhere = target.where is Where.OUTSIDE and inside.get(destination) in self.nodes
        if origin is None or origin == target or is_nowhere:
            return self.shot(cluster)
        protocol, source_port, destination_port, icmp = dice.transport(version)
        packet = Packet(
            source=source,
            destination=destination,
            protocol=protocol,
            source_port=source_port,
            destination_port=destination_port,
            icmp=IcmpType(*icmp) if icmp else None,
            state=State.INVALID if protocol == 6 and dice.chance(12) else State.NEW,
        )
        packet = replace(packet, state=state_of(packet))
        if destination in HOST_ADDRESSES[HERE] and origin.node in (None, HERE) and dice.chance(2):
            packet = self._to_published(cluster, packet, origin)
        return Shot(packet, origin)

    def _to_published(self, cluster: Cluster, packet: Packet, origin: Place) -> Packet:
        """Draw a port that the host sends on to a workload, if there is one for the packet's protocol."""
        ports = [
            (port, sent_to)
            for (version, protocol, port), sent_to in PUBLISHED.items()
            if (version, protocol) == (packet.version, packet.protocol)
            and cluster.place_of(sent_to[0]).where is Where.WORKLOAD
            and cluster.place_of(sent_to[0]) != origin
        ]
        if not ports:
            return packet
        port, sent_to = self.dice.one(ports)
        return replace(packet, destination_port=port, sent_to=sent_to)

    def _origin(
        self, cluster: Cluster, source: IPAddress, inside: Mapping[IPAddress, str], hosts: Mapping[IPAddress, str]
    ) -> Place | None:
        """Draw where a packet is sent from: mostly where its source is; None where that cannot be."""
        if inside.get(source, self.nodes[0]) in self.nodes and source not in hosts and self.dice.chance(10):
            node = self.dice.one(self.nodes)
            interface = self.dice.one([f"cali{'h' if node == self.nodes[0] else 'e'}{n}" for n in range(2)])
            return Place(where=Where.WORKLOAD, node=NodeName(node), interface=IfName(interface))
        place = cluster.place_of(source)
        if place.where is Where.OUTSIDE and inside.get(source) in self.nodes:
            return None  # a workload that is not there
        return place


def disagreement_of(ground: Range, records: Mapping[ResourceKey, Resource], shot: Shot) -> Disagreement | None:
    """Try one packet in a world; None if kernel and verdict agree, twice if they seem not to.

    None too where an end of it is not there any more: it would not be the same question.
    """
    before = ground.cluster()
    ground.put(records)
    now = ground.cluster()
    for address in (shot.packet.source, shot.packet.translated.destination):
        if before.place_of(address) != now.place_of(address):
            ground.put(ground.before)
            return None
    for _ in range(2):
        found, _ = ground.fire([shot])
        if not found:
            return None
    return found[0]


def _is_wrong(ground: Range, shot: Shot, records: Mapping[ResourceKey, Resource]) -> bool:
    return disagreement_of(ground, records, shot) is not None


def run(
    ground: Range,
    seed: int,
    *,
    packets: int,
    tally: Tally,
    shape: Shape = USUAL,
    shrinking_tries: int = SHRINKING_TRIES,
) -> None:
    """Draw a world, send packets and compare.

    Raises:
        AssertionError: they differ; with the smallest world and one packet that show it.
    """
    gunner = Gunner(seed, ground.ground.nodes, shape=shape)
    records = gunner.dice.world()
    ground.put(records)
    ground.set_policies(gunner.policies())
    cluster = ground.cluster()
    shots = [gunner.shot(cluster) for _ in range(packets)]
    found, asked = ground.fire(shots)
    tally.worlds += 1
    for shot, verdict in asked:
        tally.packets += 1
        tally.allowed += ground.passes(verdict)
        tally.by_protocol[shot.packet.protocol] = tally.by_protocol.get(shot.packet.protocol, 0) + 1
        for answer in (answer for host in verdict.hosts for answer in host.answers):
            reason = f"{answer.hook.value}: {answer.reason.value}"
            tally.by_reason[reason] = tally.by_reason.get(reason, 0) + 1
    for one in found:
        again = disagreement_of(ground, records, one.shot)
        if again is None:
            raise AssertionError(f"seed {seed}: only once, in company: {one}")
        ground.patience_seconds = 0.2  # most packets that do not come now never will
        small = shrunk(records, functools.partial(_is_wrong, ground, one.shot), tries=shrinking_tries)
        ground.patience_seconds = 3.0
        raise AssertionError(f"seed {seed}: {disagreement_of(ground, small, one.shot) or again}\n{told(small)}")


