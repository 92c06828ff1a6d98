"""Carries out what `tunnels` decides for one node: reads the record and the allocations, takes, records, releases."""

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from calicoctl.node.agent.tunnels import USE, Plan, Sources, TunnelKind, decide
from ipam.errors import AddressInUse, AffinityHeld, NotInPool, ReleaseRefused
from ipam.port import AddressAllocator
from ipam.results import Allocation, Release
from resources.datastore.client import ResourceClient
from resources.errors import DoesNotExist, UpdateConflict
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.names import IPAddress, NodeName, parse_address

_TRIES = 4


class _RecordMoved(Exception):
    """Somebody else wrote the address while it was being decided about."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How a tunnel's address stands after a look: what the Node says now, and why there is none although it should."""

    address: IPAddress | None
    trouble: str = ""


class Keeper:
    """Keeps the tunnel addresses of one node. Every call may raise CalicoError; a repeat sets right what was begun."""

    def __init__(self, node: NodeName, client: ResourceClient, allocator: AddressAllocator) -> None:
        self._node, self._client, self._allocator = node, client, allocator
        self._log = structlog.get_logger().bind(part="tunnels")

    def settle(self, kind: TunnelKind, wanted: Sources) -> Kept:
        """Make record and allocation of one tunnel what they should be.

        Raises:
            CalicoError: it could not be finished; what is done so far is harmless.
        """
        for _ in range(_TRIES):
            recorded = kind.recorded(self._client.get(NODE, self._node))
            plan = decide(kind, self._node, wanted, recorded, self._held(kind), self._at(kind, recorded))
            try:
                return self._carry_out(kind, wanted, recorded, plan)
            except _RecordMoved:
                continue
        raise UpdateConflict(f"update conflict: {NODE.label(self._node)}: others keep changing {kind.member}")

    # --- what is there -----------------------------------------------------------------------------------------------

    def _held(self, kind: TunnelKind) -> list[Allocation]:
        addresses = self._allocator.addresses_of_handle(kind.handle(self._node))
        return [found for address in addresses if (found := self._allocator.attributes(address)) is not None]

    def _at(self, kind: TunnelKind, recorded: str) -> Allocation | None:
        try:
            address = parse_address(recorded)
        except ValueError:
            return None
        return self._allocator.attributes(address) if address.version == kind.version else None

    # --- what is done ------------------------------------------------------------------------------------------------

    def _carry_out(self, kind: TunnelKind, wanted: Sources, recorded: str, plan: Plan) -> Kept:
        self._release(kind, plan.before)
        address = self._take(kind, wanted, plan) if plan.takes else plan.address
        text = "" if address is None else str(address)
        if text != recorded:
            try:
                self._record(kind, recorded, text)
            except DoesNotExist:
                if plan.takes and address is not None:  # the node was removed meanwhile, and with it what it had
                    self._release(kind, [Release(address, handle=kind.handle(self._node))])
                raise
            self._log.info(
                "tunnel.address_recorded", tunnel=kind.name, address=text or "none", before=recorded or "none",
                reason=_reason(wanted, recorded, plan),
            )
        self._release(kind, plan.after)
        return Kept(address, plan.trouble)

    def _take(self, kind: TunnelKind, wanted: Sources, plan: Plan) -> IPAddress:
        handle, attributes = kind.handle(self._node), kind.attributes(self._node)
        if plan.exactly is not None:
            try:
                self._allocator.assign(plan.exactly, handle=handle, attributes=attributes)
                return plan.exactly
            except (AddressInUse, AffinityHeld, NotInPool):
                pass  # somebody was faster, or the block is another node's: any other will do
        taken = self._allocator.auto_assign(
            version=kind.version, pools=wanted.usable, handle=handle, attributes=attributes, use=USE
        )
        return taken.one()

    def _record(self, kind: TunnelKind, before: str, text: str) -> None:
        def changed(node: Node) -> Node:
            if kind.recorded(node) != before:
                raise _RecordMoved
            return kind.with_record(node, text)

        self._client.modify(NODE, self._node, changed)

    def _release(self, kind: TunnelKind, releases: Iterable[Release]) -> None:
        for release in releases:
            try:
                self._allocator.release([release])
                self._log.info("tunnel.address_released", tunnel=kind.name, address=str(release.address))
            except ReleaseRefused as error:  # somebody else's by now
                self._log.warning("tunnel.address_not_released", tunnel=kind.name, reason=str(error))


def _reason(wanted: Sources, recorded: str, plan: Plan) -> str:
    if not wanted.is_wanted:
        return "no pool wants it any more"
    if plan.trouble:
        return plan.trouble
    return "the record and the allocation disagreed, or the pool has gone" if recorded else "a pool wants it"
