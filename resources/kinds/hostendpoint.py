"""HostEndpoint: an interface of a host, for policy (reference resources.md 2.7)."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from resources.gotext import JSON
from resources.kinds import fields, rule_v1
from resources.kinds.base import V1, Column, Kind, Metadata, Path, Problem, View, name_cell, readable_labels, wire
from resources.kinds.naming import host_endpoint_name, node_name, profile_name
from resources.kinds.workloadendpoint import EndpointPort, port_name_problems
from resources.names import IfName, IPAddress, NodeName, parse_address

ALL_INTERFACES = "*"
"""The interface name of an endpoint that is every interface of its host."""


class HostEndpointSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(expected_ips="expectedIPs"),
):
    node: str = ""
    interface_name: str = ""
    """A name, ``*`` for all of the host, or "" where expectedIPs say which it is."""
    expected_ips: list[str] = []
    profiles: list[str] = []
    ports: list[EndpointPort] = []


class HostEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: HostEndpointSpec = HostEndpointSpec()

    @property
    def node(self) -> NodeName:
        return NodeName(self.spec.node)

    @property
    def interface(self) -> IfName:
        return IfName(self.spec.interface_name)

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        return tuple(parse_address(text) for text in self.spec.expected_ips)


def _check(endpoint: HostEndpoint) -> Iterable[Problem]:
    spec = endpoint.spec
    yield from _needs(endpoint)
    yield from fields.name(("spec", "node"), spec.node)
    for index, profile in enumerate(spec.profiles):
        if not profile:
            yield Problem(("spec", "profiles", index), "", "must be the name of a profile")
        yield from fields.name(("spec", "profiles", index), profile)
    seen: set[tuple[str, int | str, int]] = set()
    for index, port in enumerate(spec.ports):
        same = (port.name, port.protocol, port.port)
        if same in seen:
            yield Problem(("spec", "ports", index), port.name or str(port.port), "this port is listed twice")
        seen.add(same)


def _needs(endpoint: HostEndpoint) -> Iterator[Problem]:
    spec = endpoint.spec
    if not spec.node:
        yield Problem(("spec", "node"), "", "no node has been specified")
    if not spec.interface_name and not spec.expected_ips:
        hint = "write interfaceName: eth0, interfaceName: '*' for all, or expectedIPs"
        yield Problem(("spec", "interfaceName"), "", "no interface or expected IPs have been specified", hint)
    if spec.interface_name != ALL_INTERFACES:
        yield from fields.interface(("spec", "interfaceName"), spec.interface_name)
    for index, text in enumerate(spec.expected_ips):
        if not text:
            yield Problem(("spec", "expectedIPs", index), "", "must be an IP address")
        yield from fields.address(("spec", "expectedIPs", index), text)
    for index, port in enumerate(spec.ports):
        yield from _port_problems(("spec", "ports", index), port)


def _port_problems(path: Path, port: EndpointPort) -> Iterator[Problem]:
    if not fields.carries_ports(port.protocol):
        reason = "EndpointPort protocol does not support ports."
        yield Problem((*path, "protocol"), str(port.protocol), reason, "allowed are TCP, UDP, SCTP")
    if port.port == 0:
        yield Problem((*path, "port"), "0", "must be between 1 and 65535")
    if not port.name:
        yield Problem((*path, "name"), "", "must be set: rules call the port by its name")
    yield from port_name_problems((*path, "name"), port.name)


def _closed(document: Mapping[str, JSON]) -> HostEndpoint | None:
    """Keep the interface from opening: what can be read stands, but no profile; None if it cannot be told where.

    Of expectedIPs and ports something is kept for each that cannot be read, which is no address and no port either, so
    that whoever uses them knows that one is missing.
    """
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return None
    node, interface, expected = spec.get("node"), spec.get("interfaceName") or "", _listed(spec.get("expectedIPs"))
    is_told_where = interface or any(isinstance(text, str) for text in expected)
    if not isinstance(node, str) or not node or not isinstance(interface, str) or not is_told_where:
        return None
    return HostEndpoint(
        metadata=Metadata(labels=readable_labels(document) or {}),
        spec=HostEndpointSpec(
            node=node,
            interface_name=interface,
            expected_ips=[text if isinstance(text, str) else msgspec.json.encode(text).decode() for text in expected],
            ports=[_readable_port(one) for one in _listed(spec.get("ports"))],
        ),
    )


def _listed(value: JSON) -> list[JSON]:
    """Return what a list has; what is there and no list counts as one entry."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _readable_port(value: JSON) -> EndpointPort:
    try:
        return msgspec.convert(value, EndpointPort)
    except msgspec.ValidationError:
        return EndpointPort(protocol="", port=0)


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)


