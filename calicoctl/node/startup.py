"""Prepare a host: choose its addresses, register its Node, make the defaults (reference resources.md 1.7, 5.9).

Run by `calico-node` and `calicoctl node run` before the daemons start. Done again on a prepared host it changes
nothing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

import msgspec

from calicoctl.node import options as o
from calicoctl.node.addresses import HostInterface, choose
from calicoctl.node.pools import default_pools
from resources.codec import with_metadata
from resources.datastore.client import ResourceClient
from resources.errors import AlreadyExists, DoesNotExist, Rejected
from resources.kinds.base import Metadata
from resources.kinds.felixconfiguration import KIND as FELIX_CONFIGURATION
from resources.kinds.felixconfiguration import FelixConfiguration, FelixConfigurationSpec
from resources.kinds.node import KIND as NODE
from resources.kinds.node import NODE_ID_ANNOTATION, Node, NodeAddress, NodeBGPSpec, NodeSpec
from resources.kinds.pool import KIND as POOL
from resources.names import IPAddress, IPInterface, IPNetwork, NodeName
from resources.runtime.options import Settings

CLUSTER_TYPE = "docker"
OUR_ADDRESS_TYPE = "CalicoNodeIP"


class NameTaken(Rejected):
    """Another host has registered this node's name."""

    reference = "node-name-taken"


class AddressTaken(Rejected):
    """Another node has registered this host's address."""

    reference = "node-address-taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What is known of this host before anything is written."""

    name: NodeName
    node_id: str
    interfaces: Sequence[HostInterface]
    networks: Sequence[IPNetwork]
    """Everything that is routed or on a link here, to keep the default pool clear of it."""
    source_towards: Callable[[IPAddress], IPAddress | None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """The Node as it is registered now, and what was done, one line each."""

    node: Node
    done: tuple[str, ...]


def prepare(client: ResourceClient, host: Host, settings: Settings, *, rng: random.Random | None = None) -> Prepared:
    """Register this host and make what is missing in the store.

    Raises:
        NameTaken: another host is called so.
        AddressTaken: another node has this host's address.
        ConfigurationError, NoAddress: no address can be chosen.
    """
    ipv4, ipv6 = _addresses(host, settings)
    done: list[str] = []
    client.ensure_defaults(CLUSTER_TYPE)
    _refuse_taken_address(client, host, ipv4, ipv6)
    node = _register(client, host, settings, ipv4, ipv6, done)
    _felix_defaults(client, host.name, done)
    if not settings[o.NO_POOLS] and not client.list(POOL).items:
        for pool in default_pools(settings, host.networks, rng or random.Random()):
            try:
                client.create(POOL, pool)
                done.append(f"created the default pool {pool.metadata.name} ({pool.spec.cidr})")
            except AlreadyExists:
                continue  # another node was faster
    return Prepared(node, tuple(done))


def _addresses(host: Host, settings: Settings) -> tuple[IPv4Interface, IPv6Interface | None]:
    ipv4 = choose(settings[o.IP], settings[o.IP_METHOD], 4, host.interfaces, host.source_towards)
    assert isinstance(ipv4, IPv4Interface)
    if settings[o.IP6].lower() in ("", "none"):
        return ipv4, None
    ipv6 = choose(settings[o.IP6], settings[o.IP6_METHOD], 6, host.interfaces, host.source_towards)
    assert isinstance(ipv6, IPv6Interface)
    return ipv4, ipv6


def _refuse_taken_address(client: ResourceClient, host: Host, *addresses: IPInterface | None) -> None:
    wanted = {address.ip for address in addresses if address}
    for node in client.list(NODE).items:
        held = {address.ip for address in (node.ipv4, node.ipv6) if address}
        if node.name != host.name and held & wanted:
            raise AddressTaken(
                f"the address {min(map(str, held & wanted))} of this host is registered by node {node.name}",
                hint=f"if {node.name} is gone: calicoctl delete node {node.name}; else set IP to another address",
            )


def _register(
    client: ResourceClient, host: Host, settings: Settings, ipv4: IPv4Interface, ipv6: IPv6Interface | None,
    done: list[str],
) -> Node:
    try:
        before = client.get(NODE, host.name)
    except DoesNotExist:
        wanted = _wanted(Node(metadata=Metadata(name=host.name)), host, settings, ipv4, ipv6)
        try:
            node = client.create(NODE, wanted)
            done.append(f"registered node {host.name} with {ipv4}")
            return node
        except AlreadyExists:
            before = client.get(NODE, host.name)
    _refuse_other_host(before, host)
    if _wanted(before, host, settings, ipv4, ipv6) == before:
        return before

    def changed(stored: Node) -> Node:
        _refuse_other_host(stored, host)
        return _wanted(stored, host, settings, ipv4, ipv6)

    node = client.modify(NODE, host.name, changed)
    done.append(f"updated node {host.name}: its address is {ipv4} (was {before.ipv4 or 'none'})")
    return node


def _refuse_other_host(node: Node, host: Host) -> None:
    other = node.metadata.annotations.get(NODE_ID_ANNOTATION)
    if other and other != host.node_id:
        address = node.ipv4 or node.ipv6 or "unknown"
        raise NameTaken(
            f"the node name {host.name} belongs to another host, with the address {address}",
            hint=f"give this host another name (NODENAME), or free it: calicoctl delete node {host.name}",
        )


def _wanted(
    node: Node, host: Host, settings: Settings, ipv4: IPv4Interface, ipv6: IPv6Interface | None
) -> Node:
    """Return `node` with this host's id and addresses; what others wrote stays."""
    bgp = node.spec.bgp or NodeBGPSpec()
    bgp = msgspec.structs.replace(bgp, ipv4_address=str(ipv4), ipv6_address=str(ipv6) if ipv6 else "")
    if settings[o.AS] is not None:
        bgp = msgspec.structs.replace(bgp, as_number=settings[o.AS])
    ours = [NodeAddress(address=str(a), type=OUR_ADDRESS_TYPE) for a in (ipv4, ipv6) if a]
    others = [entry for entry in node.spec.addresses if entry.type != OUR_ADDRESS_TYPE]
    spec: NodeSpec = msgspec.structs.replace(node.spec, bgp=bgp, addresses=[*ours, *others])
    changed = msgspec.structs.replace(node, spec=spec)
    return with_metadata(changed, annotations={**node.metadata.annotations, NODE_ID_ANNOTATION: host.node_id})


def _felix_defaults(client: ResourceClient, name: NodeName, done: list[str]) -> None:
    """Make the two FelixConfigurations: without Return a container could not reach its own host (felix.md 3.5)."""
    wanted: Mapping[str, FelixConfigurationSpec] = {
        "default": FelixConfigurationSpec(log_severity_screen="Info"),
        f"node.{name}": FelixConfigurationSpec(default_endpoint_to_host_action="Return"),
    }
    for object_name, spec in wanted.items():
        try:
            client.get(FELIX_CONFIGURATION, object_name)
        except DoesNotExist:
            try:
                client.create(
                    FELIX_CONFIGURATION, FelixConfiguration(metadata=Metadata(name=object_name), spec=spec)
                )
                done.append(f"created FelixConfiguration {object_name}")
            except AlreadyExists:
                continue
