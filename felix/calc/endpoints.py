"""Endpoints as the calculation keeps them: what every host needs of each, and what this host serves.

Of the thousands on other hosts only labels, addresses and named ports are kept.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from felix.calc.labels import Labels, interned
from resources.datastore.keys import ResourceKey
from resources.errors import Rejected
from resources.kinds.workloadendpoint import EndpointPort, WorkloadEndpoint
from resources.names import INTERFACE_REGEX, IfName, IPNetwork, ProfileName, parse_network
from resources.selection import seen_labels

CONTAINER = "docker.projectcalico.org/container"
"""Annotation that Docker's driver writes: the container's name."""
ENDPOINT_SHORT = 12
"""So many characters of Docker's endpoint id tell it from the others."""

_MAC = re.compile(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\Z")
_PORT_PROTOCOLS = {"tcp": "tcp", "6": "tcp", "udp": "udp", "17": "udp", "sctp": "sctp", "132": "sctp"}


class EndpointUnusable(Rejected):
    """An endpoint's record that cannot be served."""

    reference = "endpoint-unusable"


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    protocol: str
    name: str
    number: int


@dataclass(frozen=True, slots=True)
class Member:
    """What any endpoint or network set contributes to sets: addresses and networks as ipset writes them, each once."""

    labels: Labels
    profiles: tuple[ProfileName, ...]
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    ports: tuple[DeclaredPort, ...]
    doubtful: bool = False
    """Addresses or networks that it was to contribute cannot be read."""
    doubtful_ports: bool = False
    """Nor can ports that it declares."""

    def addresses(self, version: int) -> tuple[str, ...]:
        return self.ipv4 if version == 4 else self.ipv6


EndpointOrder = tuple[str, str, str, ResourceKey]
"""Orchestrator, namespace and workload, endpoint; the lowest wins."""


@dataclass(frozen=True, slots=True)
class Local:
    """An endpoint of this host as its record has it."""

    order: EndpointOrder
    interface: IfName
    networks: frozenset[IPNetwork]
    mac: str | None
    labels: Labels
    profiles: tuple[ProfileName, ...]
    spoofed_sources: tuple[IPNetwork, ...]
    name: str


def read_member(endpoint: WorkloadEndpoint) -> Member:
    """Return what the endpoint contributes to sets.

    Raises:
        ValueError, EndpointUnusable: an address or port that is none.
    """
    networks = _single_addresses(endpoint)
    return Member(
        labels=own_labels(endpoint.metadata.labels, endpoint.metadata.namespace),
        profiles=distinct_profiles(endpoint.spec.profiles),
        ipv4=tuple(str(net.network_address) for net in networks if net.version == 4),
        ipv6=tuple(str(net.network_address) for net in networks if net.version == 6),
        ports=tuple(declared_port(port) for port in endpoint.spec.ports if port.name),
    )


def read_local(key: ResourceKey, endpoint: WorkloadEndpoint) -> Local:
    """Return an endpoint of this host.

    Raises:
        ValueError, EndpointUnusable: its record cannot be served.
    """
    spec = endpoint.spec
    if not INTERFACE_REGEX.match(spec.interface_name):
        raise EndpointUnusable(f"interface name {spec.interface_name!r} is none")
    if spec.mac and not _MAC.match(spec.mac):
        raise EndpointUnusable(f"MAC {spec.mac!r} is none")
    workload = {"k8s": spec.pod, "cni": spec.container_id}.get(spec.orchestrator, spec.workload)
    return Local(
        order=(spec.orchestrator, f"{endpoint.metadata.namespace}/{workload}", spec.endpoint, key),
        interface=endpoint.interface,
        networks=frozenset(_single_addresses(endpoint)),
        mac=spec.mac.replace("-", ":").lower() or None,
        labels=own_labels(endpoint.metadata.labels, endpoint.metadata.namespace),
        profiles=distinct_profiles(spec.profiles),
        spoofed_sources=tuple(
            ipaddress.ip_network(text, strict=False) for text in spec.allow_spoofed_source_prefixes
        ),
        name=_called(endpoint, workload),
    )


def own_labels(labels: Mapping[str, str], namespace: str) -> Labels:
    """Return the labels of an endpoint or network set that selectors see; its namespace is that of its key."""
    return interned(seen_labels(labels, namespace))


def distinct_profiles(names: Iterable[str]) -> tuple[ProfileName, ...]:
    return _shared(tuple(dict.fromkeys(ProfileName(name) for name in names)))


@lru_cache(maxsize=1024)
def _shared(names: tuple[ProfileName, ...]) -> tuple[ProfileName, ...]:
    """Return the same tuple for the same names: thousands of endpoints have one of a few."""
    return names


def _called(endpoint: WorkloadEndpoint, workload: str) -> str:
    """Return what people call it: its container; its workload, unless all of Docker's are called alike."""
    spec = endpoint.spec
    container = endpoint.metadata.annotations.get(CONTAINER)
    return container or (workload if workload != spec.orchestrator else "") or spec.endpoint[:ENDPOINT_SHORT]


def _single_addresses(endpoint: WorkloadEndpoint) -> list[IPNetwork]:
    networks: dict[IPNetwork, None] = {}
    for text in endpoint.spec.ip_networks:
        network = parse_network(text)
        if network.prefixlen != network.max_prefixlen:
            raise EndpointUnusable(f"{text} is more than one address")
        if isinstance(network, ipaddress.IPv6Network) and int(network.network_address) >> 32 == 0:
            raise EndpointUnusable(f"{text} is an IPv4 address in the form of an IPv6 one")
        if network.network_address.is_unspecified:  # the kernel refuses it, and all of a large set with it
            raise EndpointUnusable(f"{text} is nobody's address")
        networks[network] = None
    return list(networks)


def declared_port(port: EndpointPort) -> DeclaredPort:
    """Return a port that an endpoint declares.

    Raises:
        EndpointUnusable: its protocol has no ports, or its number is none.
    """
    if not port.protocol:  # what stands for it in a record of which some can be read
        raise EndpointUnusable("a port that cannot be read")
    protocol = _PORT_PROTOCOLS.get(str(port.protocol).lower())
    if protocol is None or not 1 <= port.port <= 65535:
        raise EndpointUnusable(f"port {port.name!r} with protocol {port.protocol} and number {port.port}")
    return DeclaredPort(protocol, port.name, port.port)
