"""Prepare a host: choose its addresses, register its Node, make the defaults (reference resources.md 1.7, 5.9).

Run by `calico-node` and `calicoctl node run` before the daemons start. Done again on a prepared host it changes
nothing.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from calicoctl.node import options as o
from calicoctl.node.addresses import HostInterface, choose
from calicoctl.node.pools import default_pools
from resources.codec import with_metadata
from resources.datastore.client import ResourceClient
from resources.errors import AlreadyExists, ConfigurationError, DoesNotExist, Rejected
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
Addresses = tuple[IPInterface, ...]
"""Of a node: one of either family, or both, IPv4 first."""


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
    addresses = _addresses(host, settings)
    done: list[str] = []
    client.ensure_defaults(CLUSTER_TYPE)
    _refuse_taken_address(client, host, addresses)
    node = _register(client, host, settings, addresses, done)
    _felix_defaults(client, host.name, done)
    if not settings[o.NO_POOLS] and not client.list(POOL).items:
        for pool in default_pools(settings, host.networks, rng or random.Random()):
            try:
                client.create(POOL, pool)
                done.append(f"created the default pool {pool.metadata.name} ({pool.spec.cidr})")
            except AlreadyExists:
                continue  # another node was faster
    return Prepared(node, tuple(done))


def _addresses(host: Host, settings: Settings) -> Addresses:
    """Return this host's addresses, IPv4 first.

    Raises:
        ConfigurationError: neither family is to have one, or a setting cannot be understood.
        NoAddress: one is to be found and cannot be.
    """
    found: list[IPInterface] = []
    for version, setting, method in ((4, o.IP, o.IP_METHOD), (6, o.IP6, o.IP6_METHOD)):
        text = settings[setting]
        if text.lower() != "none" and (text or version == 4):
            found.append(choose(text, settings[method], version, host.interfaces, host.source_towards))
    if not found:
        raise ConfigurationError(
            "this node would have no address: IP is none, and so is IP6",
            hint="set IP6=autodetect on a host with IPv6 only, or leave IP out",
        )
    return tuple(found)


def _text(addresses: Addresses) -> str:
    return " and ".join(map(str, addresses)) or "none"


def _refuse_taken_address(client: ResourceClient, host: Host, addresses: Addresses) -> None:
    wanted = {address.ip for address in addresses}
    for node in client.list(NODE).items:
        held = {address.ip for address in (node.ipv4, node.ipv6) if address}
        if node.name != host.name and held & wanted:
            raise AddressTaken(
                f"the address {min(map(str, held & wanted))} of this host is registered by node {node.name}",
                hint=f"if {node.name} is gone: calicoctl delete node {node.name}; else set another one (IP, IP6)",
            )


def _register(
    client: ResourceClient, host: Host, settings: Settings, addresses: Addresses, done: list[str]
) -> Node:
    try:
        before = client.get(NODE, host.name)
    except DoesNotExist:
        wanted = _wanted(Node(metadata=Metadata(name=host.name)), host, settings, addresses)
        try:
            node = client.create(NODE, wanted)
            done.append(f"registered node {host.name} with {_text(addresses)}")
            return node
        except AlreadyExists:
            before = client.get(NODE, host.name)
    _refuse_other_host(before, host)
    if _wanted(before, host, settings, addresses) == before:
        return before

    def changed(stored: Node) -> Node:
        _refuse_other_host(stored, host)
        return _wanted(stored, host, settings, addresses)

    node = client.modify(NODE, host.name, changed)
    was = tuple(address for address in (before.ipv4, before.ipv6) if address is not None)
    what = "its address is" if len(addresses) == 1 else "its addresses are"
    done.append(f"updated node {host.name}: {what} {_text(addresses)} (was {_text(was)})")
    return node


def _refuse_other_host(node: Node, host: Host) -> None:
    other = node.metadata.annotations.get(NODE_ID_ANNOTATION)
    if other and other != host.node_id:
        address = node.ipv4 or node.ipv6 or "unknown"
        raise NameTaken(
            f"the node name {host.name} belongs to another host, with the address {address}",
            hint=f"give this host another name (NODENAME), or free it: calicoctl delete node {host.name}",
        )


def _wanted(node: Node, host: Host, settings: Settings, addresses: Addresses) -> Node:
    """Return `node` with this host's id and addresses; what others wrote stays."""
    bgp = node.spec.bgp or NodeBGPSpec()
    by_version = {address.version: str(address) for address in addresses}
    bgp = msgspec.structs.replace(bgp, ipv4_address=by_version.get(4, ""), ipv6_address=by_version.get(6, ""))
    if settings[o.AS] is not None:
        bgp = msgspec.structs.replace(bgp, as_number=settings[o.AS])
    ours = [NodeAddress(address=str(address), type=OUR_ADDRESS_TYPE) for address in addresses]
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
