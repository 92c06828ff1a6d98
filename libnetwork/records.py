"""Workload endpoint records of Docker's endpoints, and what this process remembers of its own node's.

The record is that of Calico's own plugin (reference libnetwork.md 6.4, resources.md 2.6); what Docker knows of the
endpoint besides is kept in annotations.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

import structlog
from msgspec.structs import replace

from libnetwork.deadline import Deadline
from libnetwork.timed_store import Datastore
from resources.errors import AlreadyExists, DoesNotExist
from resources.kinds.workloadendpoint import KIND, WorkloadEndpoint, WorkloadEndpointSpec, endpoint_name
from resources.names import GATEWAY, IPAddress, NodeName

NETWORK = "docker.projectcalico.org/network"
"""Annotation: the network's name."""
NETWORK_ID = "docker.projectcalico.org/network-id"
CONTAINER = "docker.projectcalico.org/container"
"""Annotation: the container's name as it was when it joined."""
SANDBOX = "docker.projectcalico.org/sandbox"
"""Annotation: the key of the container's network namespace; several endpoints may share it."""

ORCHESTRATOR = "libnetwork"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Local:
    """What is remembered of an endpoint of this node."""

    addresses: frozenset[IPAddress]
    sandbox: str = ""
    next_hop: IPv4Address = GATEWAY


