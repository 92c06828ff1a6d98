"""Docker's network driver: networks, endpoints, join and leave (reference libnetwork.md 2, 6.3, 6.4 and 11).

What a call leaves behind does not depend on how often it was made, nor on where an earlier attempt died: Docker repeats
nothing by itself, and rolls back what failed by DeleteEndpoint.
"""

import hashlib
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address
from typing import Protocol

import structlog
from msgspec.structs import replace

from libnetwork import messages, records
from libnetwork.address_driver import EVERYTHING
from libnetwork.deadline import Deadline
from libnetwork.leftovers import Leftovers
from libnetwork.records import EndpointRecords
from libnetwork.server import Call, Role, succeed
from libnetwork.veth import container_interface, host_interface
from resources.errors import CalicoError, OperationNotSupported, Rejected, Transient
from resources.kinds.base import Metadata
from resources.kinds.workloadendpoint import WorkloadEndpoint, WorkloadEndpointSpec
from resources.names import GATEWAY, IPAddress, NodeName, label_key_fault, label_value_fault
from resources.runtime.backoff import Clock, SystemClock

LABEL_PREFIX = "org.projectcalico.label."
_RESERVED_LABELS = "projectcalico.org/"
_LABEL_POLL_SECONDS = 0.1
_OUR_SPACES = frozenset({messages.LOCAL_SPACE, messages.GLOBAL_SPACE})

log = structlog.get_logger()


class NetworkRefused(Rejected):
    """`docker network create` asks for something that these networks do not have."""

    reference = "network-refused"


class EndpointRefused(Rejected):
    """A container cannot be joined to the network as asked."""

    reference = "endpoint-refused"


class LabelsUnknown(Transient):
    """Docker does not tell the labels of a container that starts: policies could not select it."""

    reference = "labels-unknown"


class Engine(Protocol):
    """What is needed of `libnetwork.engine.DockerEngine`."""

    def network_name(self, network_id: str) -> str: ...
    def forget_network(self, network_id: str) -> None: ...
    def container_name(self, network_id: str, endpoint_id: str) -> str | None: ...
    def container_labels(self, name: str) -> Mapping[str, str] | None: ...


class Pairs(Protocol):
    """What is needed of `libnetwork.veth.VethPairs`."""

    def create(self, endpoint_id: str, *, mac: str, ipv6: bool = False) -> IPv6Address | None: ...
    def remove(self, endpoint_id: str) -> None: ...


class Profiles(Protocol):
    """What is needed of `libnetwork.profiles.NetworkProfiles`."""

    def ensure(self, network: str, network_id: str, deadline: Deadline) -> str: ...
    def remove(self, network_id: str, deadline: Deadline) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """`label_seconds`: how long Docker may take to tell labels; None: labels are not copied."""

    scope: str = "global"
    interface_prefix: str = "cali"
    create_profiles: bool = True
    label_seconds: float | None = None


