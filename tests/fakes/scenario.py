"""Two hosts, two networks, five workloads, seen from the first host (reference felix.md 8).

a0, a1, b1 are on this host, a2, b2 on the other. What reaches whom is asked of the rendered rules.
"""

from dataclasses import replace
from typing import Self

from fakes.felix_records import ELSEWHERE, network_profile, workload
from fakes.packets import Machine, Packet
from felix.desired import Desired, Update
from felix.pipeline import Pipeline
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import NodeName

ADDRESSES = {"a0": "10.1.0.1", "a1": "10.1.0.2", "a2": "10.1.0.3", "b1": "10.2.0.1", "b2": "10.2.0.2"}
LOCAL = ("a0", "a1", "b1")
OUTSIDE = "192.0.2.1"
HOST = "172.16.60.215"


class Scenario:
    def __init__(self, node: str = "node1") -> None:
        self.pipeline = Pipeline(NodeName(node))
        self.keys: dict[str, ResourceKey] = {}
        self._machine: Machine | None = None
        for network in ("net-a", "net-b"):
            self.put(network_profile(network))
        for name in ADDRESSES:
            self.endpoint(name)

    def endpoint(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        profiles: list[str] | None = None,
        ports: list[tuple[str, str, int]] | None = None,
        address: str | None = None,
    ) -> None:
        """Put the endpoint's record; every endpoint has the label ``name``."""
        record = workload(
            name,
            f"{address or ADDRESSES[name]}/32",
            node="node1" if name in LOCAL else ELSEWHERE,
            profiles=[f"net-{name[0]}"] if profiles is None else profiles,
            labels={"name": name, **(labels or {})},
            ports=ports or (),
        )
        self.keys[name] = record[0]
        self.put(record)

    def put(self, *records: tuple[ResourceKey, Resource]) -> Self:
        for key, value in records:
            self.pipeline.update(key, value)
        self._machine = None
        return self

    def remove(self, *keys: ResourceKey) -> Self:
        for key in keys:
            self.pipeline.update(key, None)
        self._machine = None
        return self

    def flush(self) -> Update:
        self._machine = None
        return self.pipeline.flush()

    @property
    def desired(self) -> Desired:
        self.flush()
        return self.pipeline.desired()

    @property
    def machine(self) -> Machine:
        if self._machine is None:
            self._machine = Machine(self.desired, 4, frozenset({HOST}))
            self._machine.check_all()
        return self._machine

    def packet(self, source: str, destination: str, **fields: object) -> Packet:
        """A packet between workloads by name, or plain addresses; by default the start of a TCP flow to port 80."""
        made = Packet(
            source=ADDRESSES.get(source, source),
            destination=ADDRESSES.get(destination, destination),
            in_interface=f"cali{source}" if source in LOCAL else "eth0",
            out_interface=f"cali{destination}" if destination in LOCAL else "eth0",
        )
        return replace(made, **fields)  # type: ignore[arg-type]

    def reaches(self, source: str, destination: str, **fields: object) -> bool:
        """Tell whether the start of a flow gets through this host."""
        return self.machine.forward(self.packet(source, destination, **fields))

    def reachable(self) -> set[str]:
        """All pairs between which a flow can start as far as this host decides, as ``a0>a1``."""
        return {
            f"{source}>{destination}"
            for source in ADDRESSES
            for destination in ADDRESSES
            if source != destination and (source in LOCAL or destination in LOCAL) and self.reaches(source, destination)
        }