class LocalEndpoints:
    """This node's endpoints, so that no call needs to read them all. Thread-safe.

    It may lag behind the store (another node may remove a record by force), so it is a hint: whoever acts upon it
    reads the record first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_id: dict[str, Local] = {}
        self._by_address: dict[IPAddress, set[str]] = {}

    def put(self, endpoint_id: str, local: Local) -> None:
        with self._lock:
            self._put(endpoint_id, local)

    def _put(self, endpoint_id: str, local: Local) -> None:
        self._remove(endpoint_id)
        self._by_id[endpoint_id] = local
        for address in local.addresses:
            self._by_address.setdefault(address, set()).add(endpoint_id)

    def remove(self, endpoint_id: str) -> None:
        with self._lock:
            self._remove(endpoint_id)

    def _remove(self, endpoint_id: str) -> None:
        local = self._by_id.pop(endpoint_id, None)
        for address in local.addresses if local else ():
            holders = self._by_address[address]
            holders.discard(endpoint_id)
            if not holders:
                del self._by_address[address]

    def others_with(self, addresses: Iterable[IPAddress], endpoint_id: str) -> list[str]:
        """Return the other endpoints that have one of the addresses, sorted."""
        with self._lock:
            found = set().union(*(self._by_address.get(address, ()) for address in addresses))
        return sorted(found - {endpoint_id})

    def enter_sandbox(self, endpoint_id: str, addresses: frozenset[IPAddress], sandbox: str) -> IPv4Address:
        """Note that the endpoint joins a sandbox; return its next hop, which no other endpoint there has.

        169.254.1.1 for the first one: two equal routes cannot stand in one container (reference libnetwork.md 2.5).
        """
        with self._lock:
            taken = {
                local.next_hop
                for other, local in self._by_id.items()
                if sandbox and local.sandbox == sandbox and other != endpoint_id
            }
            next_hop = GATEWAY
            while next_hop in taken:
                next_hop += 1
            self._put(endpoint_id, Local(addresses, sandbox, next_hop))
        return next_hop

    def __len__(self) -> int:
        with self._lock:
            return len(self._by_id)


def addresses_of(record: WorkloadEndpoint) -> frozenset[IPAddress]:
    return frozenset(network.network_address for network in record.networks)


class EndpointRecords:
    """The records in the store. Thread-safe."""

    def __init__(self, datastore: Datastore, *, node: NodeName, namespace: str) -> None:
        self._datastore, self._node, self._namespace = datastore, node, namespace
        self.local = LocalEndpoints()
        self.orphans: dict[IPAddress, str] = {}
        """Addresses of other nodes' endpoints that were removed from here, with their nodes."""
        self._loaded = threading.Event()
        self._loading = threading.Lock()

    def load(self, deadline: Deadline) -> None:
        """Read this node's endpoints, once in the life of the process: later calls return at once."""
        if self._loaded.is_set():
            return
        with self._loading:
            if self._loaded.is_set():
                return
            for record in self.all(deadline):
                if record.spec.node == self._node and record.spec.orchestrator == ORCHESTRATOR:
                    self.local.put(record.spec.endpoint, _local(record))
            self._loaded.set()

    def name(self, endpoint_id: str) -> str:
        """Return what the record of an endpoint of this node is called."""
        return endpoint_name(WorkloadEndpointSpec(node=self._node, orchestrator=ORCHESTRATOR, endpoint=endpoint_id))

    def own(self, endpoint_id: str, deadline: Deadline) -> WorkloadEndpoint | None:
        """Return the record of an endpoint of this node."""
        try:
            return self._datastore.until(deadline).get(KIND, self.name(endpoint_id), self._namespace)
        except DoesNotExist:
            return None

    def anywhere(self, endpoint_id: str, deadline: Deadline) -> WorkloadEndpoint | None:
        """Return the record of an endpoint of any node, this one's first."""
        if (own := self.own(endpoint_id, deadline)) is not None:
            return own
        return next((record for record in self.all(deadline) if record.spec.endpoint == endpoint_id), None)

    def holding(self, address: IPAddress, deadline: Deadline) -> WorkloadEndpoint | None:
        """Return the record that has an address, on whichever node. Reads all records."""
        return next((record for record in self.all(deadline) if address in addresses_of(record)), None)

    def with_profile(self, profile: str, deadline: Deadline) -> bool:
        """Return whether any endpoint names a profile. Reads all records."""
        return any(profile in record.spec.profiles for record in self.all(deadline))

    def all(self, deadline: Deadline) -> tuple[WorkloadEndpoint, ...]:
        """Return the records of Docker's endpoints of all nodes; an unreadable one is reported and passed over."""
        listing = self._datastore.until(deadline).list(KIND, self._namespace)
        for bad in listing.bad:
            log.warning("record.unreadable", record=bad.name, error=str(bad))
        return listing.items

    def put(self, record: WorkloadEndpoint, deadline: Deadline) -> None:
        """Create the record of an endpoint of this node, or give the one that is there this content."""
        client, endpoint_id = self._datastore.until(deadline), record.spec.endpoint
        name = self.name(endpoint_id)
        record = replace(record, metadata=replace(record.metadata, name=name, namespace=self._namespace))
        while True:
            try:
                client.create(KIND, record)
                break
            except AlreadyExists:
                pass
            try:
                client.modify(KIND, name, lambda found: _merged(found, record), self._namespace)
                break
            except DoesNotExist:
                pass  # removed just now: create it after all
        self.local.put(endpoint_id, _local(record))

    def change(
        self, endpoint_id: str, edit: Callable[[WorkloadEndpoint], WorkloadEndpoint], deadline: Deadline
    ) -> bool:
        """Store `edit` of the record of an endpoint of this node. False: there is none."""
        try:
            self._datastore.until(deadline).modify(KIND, self.name(endpoint_id), edit, self._namespace)
        except DoesNotExist:
            return False
        return True

    def remove(self, record: WorkloadEndpoint, deadline: Deadline) -> None:
        """Delete a record, of any node; gone already is done."""
        try:
            self._datastore.until(deadline).delete(KIND, record.metadata.name, self._namespace)
        except DoesNotExist:
            pass
        if record.spec.node == self._node:
            self.local.remove(record.spec.endpoint)
        else:
            self.orphans.update(dict.fromkeys(addresses_of(record), record.spec.node))


def _local(record: WorkloadEndpoint) -> Local:
    gateway = record.spec.ipv4_gateway
    return Local(
        addresses_of(record),
        record.metadata.annotations.get(SANDBOX, ""),
        IPv4Address(gateway) if gateway else GATEWAY,
    )


def _merged(found: WorkloadEndpoint, wanted: WorkloadEndpoint) -> WorkloadEndpoint:
    """Return `wanted` in the place of `found`, whose other labels and annotations stay."""
    metadata = replace(
        found.metadata,
        labels={**found.metadata.labels, **wanted.metadata.labels},
        annotations={**found.metadata.annotations, **wanted.metadata.annotations},
    )
    return replace(wanted, metadata=metadata)
