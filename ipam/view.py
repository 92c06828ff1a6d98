"""What a source holds, decoded: settings, pools, blocks, tickets and handles, each with its revision."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

import msgspec

from ipam import affinity as affinity_form
from ipam import block as block_form
from ipam import config as config_form
from ipam import handle as handle_form
from ipam import pools as pool_form
from ipam.affinity import AffinityState
from ipam.block import Block
from ipam.config import IPAMConfig
from ipam.errors import BlockUnreadable
from ipam.handle import Handle
from ipam.pools import Pool
from ipam.ranges import Ranges, of_networks
from ipam.source import Source
from resources.codec import BadRecord
from resources.datastore import keys
from resources.datastore.store import ABSENT, KeyValue
from resources.names import HandleId, IPNetwork, NodeName, parse_network

RESERVATIONS_PREFIX = keys.kind_prefix("ipreservations")
T = TypeVar("T")

_block_of_key = lru_cache(maxsize=1 << 16)(keys.parse_block_key)
_key_of_block = lru_cache(maxsize=1 << 16)(keys.block_key)
_owner_of_key = lru_cache(maxsize=1 << 12)(keys.parse_affinity_key)


class Report(Protocol):
    """Tells the operator of something that was skipped or is noteworthy: an event in the past, facts as keys."""

    def __call__(self, event: str, **facts: object) -> None: ...


def report_nothing(event: str, **facts: object) -> None:
    """Ignore it: for callers that have another way to see it."""


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """What a key says and the revision to compare when it is written; `value` None: as good as absent."""

    key: str
    revision: int
    value: T | None


class _Labelled(msgspec.Struct):
    labels: dict[str, str] | None = None


class _NodeDocument(msgspec.Struct):
    metadata: _Labelled = msgspec.field(default_factory=_Labelled)


class _ReservationSpec(msgspec.Struct, rename="camel"):
    reserved_cidrs: list[str] | None = msgspec.field(name="reservedCIDRs", default=None)


class _ReservationDocument(msgspec.Struct):
    spec: _ReservationSpec = msgspec.field(default_factory=_ReservationSpec)


class DecodedBlocks:
    """Blocks by the record they were read from; the latest of each key, of the keys used last."""

    def __init__(self, most: int = 256) -> None:
        self._most = most
        self._blocks: OrderedDict[str, tuple[KeyValue, Block]] = OrderedDict()

    def get(self, record: KeyValue) -> Block | None:
        known = self._blocks.get(record.key)
        if known is None or known[0] != record:
            return None
        self._blocks.move_to_end(record.key)
        return known[1]

    def put(self, record: KeyValue, block: Block) -> None:
        self._blocks[record.key] = record, block
        self._blocks.move_to_end(record.key)
        if len(self._blocks) > self._most:
            self._blocks.popitem(last=False)


class View:
    """Reads through a source. `now` decides what has cooled down and how old a claim is."""

    def __init__(
        self, source: Source, now: Callable[[], datetime], report: Report = report_nothing,
        epoch: Callable[[], int] = lambda: 0, decoded: DecodedBlocks | None = None,
    ) -> None:
        self.source = source
        self._epoch, self._began = epoch, epoch()
        self._now = now
        self._report = report
        self._decoded = DecodedBlocks() if decoded is None else decoded
        self._config: tuple[KeyValue | None, Stored[IPAMConfig]] | None = None

    def has_lapsed(self) -> bool:
        """Whether the store lost history since the last call; if so, everything read before is forgotten."""
        began, self._began = self._began, self._epoch()
        if began == self._began:
            return False
        self.source.forget()
        return True

    # --- settings

    def config(self) -> Stored[IPAMConfig]:
        """Return the settings in force. Raises IPAMConfigInvalid."""
        record = self.source.get(keys.IPAM_CONFIG)
        if self._config is not None and self._config[0] is record:
            return self._config[1]
        if record is None:
            config = Stored(keys.IPAM_CONFIG, ABSENT, config_form.DEFAULTS)
        else:
            config = Stored(record.key, record.revision, config_form.decode(record.value))
        self._config = record, config
        return config

    def settings(self) -> IPAMConfig:
        return self.config().value or config_form.DEFAULTS

    def pools(self) -> tuple[Pool, ...]:
        """Return all pools that can be read, by name; the others are reported."""
        found = []
        for record in self.source.list(pool_form.PREFIX):
            try:
                found.append(pool_form.decode(record))
            except BadRecord as error:
                self._report("pool.skipped", key=record.key, revision=record.revision, reason=str(error))
        return tuple(found)

    def reservations(self, version: int) -> Ranges:
        """Return the addresses that are never assigned by themselves."""
        return of_networks(network for network in self._reserved() if network.version == version)

    def _reserved(self) -> Iterable[IPNetwork]:
        for record in self.source.list(RESERVATIONS_PREFIX):
            try:
                texts = msgspec.json.decode(record.value, type=_ReservationDocument).spec.reserved_cidrs or []
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._report("reservation.skipped", key=record.key, revision=record.revision, reason=str(error))
                continue
            faults = []
            for text in filter(None, map(str.strip, texts)):
                try:
                    yield parse_network(text)
                except ValueError as error:
                    faults.append(str(error))
            if faults:
                reason = "; ".join(faults)
                self._report("reservation.skipped", key=record.key, revision=record.revision, reason=reason)

    def labels(self, node: NodeName) -> Mapping[str, str] | None:
        """Return a node's labels; None if there is no such node."""
        record = self.source.get(keys.kind_prefix("nodes") + node)
        if record is None:
            return None
        try:
            return msgspec.json.decode(record.value, type=_NodeDocument).metadata.labels or {}
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._report("node.unreadable", key=record.key, revision=record.revision, reason=str(error))
            return {}

    # --- blocks

    def block(self, cidr: IPNetwork) -> Stored[Block]:
        """Return a block as it counts now: what has cooled down is free. Raises BlockUnreadable."""
        key = _key_of_block(cidr)
        record = self.source.get(key)
        if record is None:
            return Stored(key, ABSENT, None)
        block = self._decoded.get(record)
        if block is None:
            block = self._read_block(cidr, record)
            self._decoded.put(record, block)
        if block.deleted:
            return Stored(key, record.revision, None)
        if b"releasedAt" in record.value:
            block = block.swept(self._now(), self.settings().cooldown_seconds)
        return Stored(key, record.revision, block)

    def remember(self, record: KeyValue, block: Block) -> None:
        """Take note that this is what a record says: we wrote it."""
        self._decoded.put(record, block)

    def _read_block(self, cidr: IPNetwork, record: KeyValue) -> Block:
        try:
            return block_form.decode(cidr, record.value)
        except BlockUnreadable as error:
            self._report("block.skipped", key=record.key, revision=record.revision, reason=error.reason)
            raise

    def readable_block(self, cidr: IPNetwork) -> Block | None:
        """Return a block, None also for one that cannot be read."""
        try:
            return self.block(cidr).value
        except BlockUnreadable:
            return None

    def block_cidrs(self, version: int) -> list[IPNetwork]:
        """Return all blocks there are, in key order."""
        found = (_block_of_key(record.key) for record in self.source.list(keys.blocks_prefix(version)))
        return [cidr for cidr in found if cidr is not None]

    # --- tickets and handles

    def tickets(self, node: NodeName, version: int) -> dict[IPNetwork, Stored[AffinityState]]:
        """Return a node's tickets of one version, in key order."""
        found: dict[IPNetwork, Stored[AffinityState]] = {}
        for record in self.source.list(keys.affinities_prefix(node, version)):
            parsed = _owner_of_key(record.key)
            if parsed is not None:
                found[parsed[1]] = Stored(record.key, record.revision, affinity_form.decode(record.value))
        return found

    def all_tickets(self, node: NodeName | None = None) -> list[tuple[NodeName, IPNetwork]]:
        """Return the tickets of both versions, of one node or of all, in key order."""
        parsed = (_owner_of_key(record.key) for record in self.source.list(keys.affinities_prefix(node)))
        return [owned for owned in parsed if owned is not None]

    def ticket(self, node: NodeName, cidr: IPNetwork) -> Stored[AffinityState]:
        key = keys.affinity_key(node, cidr)
        record = self.source.get(key)
        return Stored(key, record.revision, affinity_form.decode(record.value)) if record else Stored(key, ABSENT, None)

    def handle(self, handle: HandleId) -> Stored[Handle]:
        key = keys.handle_key(handle)
        record = self.source.get(key)
        return Stored(key, record.revision, handle_form.decode(record.value)) if record else Stored(key, ABSENT, None)
