"""HostEndpoint: an interface of a host, for policy (reference resources.md 2.7)."""

from collections.abc import Iterable, Iterator

import msgspec

from resources.kinds import fields
from resources.kinds.base import Column, Kind, Metadata, Path, Problem, View, name_cell, wire
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


def _joined(values: Iterable[str]) -> str:
    return ",".join(values)


def _node_cell(endpoint: HostEndpoint, _: View) -> str:
    return endpoint.spec.node


_NAME: Column[HostEndpoint] = Column("NAME", name_cell)
_NODE: Column[HostEndpoint] = Column("NODE", _node_cell)
_MORE: tuple[Column[HostEndpoint], ...] = (
    Column("INTERFACE", lambda endpoint, _: endpoint.spec.interface_name),
    Column("IPS", lambda endpoint, _: _joined(endpoint.spec.expected_ips)),
    Column("PROFILES", lambda endpoint, _: _joined(endpoint.spec.profiles)),
)

KIND: Kind[HostEndpoint] = Kind(
    name="HostEndpoint",
    plural="hostendpoints",
    type=HostEndpoint,
    aliases=("hostendpoint", "hostendpoints", "hep", "heps"),
    check=_check,
    needs=_needs,
    columns=(_NAME, _NODE),
    wide=(_NAME, _NODE, *_MORE),
)
