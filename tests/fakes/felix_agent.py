"""A felix in one process, one thread and no time: agent and pipeline on a host of fake kernel parts."""

import ipaddress
import random
from typing import Any

from structlog.testing import capture_logs
from structlog.typing import EventDict

from fakes.clock import ManualClock
from fakes.felix_host import FelixHost
from felix.agent import Agent, FlowsDeleted, Lacking, Message
from felix.calc.parameters import Parameters
from felix.dataplane.driver import Dataplane
from felix.pipeline import Pipeline
from kernel.errors import DataplaneError
from kernel.link import ForwardingEntry, Link, LinkAddress, Neighbour
from kernel.monitor import AddressAdded, AddressGone, LinkChanged, LinkGone, NeighbourChanged, RulesChanged
from resources.codec import encode
from resources.datastore.keys import ResourceKey, resource_key
from resources.datastore.sync import Change, Changes, InSync
from resources.kinds import by_plural
from resources.kinds.base import Metadata, Resource
from resources.kinds.clusterinformation import KIND as CLUSTER_INFORMATION
from resources.kinds.clusterinformation import NAME as CLUSTER_INFORMATION_NAME
from resources.kinds.clusterinformation import ClusterInformation, ClusterInformationSpec
from resources.names import IfName, IPAddress, NodeName
from resources.runtime.backoff import Backoff
from resources.runtime.health import Health
from resources.runtime.options import Source
from resources.typed_sync import TypedReader

NODE = NodeName("node1")
Record = tuple[ResourceKey, Resource | None]


