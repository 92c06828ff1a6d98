"""Calico's own IPAM as it writes: one key at a time, with states in between (reference ipam.md 3, 4.2, 5.1).

Each operation is a coroutine that yields what it is about to ask of the store, so that it can be stopped before any of
its requests, for good or until others have done something. What the original does wrong (marked [X] there) is here
too, because what it leaves must be survived. Written from the reference alone: nothing of `ipam` is used.
"""

import ipaddress
import json
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import TypeVar

from resources.datastore.store import Committed, KeyValue, Store, Transaction

T = TypeVar("T")
Steps = Generator[str, None, T]
Document = dict[str, object]
Network = ipaddress.IPv4Network

IPAM = "/calico/ipam/v2/"
POOLS = "/calico/resources/v3/projectcalico.org/ippools/"
TRIES = 100


class Conflict(Exception):
    """A compare failed."""


class Refused(Exception):
    """The operation ends with an error."""


def finish(steps: Steps[T]) -> T:
    """Go on to the end and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def advance(steps: Steps[T], requests: int) -> bool:
    """Let it make some requests; return whether it still has one to make."""
    try:
        for _ in range(requests + 1):
            next(steps)
    except StopIteration:
        return False
    return True


class SteppedCalico:
    """One host's library."""

    def __init__(self, store: Store, host: str, time_ns: Callable[[], int]) -> None:
        self._store, self.host, self._time_ns = store, host, time_ns

    # --- requests, one key each

    def _get(self, key: str) -> Steps[KeyValue | None]:
        yield f"get {key}"
        return self._store.get(key)

    def _list(self, prefix: str) -> Steps[list[KeyValue]]:
        yield f"list {prefix}"
        return list(self._store.list(prefix).items)

    def _cas(self, key: str, revision: int, document: Document | None) -> Steps[None]:
        """Create (revision 0), update or delete a key; raise Conflict."""
        yield f"{'delete' if document is None else 'put'} {key}"
        value = None if document is None else json.dumps(document, separators=(",", ":")).encode()
        transaction = Transaction(
            expect={key: revision},
            puts={} if value is None else {key: value},
            deletes=frozenset({key}) if value is None else frozenset(),
        )
        if not isinstance(self._store.commit(transaction), Committed):
            raise Conflict(key)

    # --- names

    def _block_key(self, cidr: Network) -> str:
        return f"{IPAM}assignment/ipv4/block/{str(cidr).replace('/', '-')}"

    def _ticket_key(self, cidr: Network) -> str:
        return f"{IPAM}host/{self.host}/ipv4/block/{str(cidr).replace('/', '-')}"

    def _pools(self) -> Steps[list[tuple[Network, int]]]:
        found = []
        for kv in (yield from self._list(POOLS)):
            spec = json.loads(kv.value)["spec"]
            if not spec.get("disabled"):
                found.append((ipaddress.IPv4Network(spec["cidr"]), spec.get("blockSize", 26)))
        return found

    # --- assign

    def auto_assign(self, count: int, handle: str) -> Steps[list[str]]:
        """Assign from own blocks, then from new ones, then from others'."""
        pools = yield from self._pools()
        given: list[str] = []
        tickets = yield from self._list(f"{IPAM}host/{self.host}/ipv4/block/")
        for ticket in tickets:
            cidr = ipaddress.IPv4Network(ticket.key.rpartition("/")[2].replace("-", "/"))
            if len(given) < count and (yield from self._own(cidr)):
                given += yield from self._assign_from(cidr, count - len(given), handle, check=True)
        while len(given) < count:
            fresh = yield from self._claim_any(pools)
            if fresh is None:
                break
            given += yield from self._assign_from(fresh, count - len(given), handle, check=True)
        for pool, size in pools:
            for cidr in pool.subnets(new_prefix=size):
                if len(given) < count:
                    given += yield from self._assign_from(cidr, count - len(given), handle, check=False)
        return given

    def _claim_any(self, pools: list[tuple[Network, int]]) -> Steps[Network | None]:
        for _ in range(TRIES):
            blocks = {kv.key for kv in (yield from self._list(f"{IPAM}assignment/"))}
            all_blocks = [cidr for pool, size in pools for cidr in pool.subnets(new_prefix=size)]
            free = [cidr for cidr in all_blocks if self._block_key(cidr) not in blocks]
            if not free:
                return None
            cidr = free[sum(self.host.encode()) % len(free)]
            try:
                yield from self._cas(self._ticket_key(cidr), 0, {"state": "pending", "deleted": False})
            except Conflict:
                pass
            if (yield from self._own(cidr)):
                return cidr
        return None

    def _own(self, cidr: Network) -> Steps[bool]:
        """Get, create or confirm the block of a ticket; return whether it is ours."""
        for _ in range(TRIES):
            try:
                ticket = yield from self._get(self._ticket_key(cidr))
                if ticket is None:
                    return False
                block = yield from self._get(self._block_key(cidr))
                if block is not None and json.loads(block.value)["affinity"] != f"host:{self.host}":
                    yield from self._cas(ticket.key, ticket.revision, None)
                    return False
                state = json.loads(ticket.value)["state"] if ticket.value else "confirmed"
                if block is not None and state == "confirmed":
                    return True
                yield from self._cas(ticket.key, ticket.revision, {"state": "pending", "deleted": False})
                if block is None:
                    yield from self._cas(self._block_key(cidr), 0, self._empty(cidr))
                else:
                    document = json.loads(block.value)
                    document["sequenceNumber"] += 1
                    yield from self._cas(block.key, block.revision, document)
                ticket = yield from self._get(self._ticket_key(cidr))
                if ticket is not None:
                    yield from self._cas(ticket.key, ticket.revision, {"state": "confirmed", "deleted": False})
                    return True
            except Conflict:
                continue
        return False

    def _empty(self, cidr: Network) -> Document:
        size = cidr.num_addresses
        claimed = datetime.fromtimestamp(self._time_ns() // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "cidr": str(cidr), "affinity": f"host:{self.host}", "affinity_claim_time": claimed,
            "allocations": [None] * size, "unallocated": list(range(size)), "attributes": None,
            "sequenceNumber": self._time_ns(), "sequenceNumberForAllocation": {}, "deleted": False,
        }

    def _assign_from(self, cidr: Network, count: int, handle: str, *, check: bool) -> Steps[list[str]]:
        for _ in range(TRIES):
            kv = yield from self._get(self._block_key(cidr))
            if kv is None:
                return []
            block = json.loads(kv.value)
            if check and block["affinity"] != f"host:{self.host}":
                return []
            taken = block["unallocated"][:count]
            if not taken:
                return []
            entry = {"handle_id": handle, "secondary": {"node": self.host}}
            owners = block["attributes"] or []
            if entry not in owners:
                owners.append(entry)
            for ordinal in taken:
                block["allocations"][ordinal] = owners.index(entry)
                block["sequenceNumberForAllocation"][str(ordinal)] = block["sequenceNumber"]
            block["unallocated"] = block["unallocated"][len(taken) :]
            block["attributes"] = owners
            block["sequenceNumber"] += 1
            yield from self._count(handle, cidr, count)  # [X] what was asked for, not what was taken
            try:
                yield from self._cas(kv.key, kv.revision, block)
            except Conflict:
                yield from self._count(handle, cidr, -count)
                continue
            return [str(cidr[ordinal]) for ordinal in taken]
        return []

    def _count(self, handle: str, cidr: Network, change: int) -> Steps[None]:
        for _ in range(TRIES):
            kv = yield from self._get(f"{IPAM}handle/{handle}")
            counts: dict[str, int] = json.loads(kv.value)["block"] if kv else {}
            if change < 0 and counts.get(str(cidr), 0) < -change:
                return  # "tried to decrement by more": only logged
            counts[str(cidr)] = counts.get(str(cidr), 0) + change
            if not counts[str(cidr)]:
                del counts[str(cidr)]
            try:
                document: Document | None = {"block": counts, "deleted": False} if counts else None
                if kv is not None or document is not None:
                    yield from self._cas(f"{IPAM}handle/{handle}", kv.revision if kv else 0, document)
            except Conflict:
                continue
            return

    # --- release

    def release(self, addresses: list[str]) -> Steps[list[str]]:
        """Release addresses of any blocks of present pools; return those that were not allocated."""
        pools = yield from self._pools()
        unallocated = []
        for text in addresses:
            address = ipaddress.IPv4Address(text)
            pool = next(((p, size) for p, size in pools if address in p), None)
            cidr = None if pool is None else ipaddress.IPv4Network((int(address), pool[1]), strict=False)
            if cidr is None or not (yield from self._free(cidr, [int(address) - int(cidr[0])], None)):
                unallocated.append(text)
        return unallocated

    def release_by_handle(self, handle: str) -> Steps[None]:
        kv = yield from self._get(f"{IPAM}handle/{handle}")
        if kv is None:
            raise Refused(f"resource does not exist: IPAMHandleKey(id={handle})")
        for text in json.loads(kv.value)["block"]:
            yield from self._free(ipaddress.IPv4Network(text), None, handle)

    def _free(self, cidr: Network, ordinals: list[int] | None, handle: str | None) -> Steps[bool]:
        for _ in range(TRIES):
            kv = yield from self._get(self._block_key(cidr))
            if kv is None:
                return False  # [X] the handle keeps its count
            block = json.loads(kv.value)
            owners = block["attributes"] or []
            wanted = range(len(block["allocations"])) if ordinals is None else ordinals
            freed: dict[str, int] = {}
            for ordinal in wanted:
                index = block["allocations"][ordinal]
                if index is not None and (handle is None or owners[index].get("handle_id") == handle):
                    name = owners[index].get("handle_id")
                    freed[name] = freed.get(name, 0) + 1
                    block["allocations"][ordinal] = None
                    block["unallocated"].append(ordinal)
                    if handle is None:
                        block["sequenceNumberForAllocation"].pop(str(ordinal), None)  # [X] kept by handle
            if not freed:
                return False
            used = sorted({index for index in block["allocations"] if index is not None})
            block["attributes"] = [owners[index] for index in used]
            block["allocations"] = [None if i is None else used.index(i) for i in block["allocations"]]
            block["sequenceNumber"] += 1
            try:
                yield from self._cas(kv.key, kv.revision, None if not used and block["affinity"] is None else block)
            except Conflict:
                continue
            for name, count in freed.items():
                if name:
                    yield from self._count(name, cidr, -count)
            return True
        return False

    # --- giving up

    def give_up(self, cidr_text: str, *, must_be_empty: bool) -> Steps[bool]:
        """Release the affinity of one block."""
        cidr = ipaddress.IPv4Network(cidr_text)
        for _ in range(TRIES):
            ticket = yield from self._get(self._ticket_key(cidr))
            if ticket is None:
                return False
            kv = yield from self._get(self._block_key(cidr))
            if kv is None:
                return False  # [X] the ticket stays
            try:
                block = json.loads(kv.value)
                if block["affinity"] != f"host:{self.host}":
                    yield from self._cas(ticket.key, ticket.revision, None)
                    return False
                is_empty = all(index is None for index in block["allocations"])
                if must_be_empty and not is_empty:
                    return False
                yield from self._cas(ticket.key, ticket.revision, {"state": "pendingDeletion", "deleted": False})
                block["affinity"] = None
                block.pop("affinity_claim_time", None)
                block["sequenceNumber"] += 1
                yield from self._cas(kv.key, kv.revision, None if is_empty else block)
                ticket = yield from self._get(self._ticket_key(cidr))
                if ticket is not None:
                    yield from self._cas(ticket.key, ticket.revision, None)
            except Conflict:
                continue
            return True
        return False
