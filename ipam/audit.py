"""Does IPAM's data agree with itself and with what is in use? Leaks and mismatches, found and explained
(reference ipam.md 4.2, 7.3). Used by tests after every step, and by ``calicoctl ipam check``.

`gather` reads, `examine` judges (pure), `check` does both twice, because the store cannot be read at one moment: what
is only seen once was somebody at work.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from ipam import handle as handle_form
from ipam.affinity import AffinityState
from ipam.assign import is_kept_back
from ipam.block import Block
from ipam.errors import BlockUnreadable
from ipam.handle import Handle
from ipam.pools import Pool, containing, is_within
from ipam.source import ReadThrough
from ipam.view import Report, View, report_nothing
from resources import codec
from resources.datastore import keys
from resources.datastore.store import Store
from resources.kinds import node as node_kind
from resources.kinds import workloadendpoint as endpoint_kind
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, parse_address, parse_network


class Kind(enum.Enum):
    """What is wrong. The first six are counted as problems, as Calico's own check does; the others are for mending."""

    LEAKED = "allocated, but not in use"
    OUTSIDE_POOLS = "in use, but not in an active pool"
    UNALLOCATED = "in use, but not allocated"
    LEAKED_HANDLE = "handle without addresses"
    INVALID_BLOCK = "invalid block"
    OVERLAPPING_BLOCKS = "overlapping blocks"
    SHARED = "in use by several"
    MISSING_HANDLE = "handle without a record"
    MISCOUNTED_HANDLE = "handle with a wrong count"
    UNKNOWN_NODE = "block of a node that does not exist"
    STALE_TICKET = "ticket for a block that is not the node's"
    UNCONFIRMED_TICKET = "ticket not confirmed"
    MISSING_TICKET = "block without its node's ticket"
    STRAY_BLOCK = "block that fits no pool"

    @property
    def is_problem(self) -> bool:
        return self in _PROBLEMS


_PROBLEMS = frozenset((
    Kind.LEAKED, Kind.OUTSIDE_POOLS, Kind.UNALLOCATED, Kind.LEAKED_HANDLE, Kind.INVALID_BLOCK, Kind.OVERLAPPING_BLOCKS,
))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with `subject` (an address, a handle, a key), and the way out."""

    kind: Kind
    subject: str
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a check looks at. A block that cannot be read is the reason why, as text."""

    blocks: Mapping[IPNetwork, Block | str]
    pools: Sequence[Pool]
    nodes: frozenset[NodeName]
    tickets: Mapping[tuple[NodeName, IPNetwork], AffinityState]
    handles: Mapping[HandleId, Handle]
    users: Mapping[IPAddress, tuple[str, ...]]
    """Who uses an address: ``Workload(ns/name)`` or ``Node(name)``."""

    @property
    def readable(self) -> Iterator[Block]:
        return (block for block in self.blocks.values() if isinstance(block, Block))