class NetworkDriver:
    """Answers NetworkDriver calls. Thread-safe."""

    def __init__(
        self,
        engine: Engine,
        endpoints: EndpointRecords,
        profiles: Profiles,
        pairs: Pairs,
        leftovers: Leftovers,
        *,
        node: NodeName,
        settings: NetworkSettings,
        clock: Clock | None = None,
    ) -> None:
        self._engine, self._endpoints, self._profiles, self._pairs = engine, endpoints, profiles, pairs
        self._leftovers = leftovers
        self._node, self._settings = node, settings
        self._clock = clock or SystemClock()

    def role(self) -> Role:
        capabilities = messages.NetworkCapabilities(
            scope=self._settings.scope, connectivity_scope=self._settings.scope
        )
        return Role(
            "NetworkDriver",
            {
                "GetCapabilities": Call(messages.NoArguments, lambda _, __: capabilities),
                "AllocateNetwork": Call(messages.AllocateNetwork, refuse_swarm),
                "FreeNetwork": Call(messages.NetworkRef, succeed),
                "CreateNetwork": Call(messages.CreateNetwork, self.create_network),
                "DeleteNetwork": Call(messages.NetworkRef, self.delete_network),
                "CreateEndpoint": Call(messages.CreateEndpoint, self.create_endpoint),
                "DeleteEndpoint": Call(messages.EndpointRef, self.delete_endpoint),
                "EndpointOperInfo": Call(messages.EndpointRef, lambda _, __: messages.OperInfo()),
                "Join": Call(messages.Join, self.join),
                "Leave": Call(messages.EndpointRef, self.leave),
                "ProgramExternalConnectivity": Call(messages.EndpointRef, succeed),
                "RevokeExternalConnectivity": Call(messages.EndpointRef, succeed),
                "DiscoverNew": Call(messages.Discovery, succeed),
                "DiscoverDelete": Call(messages.Discovery, succeed),
            },
        )

    # --- networks

    def create_network(self, request: messages.CreateNetwork, _: Deadline) -> messages.Message:
        """Check what is asked for. Nothing is stored: other hosts are not told of the network either."""
        for data, version in ((request.ipv4_data, 4), (request.ipv6_data, 6)):
            if not all(_is_ours(subnet, EVERYTHING[version]) for subnet in data or ()):
                raise NetworkRefused("Non-Calico IPAM driver is used", hint="give --ipam-driver calico-ipam as well")
        if flags := _unsupported_flags(request.options or {}):
            raise NetworkRefused(
                f"Calico driver does not support the flag{'s' if len(flags) > 1 else ''} {', '.join(flags)}.",
                hint="It knows no options (-o), and isolation (--internal) is the work of policies.",
            )
        log.info("network.created", network=request.network_id[:12])
        return messages.Empty()

    def delete_network(self, request: messages.NetworkRef, deadline: Deadline) -> messages.Message:
        self._engine.forget_network(request.network_id)
        if self._settings.create_profiles:
            self._profiles.remove(request.network_id, deadline)
        log.info("network.deleted", network=request.network_id[:12])
        return messages.Empty()

    # --- endpoints

    def create_endpoint(self, request: messages.CreateEndpoint, deadline: Deadline) -> messages.Message:
        """Write profile and record, the record last: from then on felix expects the interface."""
        interface = request.interface or messages.EndpointInterface()
        addresses = _addresses(interface)
        self._endpoints.load(deadline)
        network = self._network_name(request.network_id)
        profiles = (
            [self._profiles.ensure(network, request.network_id, deadline)] if self._settings.create_profiles else []
        )
        self._evict(addresses, request.endpoint_id, deadline)
        mac = interface.mac_address or mac_of(request.endpoint_id)
        record = WorkloadEndpoint(
            metadata=Metadata(annotations={records.NETWORK: network, records.NETWORK_ID: request.network_id}),
            spec=WorkloadEndpointSpec(
                orchestrator=records.ORCHESTRATOR,
                workload=records.ORCHESTRATOR,
                node=self._node,
                endpoint=request.endpoint_id,
                ip_networks=[f"{address}/{address.max_prefixlen}" for address in addresses],
                profiles=profiles,
                interface_name=host_interface(request.endpoint_id),
                mac=mac,
            ),
        )
        self._endpoints.put(record, deadline)
        log.info(
            "endpoint.created",
            endpoint=request.endpoint_id[:12],
            network=network,
            addresses=" ".join(record.spec.ip_networks),
        )
        filled = messages.FilledInterface(mac_address="" if interface.mac_address else mac)
        return messages.CreatedEndpoint(interface=filled)

    def _network_name(self, network_id: str) -> str:
        """Return the network's name; without profiles nothing depends on it, and "" will do."""
        try:
            return self._engine.network_name(network_id)
        except CalicoError as error:
            if self._settings.create_profiles:
                raise
            log.warning("network.unnamed", network=network_id[:12], error=str(error))
            return ""

    def _evict(self, addresses: Sequence[IPAddress], endpoint_id: str, deadline: Deadline) -> None:
        """Remove other records of this node with these addresses: IPAM has just given them away, so they are stale."""
        for other in self._endpoints.local.others_with(addresses, endpoint_id):
            record = self._endpoints.own(other, deadline)
            if record is None or not records.addresses_of(record) & set(addresses):
                self._endpoints.local.remove(other)
                continue
            log.warning(
                "endpoint.evicted",
                endpoint=other[:12],
                container=record.metadata.annotations.get(records.CONTAINER, ""),
                addresses=" ".join(record.spec.ip_networks),
                new_endpoint=endpoint_id[:12],
            )
            self._pairs.remove(other)
            self._endpoints.remove(record, deadline)

    def join(self, request: messages.Join, deadline: Deadline) -> messages.Message:
        """Make the interface, and tell Docker how the container reaches the world: by a next hop that no one has."""
        self._endpoints.load(deadline)
        record = self._endpoints.own(request.endpoint_id, deadline)
        if record is None:
            raise EndpointRefused(
                f"endpoint {request.endpoint_id[:12]} has no record on {self._node}",
                hint="it was removed while the container started; start it again",
            )
        addresses = records.addresses_of(record)
        container = self._container_name(request)
        labels = self._labels(request, container, deadline)
        next_hop = self._endpoints.local.enter_sandbox(request.endpoint_id, addresses, request.sandbox_key)
        ipv6 = any(address.version == 6 for address in addresses)
        # no IPv6 gateway for a container without an IPv6 address: it would not start
        link_local = self._pairs.create(request.endpoint_id, mac=record.spec.mac, ipv6=ipv6)

        def described(found: WorkloadEndpoint) -> WorkloadEndpoint:
            annotations = {**found.metadata.annotations, records.SANDBOX: request.sandbox_key}
            if container:
                annotations[records.CONTAINER] = container
            metadata = replace(found.metadata, annotations=annotations, labels={**found.metadata.labels, **labels})
            spec = replace(found.spec, ipv4_gateway="" if next_hop == GATEWAY else str(next_hop))
            return replace(found, metadata=metadata, spec=spec)

        if not self._endpoints.change(request.endpoint_id, described, deadline):
            raise EndpointRefused(
                f"the record of endpoint {request.endpoint_id[:12]} was removed while its container started",
                hint="start it again",
            )
        routes, gateway, gateway_ipv6 = [], "", ""
        if any(address.version == 4 for address in addresses):
            gateway = str(next_hop)
            routes.append(messages.StaticRoute(destination=f"{next_hop}/32"))
        if link_local is not None:
            gateway_ipv6 = str(link_local)
            routes.append(messages.StaticRoute(destination=f"{gateway_ipv6}/128"))
        log.info("endpoint.joined", endpoint=request.endpoint_id[:12], container=container or "", next_hop=gateway)
        return messages.Joined(
            interface_name=messages.InterfaceName(
                src_name=container_interface(request.endpoint_id), dst_prefix=self._settings.interface_prefix
            ),
            gateway=gateway,
            gateway_ipv6=gateway_ipv6,
            static_routes=routes,
            disable_gateway_service=not gateway,  # else an IPv6-only container gets Docker's NAT bridge as well
        )

    def _container_name(self, request: messages.Join) -> str | None:
        """Return the container's name; for people, so its lack is no error."""
        try:
            return self._engine.container_name(request.network_id, request.endpoint_id)
        except CalicoError as error:
            log.warning("container.unnamed", endpoint=request.endpoint_id[:12], error=str(error))
            return None

    def _labels(self, request: messages.Join, container: str | None, deadline: Deadline) -> dict[str, str]:
        """Return the labels for the endpoint. Without them policies would not select it, so it does not start."""
        if self._settings.label_seconds is None:
            return {}
        ends = self._clock.monotonic() + deadline.left(at_most=self._settings.label_seconds)
        while True:
            reason = f"it lists no container for endpoint {request.endpoint_id[:12]}"
            try:
                container = container or self._engine.container_name(request.network_id, request.endpoint_id)
                found = self._engine.container_labels(container) if container else None
                if found is not None:
                    return endpoint_labels(found)
            except Transient as error:
                reason = str(error)
            if self._clock.monotonic() >= ends:
                raise LabelsUnknown(f"Docker did not tell the container's labels in time: {reason}", hint="try again")
            self._clock.sleep(_LABEL_POLL_SECONDS)

    def leave(self, request: messages.EndpointRef, _: Deadline) -> messages.Message:
        self._pairs.remove(request.endpoint_id)
        return messages.Empty()

    def delete_endpoint(self, request: messages.EndpointRef, deadline: Deadline) -> messages.Message:
        """Remove interface and record; the record of another node too, when a lost host's container is disconnected."""
        try:
            self._pairs.remove(request.endpoint_id)
        finally:  # whatever the kernel says, Docker forgets the endpoint now
            try:
                self._delete_record(request.endpoint_id, deadline)
            except Transient:
                self._leftovers.add(
                    f"endpoint {request.endpoint_id}", partial(self._delete_record, request.endpoint_id)
                )
                raise
        return messages.Empty()

    def _delete_record(self, endpoint_id: str, deadline: Deadline) -> None:
        record = self._endpoints.anywhere(endpoint_id, deadline)
        if record is not None:
            self._endpoints.remove(record, deadline)
            log.info("endpoint.deleted", endpoint=endpoint_id[:12], node=record.spec.node)


