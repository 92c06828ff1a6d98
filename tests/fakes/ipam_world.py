"""A store with pools and nodes for tests of IPAM, allocators on it, and what must hold in it at all times."""

import ipaddress
import json
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from fakes.clock import ManualClock
from ipam import audit
from ipam import block as block_form
from ipam.allocator import Allocator
from ipam.audit import Audit, Kind
from ipam.block import Block
from ipam.session import SourceFactory
from resources.datastore import keys
from resources.datastore.memory import MemoryStore
from resources.datastore.store import KeyValue, Outcome, Snapshot, Store, Transaction, Watch
from resources.names import HandleId, IPAddress, IPNetwork, NodeName

EPOCH = 1795253600.0


class WorldClock(ManualClock):
    """A manual clock with a time of day that follows it, and can be set apart."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = EPOCH - self.now

    def time_ns(self) -> int:
        return int((self.now + self.offset) * 1e9)

    @property
    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.time_ns() // 10**9, UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """An allocation as the store has it."""

    handle: str | None
    attributes: Mapping[str, str]
    block_node: str | None


class World:
    """One store; pools and nodes are put into it as documents, allocators work on it."""

    def __init__(self, store: Store | None = None) -> None:
        self.clock = WorldClock()
        self.store: Store = store or MemoryStore(self.clock)
        self.reports: list[tuple[str, Mapping[str, object]]] = []

    # --- what operators write

    def put(self, key: str, value: bytes | str | Mapping[str, object]) -> None:
        raw = value if isinstance(value, bytes) else (value if isinstance(value, str) else json.dumps(value)).encode()
        self.store.commit(Transaction(puts={key: raw}))

    def delete(self, key: str) -> None:
        self.store.commit(Transaction(deletes=frozenset({key})))

    def pool(self, cidr: str, name: str = "", **spec: object) -> IPNetwork:
        """Create or change a pool; the name defaults to the CIDR's own."""
        name = name or cidr.replace(".", "-").replace(":", "-").replace("/", "-")
        self.put(keys.kind_prefix("ippools") + name, {
            "kind": "IPPool", "apiVersion": "projectcalico.org/v3", "metadata": {"name": name},
            "spec": {"cidr": cidr, **spec},
        })
        return ipaddress.ip_network(cidr)

    def remove_pool(self, name: str) -> None:
        self.delete(keys.kind_prefix("ippools") + name)

    def node(self, *names: str, **labels: str) -> None:
        for name in names:
            metadata = {"name": name, "labels": labels}
            self.put(keys.kind_prefix("nodes") + name, {"kind": "Node", "metadata": metadata, "spec": {}})

    def reserve(self, *cidrs: str, name: str = "kept") -> None:
        self.put(keys.kind_prefix("ipreservations") + name, {"spec": {"reservedCIDRs": list(cidrs)}})

    def config(self, **members: object) -> None:
        self.put(keys.IPAM_CONFIG, {"auto_allocate_blocks": True, **members})

    def allocator(
        self, node: str, store: Store | None = None, *, seconds: float = 8.0, source: SourceFactory | None = None
    ) -> Allocator:
        return Allocator(
            store or self.store, NodeName(node), clock=self.clock, rng=random.Random(node), deadline_seconds=seconds,
            report=lambda event, **facts: self.reports.append((event, facts)), source=source,
        )

    # --- what is in the store

    def ipam(self) -> dict[str, bytes]:
        """Return all of IPAM's keys without their common prefix."""
        return {kv.key.removeprefix(keys.IPAM): kv.value for kv in self.store.list(keys.IPAM).items}

    def blocks(self) -> dict[IPNetwork, Block]:
        found = {}
        for kv in self.store.list(keys.IPAM_BLOCKS).items:
            if (cidr := keys.parse_block_key(kv.key)) is not None:
                found[cidr] = block_form.decode(cidr, kv.value)
        return found

    def block(self, cidr: str) -> Block:
        return self.blocks()[ipaddress.ip_network(cidr)]

    def owners(self) -> dict[str, str | None]:
        """Return which node has which block."""
        return {str(cidr): block.node for cidr, block in self.blocks().items()}

    def held(self) -> dict[IPAddress, Held]:
        found = {}
        for block in self.blocks().values():
            for _, address, handle, attributes in audit.allocations(block):
                found[address] = Held(handle, attributes, block.node)
        return found

    def handles(self) -> dict[str, dict[str, int]]:
        prefix = keys.IPAM_HANDLES
        return {kv.key.removeprefix(prefix): json.loads(kv.value)["block"] for kv in self.store.list(prefix).items}

    # --- what must hold

    def audit(self) -> Audit:
        return audit.examine(audit.gather(self.store, self.clock.moment))

    def assert_sound(self, holders: Mapping[IPAddress, HandleId] | None = None, *, allow: frozenset[Kind] = frozenset()
                     ) -> None:
        """Assert the invariants of reference ipam.md 4.1 as the store shows them.

        `holders` says who was told that which address is theirs: nobody else and nothing more is allocated. Without
        it whoever is in the store holds what it says. `allow` names findings that the test brought about.
        """
        found = self.audit()
        tolerated = allow | {Kind.LEAKED}
        assert not [finding for finding in found.findings if finding.kind not in tolerated]
        held = self.held()
        assert all(h.handle or h.attributes.get("node") for h in held.values()), "an allocation is anonymous"
        if holders is not None:
            assert {address: h.handle for address, h in held.items()} == dict(holders)


class SteppedStore:
    """A store that runs something before the n-th call, reads included: a worker stopped there and resumed after."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.calls = 0
        self._actions: dict[int, Callable[[], object]] = {}

    def before(self, nth: int, action: Callable[[], object]) -> None:
        """Run `action` just before the n-th call from now; what it raises comes out of that call."""
        self._actions[self.calls + nth] = action

    def _step(self) -> None:
        self.calls += 1
        if action := self._actions.pop(self.calls, None):
            action()

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None:
        self._step()
        return self._store.get(key, timeout=timeout)

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        self._step()
        return self._store.list(prefix, timeout=timeout)

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:
        self._step()
        return self._store.commit(transaction, timeout=timeout)

    def watch(self, from_revisions: Mapping[str, int]) -> AbstractContextManager[Watch]:
        return self._store.watch(from_revisions)

    def epoch(self) -> int:
        return self._store.epoch()

    def close(self) -> None:
        self._store.close()