class HostEndpointMetadataV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    node: str = ""
    labels: dict[str, str] = {}


class HostEndpointSpecV1(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(expected_ips="expectedIPs")
):
    interface_name: str = ""
    expected_ips: list[str] = []
    profiles: list[str] = []


class HostEndpointV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: HostEndpointMetadataV1 = HostEndpointMetadataV1()
    spec: HostEndpointSpecV1 = HostEndpointSpecV1()


def _check_v1(endpoint: HostEndpointV1) -> Iterable[Problem]:
    metadata = endpoint.metadata
    yield from rule_v1.name_problems(("metadata", "node"), metadata.node)
    yield from rule_v1.name_problems(("metadata", "name"), metadata.name, slash=True)
    yield from fields.labels(("metadata", "labels"), metadata.labels)
    for index, text in enumerate(endpoint.spec.expected_ips):
        yield from fields.address(("spec", "expectedIPs", index), text)


def _to_v3(endpoint: HostEndpointV1) -> HostEndpoint:
    metadata, spec = endpoint.metadata, endpoint.spec
    return HostEndpoint(
        metadata=Metadata(name=host_endpoint_name(metadata.node, metadata.name), labels=metadata.labels),
        spec=HostEndpointSpec(
            node=node_name(metadata.node),
            interface_name=spec.interface_name,
            expected_ips=[
                str(address)
                for address in sorted(map(parse_address, filter(None, spec.expected_ips)), key=lambda a: a.version)
            ],
            profiles=[profile_name(name) for name in spec.profiles],
        ),
    )


def _name_v1(endpoint: HostEndpoint) -> str:
    return endpoint.metadata.name.removeprefix(f"{endpoint.spec.node}.")


def _from_v3(endpoint: HostEndpoint) -> HostEndpointV1:
    metadata, spec = endpoint.metadata, endpoint.spec
    return HostEndpointV1(
        metadata=HostEndpointMetadataV1(name=_name_v1(endpoint), node=spec.node, labels=metadata.labels),
        spec=HostEndpointSpecV1(
            interface_name=spec.interface_name, expected_ips=spec.expected_ips, profiles=spec.profiles
        ),
    )


def _keep(stored: HostEndpoint, new: HostEndpoint) -> HostEndpoint:
    """Take what v1 can say from the new endpoint, and its ports and annotations from the stored one."""
    return HostEndpoint(
        metadata=msgspec.structs.replace(stored.metadata, labels=new.metadata.labels),
        spec=msgspec.structs.replace(new.spec, ports=stored.spec.ports),
    )


def _node_cell(endpoint: HostEndpoint, _: View) -> str:
    return endpoint.spec.node


_NAME: Column[HostEndpoint] = Column("NAME", name_cell)
_NODE: Column[HostEndpoint] = Column("NODE", _node_cell)
_MORE: tuple[Column[HostEndpoint], ...] = (
    Column("INTERFACE", lambda endpoint, _: endpoint.spec.interface_name),
    Column("IPS", lambda endpoint, _: _joined(endpoint.spec.expected_ips)),
    Column("PROFILES", lambda endpoint, _: _joined(endpoint.spec.profiles)),
)

_IN_V1: tuple[Column[HostEndpoint], ...] = (_NODE, Column("NAME", lambda endpoint, _: _name_v1(endpoint)))

_V1: V1[HostEndpoint] = V1(
    name="hostEndpoint",
    type=HostEndpointV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=lambda endpoint: f"HostEndpoint(node={endpoint.spec.node}, name={_name_v1(endpoint)})",
    name_of=lambda name: name,
    is_called=lambda endpoint, name: host_endpoint_name(endpoint.spec.node, name) == endpoint.metadata.name,
    keep=_keep,
    paths=((("spec", "node"), ("metadata", "node")),),
    filters=("node",),
    order=lambda endpoint: (endpoint.spec.node, _name_v1(endpoint)),
    columns=_IN_V1,
    wide=(*_IN_V1, *_MORE),
)

KIND: Kind[HostEndpoint] = Kind(
    name="HostEndpoint",
    plural="hostendpoints",
    type=HostEndpoint,
    aliases=("hostendpoint", "hostendpoints", "hep", "heps"),
    check=_check,
    needs=_needs,
    closed=_closed,
    columns=(_NAME, _NODE),
    wide=(_NAME, _NODE, *_MORE),
    v1=_V1,
)
