"""Which address each tunnel of this node is to have: pure, from what the store says (reference ipam.md 3.10).

The Node record names an address for each kind of tunnel; it is taken from the pools of that kind under a handle of its
own. Whatever was interrupted, the next decision sets right: the handle tells what was taken and never recorded, and an
address that the record does not name any more is released only after the record was written.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from ipam.results import Allocation, Release
from resources.kinds.node import Node, NodeBGPSpec
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, parse_address
from resources.selector import SelectorError, parse
from resources.vxlan import tunnel_mac

USE = "Tunnel"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKind:
    """One kind of tunnel: which pools have it, and how its address is recorded and allocated."""

    name: str
    """As people and the state page call it."""
    version: int
    member: str
    """Where a Node has the address."""
    handle_prefix: str
    attribute: str
    """The attribute `type` of the allocation."""
    mode: Callable[[IPPoolSpec], str]
    recorded: Callable[[Node], str]
    with_record: Callable[[Node, str], Node]

    def handle(self, node: NodeName) -> HandleId:
        return HandleId(self.handle_prefix + node)

    def attributes(self, node: NodeName) -> Mapping[str, str]:
        return {"node": node, "type": self.attribute}

    def is_ours(self, allocation: Allocation, node: NodeName) -> bool:
        """Whether an allocation is this tunnel's: under its handle, or with its attributes."""
        if allocation.cooling:
            return False
        attributes = allocation.attributes
        return allocation.handle == self.handle(node) or (
            attributes.get("type") == self.attribute and attributes.get("node") == node
        )


def _with_ipip(node: Node, text: str) -> Node:
    bgp = msgspec.structs.replace(node.spec.bgp or NodeBGPSpec(), ipv4_ipip_tunnel_addr=text)
    # an empty spec.bgp is refused
    return _with_spec(node, bgp=None if bgp == NodeBGPSpec() else bgp)


def _with_spec(node: Node, **members: object) -> Node:
    return msgspec.structs.replace(node, spec=msgspec.structs.replace(node.spec, **members))


def _mac(node: Node, address: str, recorded: str, version: int) -> str:
    """Return the MAC to be recorded beside a tunnel address, or beside none; one that somebody chose stays."""
    ours = tunnel_mac(node.name, version)
    if address:
        return recorded or ours
    return "" if recorded == ours else recorded


IPIP = TunnelKind(
    name="ipip",
    version=4,
    member="spec.bgp.ipv4IPIPTunnelAddr",
    handle_prefix="ipip-tunnel-addr-",
    attribute="ipipTunnelAddress",
    mode=lambda spec: spec.ipip_mode,
    recorded=lambda node: node.spec.bgp.ipv4_ipip_tunnel_addr if node.spec.bgp else "",
    with_record=_with_ipip,
)
VXLAN = TunnelKind(
    name="vxlan",
    version=4,
    member="spec.ipv4VXLANTunnelAddr",
    handle_prefix="vxlan-tunnel-addr-",
    attribute="vxlanTunnelAddress",
    mode=lambda spec: spec.vxlan_mode,
    recorded=lambda node: node.spec.ipv4_vxlan_tunnel_addr,
    with_record=lambda node, text: _with_spec(
        node, ipv4_vxlan_tunnel_addr=text, vxlan_tunnel_mac_addr=_mac(node, text, node.spec.vxlan_tunnel_mac_addr, 4)
    ),
)
VXLAN6 = TunnelKind(
    name="vxlan-v6",
    version=6,
    member="spec.ipv6VXLANTunnelAddr",
    handle_prefix="vxlan-v6-tunnel-addr-",
    attribute="vxlanV6TunnelAddress",
    mode=lambda spec: spec.vxlan_mode,
    recorded=lambda node: node.spec.ipv6_vxlan_tunnel_addr,
    with_record=lambda node, text: _with_spec(
        node,
        ipv6_vxlan_tunnel_addr=text,
        vxlan_tunnel_mac_addr_v6=_mac(node, text, node.spec.vxlan_tunnel_mac_addr_v6, 6),
    ),
)
KINDS = (IPIP, VXLAN, VXLAN6)