@dataclass(frozen=True, slots=True)
class Audit:
    """The result: findings in order of kind and subject."""

    evidence: Evidence
    findings: tuple[Finding, ...]
    _by_kind: Mapping[Kind, tuple[Finding, ...]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        sorted_by_kind = {kind: tuple(f for f in self.findings if f.kind is kind) for kind in Kind}
        object.__setattr__(self, "_by_kind", sorted_by_kind)

    def of(self, kind: Kind) -> tuple[Finding, ...]:
        return self._by_kind[kind]

    @property
    def problems(self) -> int:
        """The number that ``calicoctl ipam check`` ends with."""
        return sum(finding.kind.is_problem for finding in self.findings)


# --- reading -----------------------------------------------------------------------------------------------------


def check(store: Store, now: datetime, report: Report = report_nothing) -> Audit:
    """Read everything and judge it; what is not found again on a second reading is not told."""
    audit = examine(gather(store, now, report))
    if not audit.findings:
        return audit
    again = examine(gather(store, now))
    seen = {(finding.kind, finding.subject) for finding in audit.findings}
    return Audit(again.evidence, tuple(f for f in again.findings if (f.kind, f.subject) in seen))


def gather(store: Store, now: datetime, report: Report = report_nothing) -> Evidence:
    """Read what a check looks at: allocations before their users, so that an address being set up is no leak."""
    view = View(ReadThrough(store), lambda: now, report)
    blocks: dict[IPNetwork, Block | str] = {}
    handle_records = store.list(keys.IPAM_HANDLES).items
    for version in (4, 6):
        for cidr in view.block_cidrs(version):
            try:
                block = view.block(cidr).value
            except BlockUnreadable as error:
                blocks[cidr] = error.reason
            else:
                if block is not None:
                    blocks[cidr] = block
    tickets = {}
    for node, cidr in view.all_tickets():
        if (state := view.ticket(node, cidr).value) is not None:
            tickets[node, cidr] = state
    handles = {}
    for record in handle_records:
        name = keys.parse_handle_key(record.key)
        handle = handle_form.decode(record.value)
        if name is not None and handle is not None:
            handles[name] = handle
    nodes = frozenset(
        NodeName(record.key.rpartition("/")[2]) for record in store.list(keys.kind_prefix("nodes")).items
    )
    return Evidence(
        blocks=blocks, pools=view.pools(), nodes=nodes, tickets=tickets, handles=handles, users=users(store, report)
    )


def users(store: Store, report: Report = report_nothing) -> dict[IPAddress, tuple[str, ...]]:
    """Return who uses which address: workload endpoints, and nodes for their tunnels."""
    found: dict[IPAddress, list[str]] = {}
    prefix = keys.kind_prefix(endpoint_kind.KIND.plural)
    for record in store.list(prefix).items:
        namespace, _, name = record.key.removeprefix(prefix).partition("/")
        key = keys.ResourceKey(endpoint_kind.KIND.plural, name, namespace)
        try:
            endpoint = codec.decode(endpoint_kind.KIND, record.value, record.revision, key).resource
        except codec.BadRecord as error:
            report("endpoint.skipped", key=record.key, revision=record.revision, reason=str(error))
            continue
        for text in endpoint.spec.ip_networks:
            found.setdefault(parse_network(text).network_address, []).append(f"Workload({namespace}/{name})")
    for record in store.list(keys.kind_prefix(node_kind.KIND.plural)).items:
        name = record.key.rpartition("/")[2]
        for text in _tunnel_addresses(record.value):
            try:
                found.setdefault(parse_address(text), []).append(f"Node({name})")
            except ValueError as error:
                report("node.unreadable", key=record.key, revision=record.revision, reason=str(error))
    return {address: tuple(sorted(set(who))) for address, who in found.items()}


def _tunnel_addresses(value: bytes) -> Iterator[str]:
    try:
        spec = msgspec.json.decode(value, type=node_kind.Node).spec
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    wireguard = spec.wireguard or node_kind.NodeWireguard()
    yield from filter(None, (
        spec.bgp.ipv4_ipip_tunnel_addr if spec.bgp else "", spec.ipv4_vxlan_tunnel_addr, spec.ipv6_vxlan_tunnel_addr,
        wireguard.interface_ipv4_address, wireguard.interface_ipv6_address,
    ))


# --- judging -----------------------------------------------------------------------------------------------------


def examine(evidence: Evidence) -> Audit:
    """Judge what was read; pure."""
    order = list(Kind)
    findings = (*_addresses(evidence), *_handles(evidence), *_blocks(evidence), *_tickets(evidence))
    return Audit(evidence, tuple(sorted(findings, key=lambda f: (order.index(f.kind), f.subject))))


def allocations(block: Block) -> Iterator[tuple[int, IPAddress, str | None, Mapping[str, str]]]:
    """Yield ordinal, address, handle and attributes of what somebody holds: not cooling, not a Windows host's own."""
    for ordinal in range(block.capacity):
        owner = block.owner(ordinal)
        if owner is not None and owner.released_at is None and not is_kept_back(owner):
            yield ordinal, block.address(ordinal), owner.handle, owner.attributes


def described(handle: str | None, attributes: Mapping[str, str]) -> str:
    """Return whose an allocation is, as Calico's check prints it."""
    extra = ",".join(f"{name}={text}" for name, text in sorted(attributes.items()))
    return f"attrs Main:{handle or '<none>'} Extra:{extra}"


def _addresses(evidence: Evidence) -> Iterator[Finding]:
    active = [pool for pool in evidence.pools if not pool.disabled]
    held: dict[IPAddress, str] = {}
    for block in evidence.readable:
        for _, address, handle, attributes in allocations(block):
            held[address] = described(handle, attributes)
    for address, attrs in held.items():
        if address not in evidence.users:
            yield Finding(Kind.LEAKED, str(address), f"{address} leaked; {attrs}",
                          f"if nothing uses it: calicoctl ipam release --ip={address}")
    for address, who in evidence.users.items():
        owners = ", ".join(who)
        if len(who) > 1:
            yield Finding(Kind.SHARED, str(address), f"{address} has multiple owners.",
                          f"{owners}: remove all of them but one")
        if containing(active, address) is None:
            yield Finding(Kind.OUTSIDE_POOLS, str(address),
                          f"{address} in use by {owners} is not in any active IP pool.",
                          "enable or create a pool that contains it, or start that workload again")
        elif address not in held and not _is_unreadable(evidence, address):
            yield Finding(Kind.UNALLOCATED, str(address),
                          f"{address} in use by {owners} and in active IPAM pool but has no IPAM allocation.",
                          "start that workload again before the address is given to another")


def _is_unreadable(evidence: Evidence, address: IPAddress) -> bool:
    return any(isinstance(block, str) and address in cidr for cidr, block in evidence.blocks.items())


def _handles(evidence: Evidence) -> Iterator[Finding]:
    real: dict[str, Counter[IPNetwork]] = {}
    for block in evidence.readable:
        for _, _, holder, _ in allocations(block):
            if holder is not None:
                real.setdefault(holder.split("\r", 1)[0], Counter())[block.cidr] += 1
    unreadable = {cidr for cidr, block in evidence.blocks.items() if isinstance(block, str)}
    known = {handle.split("\r", 1)[0] for handle in evidence.handles}
    for handle_id, handle in evidence.handles.items():
        counts = {cidr: count for cidr, count in handle.counts.items() if cidr not in unreadable}
        truth = dict(real.get(handle_id.split("\r", 1)[0], {}))
        if not truth and len(counts) == len(handle.counts):
            yield Finding(Kind.LEAKED_HANDLE, handle_id, f"{handle_id} doesn't have any active IPs.",
                          "harmless; calicoctl ipam release --stale-handles removes all of these")
        elif counts != truth:
            yield Finding(Kind.MISCOUNTED_HANDLE, handle_id,
                          f"{handle_id} says {_counts(counts)}, blocks say {_counts(truth)}",
                          "harmless; it is put right when its addresses are released")
    for name in real.keys() - known:
        yield Finding(Kind.MISSING_HANDLE, name, f"{name} is in use in a block but doesn't exist.",
                      "harmless; its addresses can be released by address")


def _counts(counts: Mapping[IPNetwork, int]) -> str:
    return ", ".join(f"{count} of {cidr}" for cidr, count in sorted(counts.items(), key=str)) or "none"


def _blocks(evidence: Evidence) -> Iterator[Finding]:
    for cidr, block in evidence.blocks.items():
        key = keys.block_key(cidr)
        if isinstance(block, str):
            yield Finding(Kind.INVALID_BLOCK, key, f"IPAMBlock {key} is invalid: {block}",
                          "nothing is taken from it; restore it, or delete the key when no workload uses its addresses")
            continue
        for fault in block.faults():
            yield Finding(Kind.INVALID_BLOCK, key, f"IPAMBlock {key} is invalid: {fault}",
                          "the next assignment or release in it mends it")
        if block.node is not None and block.node not in evidence.nodes:
            yield Finding(Kind.UNKNOWN_NODE, key, f"{cidr} belongs to node {block.node}, which does not exist",
                          f"if that host is gone for good: calicoctl delete node {block.node}")
        pool = next((pool for pool in evidence.pools if is_within(cidr, pool.network)), None)
        if pool is None or not pool.has_block(cidr):
            why = "it is in no pool" if pool is None else f"the blocks of pool {pool.name} are /{pool.block_size}"
            yield Finding(Kind.STRAY_BLOCK, key, f"{cidr} is not used for new addresses: {why}",
                          "it goes when its last address is released and its node gives it up")
    yield from _overlaps(evidence.blocks)


def _overlaps(blocks: Iterable[IPNetwork]) -> Iterator[Finding]:
    ordered = sorted(blocks, key=lambda cidr: (cidr.version, int(cidr[0]), cidr.prefixlen))
    widest: IPNetwork | None = None
    for cidr in ordered:
        if widest is not None and widest.version == cidr.version and int(cidr[0]) <= int(widest[-1]):
            yield Finding(Kind.OVERLAPPING_BLOCKS, keys.block_key(cidr), f"{cidr} lies in the block {widest}",
                          "an address could be given twice: release what is in the smaller block, then delete its key")
        else:
            widest = cidr


def _tickets(evidence: Evidence) -> Iterator[Finding]:
    for (node, cidr), state in evidence.tickets.items():
        key, block = keys.affinity_key(node, cidr), evidence.blocks.get(cidr)
        whose = None
        if block is None:
            whose = "does not exist"
        elif isinstance(block, Block) and block.node != node:
            whose = f"belongs to {block.affinity or 'nobody'}"
        if whose is not None:
            yield Finding(Kind.STALE_TICKET, key, f"{node} has a ticket for {cidr}, which {whose}",
                          "no route is made from it; the node's agent removes it, or calicoctl with the node")
        elif state is not AffinityState.CONFIRMED:
            yield Finding(Kind.UNCONFIRMED_TICKET, key, f"the ticket of {node} for {cidr} is {state.value}",
                          "no route is made from it; the node's next assignment confirms it")
    for block in evidence.readable:
        if block.node is not None and (block.node, block.cidr) not in evidence.tickets:
            key = keys.block_key(block.cidr)
            yield Finding(Kind.MISSING_TICKET, key, f"{block.node} has no ticket for its block {block.cidr}",
                          "no route is made for it; the node takes a new one when it needs the block")