def refuse_swarm(_: messages.AllocateNetwork, __: Deadline) -> messages.Message:
    raise OperationNotSupported(
        "Calico driver does not support swarm networks",
        hint="set CALICO_LIBNETWORK_SCOPE=local and create the network on each host, for plain containers",
    )


def mac_of(endpoint_id: str) -> str:
    """Return the MAC of a container that the user gave none: its own, unicast, locally administered."""
    return "ee:" + hashlib.sha256(endpoint_id.encode()).digest()[:5].hex(":")


def endpoint_labels(container_labels: Mapping[str, str]) -> dict[str, str]:
    """Return the endpoint labels that a container's labels ask for.

    Raises:
        EndpointRefused: one of them cannot be an endpoint's label: a policy that means it would not match.
    """
    labels = {}
    for name, value in sorted(container_labels.items()):
        if not name.startswith(LABEL_PREFIX):
            continue
        key = name.removeprefix(LABEL_PREFIX)
        fault = label_key_fault(key) or label_value_fault(value)
        if key.startswith(_RESERVED_LABELS):
            fault = f"labels below {_RESERVED_LABELS} are set by Calico itself"
        if fault:
            raise EndpointRefused(f"the container's label {name}={value} cannot be used: {fault}")
        labels[key] = value
    return labels