@dataclass(frozen=True, slots=True)
class Sources:
    """The pools of a kind for this node: `usable` to take from, `closed` are disabled and only keep what they gave."""

    usable: tuple[IPNetwork, ...] = ()
    closed: tuple[IPNetwork, ...] = ()

    @property
    def is_wanted(self) -> bool:
        """Whether this node needs an address of the kind."""
        return bool(self.usable or self.closed)

    def may_keep(self, address: IPAddress) -> bool:
        """Whether an address may stay: a disabled pool's only while no other pool could give one.

        The containers of a disabled pool still travel by its tunnels.
        """
        return any(address in network for network in self.usable or self.closed)


def sources(kind: TunnelKind, pools: Iterable[IPPool], labels: Mapping[str, str]) -> Sources:
    """Return the pools that have tunnels of this kind and select a node with these labels, by name.

    A pool that is used only when it is asked for (``assignmentMode: Manual``) is taken if there is no other.
    """
    found = [pool for pool in sorted(pools, key=lambda pool: pool.metadata.name) if _has(kind, pool, labels)]
    usable = [pool for pool in found if not pool.spec.disabled]
    automatic = [pool for pool in usable if pool.spec.assignment_mode != "Manual"]
    return Sources(
        usable=tuple(pool.network for pool in automatic or usable),
        closed=tuple(pool.network for pool in found if pool.spec.disabled),
    )


def _has(kind: TunnelKind, pool: IPPool, labels: Mapping[str, str]) -> bool:
    spec = pool.spec
    if kind.mode(spec) in ("", "Never") or pool.network.version != kind.version or USE not in spec.allowed_uses:
        return False
    try:
        return parse(spec.node_selector or "all()").matches(labels)
    except SelectorError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do for one tunnel, in this order: release `before`, take, record, release `after`.

    `address` is ours already. Without one, `takes` says that one is to be taken: `exactly` this if it is still free,
    else any. Then the record is to say what there is, or nothing.
    """

    address: IPAddress | None = None
    takes: bool = False
    exactly: IPAddress | None = None
    before: tuple[Release, ...] = ()
    after: tuple[Release, ...] = ()
    trouble: str = ""
    """Why there is no address although one is wanted."""


def decide(
    kind: TunnelKind,
    node: NodeName,
    wanted: Sources,
    recorded: str,
    held: Sequence[Allocation],
    at_recorded: Allocation | None,
) -> Plan:
    """Return what is to be done.

    Args:
        recorded: the address in the Node record as it stands there; it may be no address at all.
        held: what the tunnel's handle holds.
        at_recorded: who holds the recorded address; None if nobody does.
    """
    ours = {found.address: found for found in held}
    address = _parsed(recorded, kind.version)
    if at_recorded is not None and kind.is_ours(at_recorded, node):
        ours[at_recorded.address] = at_recorded
    if not wanted.is_wanted:
        return Plan(after=_releases(ours.values()))
    kept = _kept(address, ours, wanted)
    if kept is not None:
        return Plan(address=kept, after=_releases(found for found in ours.values() if found.address != kept))
    after = _releases(ours.values())
    if not wanted.usable:
        pools = ", ".join(map(str, wanted.closed))
        return Plan(after=after, trouble=f"all pools that could give an address are disabled: {pools}")
    exactly = address if address is not None and any(address in network for network in wanted.usable) else None
    if at_recorded is None:
        return Plan(takes=True, exactly=exactly, after=after)
    if _is_nameless(at_recorded):
        return Plan(takes=True, exactly=exactly, before=_releases([at_recorded]), after=after)
    return Plan(takes=True, after=after)


def _parsed(text: str, version: int) -> IPAddress | None:
    try:
        address = parse_address(text)
    except ValueError:
        return None
    return address if address.version == version else None


def _kept(recorded: IPAddress | None, ours: Mapping[IPAddress, Allocation], wanted: Sources) -> IPAddress | None:
    """Return the recorded address if it is ours and well placed, else one that was taken and not recorded yet."""
    good = [address for address in ours if wanted.may_keep(address)]
    return recorded if recorded in good else min(good, key=int, default=None)


def _is_nameless(allocation: Allocation) -> bool:
    """Whether it was allocated by a Calico so old that its tunnel addresses had no handle; containers' always had."""
    return allocation.handle is None and not allocation.attributes and not allocation.cooling


def _releases(allocations: Iterable[Allocation]) -> tuple[Release, ...]:
    """Return the releases of just these allocations: of an address that somebody else holds by then it is refused."""
    return tuple(
        Release(found.address, handle=found.handle, sequence=found.sequence or None)
        for found in sorted(allocations, key=lambda found: int(found.address))
    )