class FelixAgent:
    """What the store and the kernel say goes in by `hear`, `put` and the like; each is one turn of the loop.

    `host` is the kernel and what felix did to it, `clock` is moved by `later`, `log` keeps every event.
    """

    def __init__(self, *, host: FelixHost | None = None, settings: dict[str, str] | None = None) -> None:
        self.can_log = True
        self.clock = host.clock if host else ManualClock()
        self.host = host or FelixHost(clock=self.clock)
        self.health = Health()
        self.log: list[EventDict] = []
        self.ended: list[int] = []
        self.followed: list[Parameters] = []
        self.wait: float | None = None
        self.unheard: list[NeighbourChanged] = []
        self.links_failure: DataplaneError | None = None
        pipeline = Pipeline(NODE, [Source("test", {"Ipv6Support": "false", **(settings or {})})])
        plurals = sorted(pipeline.plurals | {CLUSTER_INFORMATION.plural})
        self._built = 0
        self._revision = 0
        self.agent = Agent(
            pipeline=pipeline,
            reader=TypedReader([by_plural()[plural] for plural in plurals]),
            build=self._build,
            follow=self.followed.append,
            read_links=self._read_links,
            read_addresses=self.host.kernel.links.addresses,
            health=self.health,
            end=self.ended.append,
            monotonic=self.clock.monotonic,
            backoff=Backoff(1.0, 8.0, rng=random.Random(1)),
            lacking=self._lacking,
        )

    def _lacking(self, parameters: Parameters) -> dict[str, Lacking]:
        if self.can_log or not parameters.flow_logs:
            return {}
        return {"FlowLogsEnabled": Lacking("false", "no NFLOG here", "get a kernel")}

    def _build(self, parameters: Parameters) -> Dataplane:
        self._built += 1
        assert self._built == 1, "one process has one dataplane"
        self.host.restart()
        return self.host.dataplane

    def _read_links(self) -> dict[IfName, Link]:
        if self.links_failure is not None:
            raise self.links_failure
        return self.host.kernel.links.links()

    # ---- what felix hears

    def hear(self, *messages: Message) -> None:
        with capture_logs() as captured:
            self.wait = self.agent.handle(messages)
        self.log += captured

    def later(self, seconds: float) -> None:
        """Let time pass, and felix have its turns when it asked for them."""
        until = self.clock.now + seconds
        turns = 0
        while self.wait is not None and self.clock.now + self.wait <= until:
            self.clock.now += self.wait
            self.hear()
            turns += 1
            assert turns <= 1000, "felix turns without end"
        if self.wait is not None:
            self.wait -= until - self.clock.now
        self.clock.now = until

    def begin(self, *records: Record, ready: bool | None = True) -> None:
        """The store is read for the first time."""
        if ready is not None:
            records = (ready_flag(ready), *records)
        self.hear(Changes(tuple(map(self.change, records))), InSync())

    def put(self, *records: Record) -> None:
        self.hear(Changes(tuple(map(self.change, records))))

    def put_raw(self, key: ResourceKey, value: bytes) -> None:
        self._revision += 1
        self.hear(Changes((Change(resource_key(key), value, self._revision),)))

    def remove(self, *keys: ResourceKey) -> None:
        self.put(*((key, None) for key in keys))

    def change(self, record: Record) -> Change:
        """Write a record as the store would tell of it."""
        self._revision += 1
        key, value = record
        encoded = None if value is None else encode(_kind(key), value)
        return Change(resource_key(key), encoded, self._revision)

    # ---- what happens on the host, told as the kernel tells it

    def plug(self, *names: str) -> None:
        links = [self.host.kernel.links.add(IfName(name)) for name in names]
        self.hear(*map(LinkChanged, links))

    def unplug(self, name: str) -> None:
        self.host.kernel.links.remove(IfName(name))
        self.hear(LinkGone(IfName(name)))

    def give_address(self, name: str, *addresses: str) -> None:
        for address in addresses:
            entry = LinkAddress(device=IfName(name), address=ipaddress.ip_interface(address))
            self.host.kernel.links.add_address(entry.device, entry.address)
            self.hear(AddressAdded(entry))

    def take_address(self, name: str, address: str) -> None:
        entry = LinkAddress(device=IfName(name), address=ipaddress.ip_interface(address))
        self.host.kernel.links.remove_address(entry.device, entry.address)
        self.hear(AddressGone(entry))

    def listen_to_neighbours(self) -> None:
        """From now on every entry that is written or goes, by whomever, waits for `hear_neighbours`."""

        def note(device: IfName, entry: Neighbour | ForwardingEntry, gone: bool) -> None:
            self.unheard.append(NeighbourChanged(device, entry, gone))

        self.host.kernel.links.on_neighbour.append(note)

    def hear_neighbours(self) -> int:
        """Tell felix of what waits, and of what comes of that; return how many were told."""
        heard = 0
        while self.unheard:
            events, self.unheard = self.unheard, []
            heard += len(events)
            assert heard <= 1000, "felix answers itself without end"
            self.hear(*events)
        return heard

    def rules_changed(self) -> None:
        self.hear(RulesChanged("somebody"))

    def flows_done(self, failure: DataplaneError | None = None) -> None:
        """The deletions of flows that were asked for are done, or could not be."""
        asked: list[IPAddress] = self.host.to_clean[:]
        self.host.to_clean.clear()
        if asked:
            self.hear(*(FlowsDeleted(address, failure) for address in asked))

    # ---- what can be seen

    def events(self, name: str) -> list[EventDict]:
        return [event for event in self.log if event["event"] == name]

    @property
    def writes(self) -> int:
        """How often anything in the kernel was written."""
        kernel = self.host.kernel
        return (
            len(kernel.sets.log)
            + len(kernel.tables.log)
            + len(kernel.routes.log)
            + len(kernel.sysctls.writes)
            + len(kernel.announcer.heard)
        )


def ready_flag(ready: bool) -> tuple[ResourceKey, ClusterInformation]:
    key = ResourceKey(CLUSTER_INFORMATION.plural, CLUSTER_INFORMATION_NAME)
    spec = ClusterInformationSpec(datastore_ready=ready)
    return key, ClusterInformation(metadata=Metadata(name=CLUSTER_INFORMATION_NAME), spec=spec)


def _kind(key: ResourceKey) -> Any:
    return by_plural()[key.plural]