def _is_ours(subnet: messages.IPAMData, gateway: str) -> bool:
    return subnet.address_space in _OUR_SPACES and subnet.gateway in ("", gateway)


def _unsupported_flags(options: Mapping[str, object]) -> list[str]:
    """Return the flags and options of `docker network create` that are set and have no meaning here."""
    flags = []
    for name, value in sorted(options.items()):
        if name in (messages.ENABLE_IPV4, messages.ENABLE_IPV6):
            continue
        if name == messages.GENERIC:
            flags += sorted(map(str, value)) if isinstance(value, Mapping) else []
        elif value is True:
            flags.append(f"--{name.removeprefix(messages.OPTION_PREFIX)}")
        elif value not in (False, None):
            log.warning("network.option_ignored", option=name, value=value)
    return flags


def _addresses(interface: messages.EndpointInterface) -> list[IPAddress]:
    """Return the endpoint's addresses, IPv4 first.

    Raises:
        EndpointRefused: there is none, or one that cannot be read.
    """
    texts = [text for text in (interface.address, interface.address_ipv6) if text]
    if not texts:
        raise EndpointRefused("No address assigned for endpoint")
    try:
        return [ipaddress.ip_interface(text).ip for text in texts]
    except ValueError as error:
        raise EndpointRefused(f"{error}") from error
