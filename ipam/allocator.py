"""The allocator of one node: the public face of this package (see `ipam.port` for what each call means).

Every change is planned on what was read, and is one transaction that compares all it was planned on. So a crash
leaves the store as it was or as it should be, never in between, and correctness never rests on what was read being
fresh (reference ipam.md 4.1, 5.2).
"""

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from ipam import config as config_form
from ipam.assigner import Assigner, Job
from ipam.block import Owner
from ipam.config import IPAMConfig
from ipam.handle import new_handle
from ipam.ownership import Ownership, locate
from ipam.pools import containing, key_of
from ipam.port import NO_ATTRIBUTES
from ipam.releaser import Releaser
from ipam.results import AffinityClaims, Allocation, Assignment, PoolUse, Release
from ipam.session import Attempts, Clock, Session, SourceFactory
from ipam.tidy import NO_MARKS, Marks, Tidied, superfluous
from ipam.usage import utilization
from ipam.view import Report, report_nothing
from resources.datastore.store import Committed, KeyValue, Lost, Store, Transaction, Unknown
from resources.errors import ConfigurationError, DoesNotExist, StoreUnavailable, UpdateConflict
from resources.gotext import escaped
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, PoolName

DEADLINE_SECONDS = 8.0
"""Docker waits longer, people do not."""


class Allocator:
    """Implements `ipam.port.AddressAllocator` for `node` on a store.

    `report` is told of records that were skipped and of borrowing. `source` gives each call what it reads from, such
    as `ipam.cache.WatchedCache.source`; by default every call reads for itself.
    """

    def __init__(
        self, store: Store, node: NodeName, *, clock: Clock | None = None, rng: random.Random | None = None,
        deadline_seconds: float = DEADLINE_SECONDS, report: Report = report_nothing,
        source: SourceFactory | None = None,
    ) -> None:
        _check_name(node, "a node name")
        self._session = Session(store, node, clock=clock, rng=rng, report=report, source=source)
        self._seconds = deadline_seconds
        self._ownership = Ownership(self._session, deadline_seconds)
        self._assigner = Assigner(self._session, self._ownership)
        self._releaser = Releaser(self._session, self._ownership)

    @property
    def waiting(self) -> int:
        """How many assignments wait for the store's answer to those before them."""
        return self._assigner.waiting

    # --- assign and release --------------------------------------------------------------------------------------

    def auto_assign(
        self, *, version: int, count: int = 1, pools: Sequence[IPNetwork] | None = None, handle: HandleId | None = None,
        attributes: Mapping[str, str] = NO_ATTRIBUTES, use: str = "Workload", timeout: float | None = None,
    ) -> Assignment:
        return self._assigner.run(self._job(
            version, handle, attributes, timeout, count=count, use=use, pools=None if pools is None else tuple(pools),
        ))

    def assign(
        self, address: IPAddress, *, handle: HandleId | None = None, attributes: Mapping[str, str] = NO_ATTRIBUTES,
        timeout: float | None = None,
    ) -> HandleId:
        return self._assigner.run(self._job(address.version, handle, attributes, timeout, address=address)).handle

    def _job(
        self, version: int, handle: HandleId | None, attributes: Mapping[str, str], timeout: float | None, *,
        count: int = 1, use: str = "Workload", pools: tuple[IPNetwork, ...] | None = None,
        address: IPAddress | None = None,
    ) -> Job:
        handle = new_handle() if handle is None else handle
        _check_name(handle, "an IPAM handle")
        owner = Owner(handle, {"node": self._session.node, **attributes})
        return Job(
            version=version, count=count, pools=pools, use=use, owner=owner, handle=handle,
            deadline=self._deadline(timeout), address=address,
        )

    def release(self, releases: Sequence[Release], *, timeout: float | None = None) -> list[IPAddress]:
        return self._releaser.release(releases, self._deadline(timeout))

    def release_by_handle(self, handle: HandleId, *, timeout: float | None = None) -> int:
        return self._releaser.release_handle(handle, self._deadline(timeout))

    def drop_empty_handle(self, handle: HandleId, *, timeout: float | None = None) -> bool:
        return self._releaser.drop_empty_handle(handle, self._deadline(timeout))

    def _deadline(self, timeout: float | None) -> float:
        return self._session.deadline(self._seconds if timeout is None else timeout)

    # --- look ----------------------------------------------------------------------------------------------------

    def addresses_of_handle(self, handle: HandleId) -> list[IPAddress]:
        view = self._session.fresh_view()
        known = view.handle(handle).value
        found: list[IPAddress] = []
        for cidr in known.counts if known else ():
            if (block := view.readable_block(cidr)) is not None:
                found += [block.address(o) for o in block.held_by(handle)]
        return sorted(found, key=lambda address: (address.version, address))

    def attributes(self, address: IPAddress) -> Allocation | None:
        view = self._session.fresh_view()
        _, block = locate(view, containing(view.pools(), address), address)
        owner = None if block is None else block.owner(block.ordinal(address))
        if block is None or owner is None:
            return None
        return Allocation(
            address=address, block=block.cidr, block_node=block.node, handle=owner.handle,
            attributes=owner.attributes, sequence=block.sequences.get(block.ordinal(address), 0),
            cooling=owner.released_at is not None,
        )

    def utilization(self, pools: Sequence[IPNetwork] | None = None) -> list[PoolUse]:
        return utilization(self._session.fresh_view(), pools)

    # --- settings ------------------------------------------------------------------------------------------------

    def configuration(self) -> IPAMConfig:
        """Return IPAM's settings, the defaults if none are stored. Raises IPAMConfigInvalid."""
        return self._session.fresh_view().settings()

    def configure(self, change: Callable[[IPAMConfig], IPAMConfig]) -> IPAMConfig:
        """Change IPAM's settings; equal ones are not written. `change` may be called again after a lost race.

        Raises:
            IPAMConfigInvalid: by `change` (see `ipam.config.changed`), or the stored ones cannot be read.
        """
        attempts = Attempts(self._session, self._deadline(None), "changing the IPAM settings")
        while True:
            try:
                old = self._session.fresh_view(attempts.timeout).config()
                assert old.value is not None
                new = change(old.value)
                if new == old.value:
                    return new
                transaction = Transaction(expect={old.key: old.revision}, puts={old.key: config_form.encode(new)})
                if _is_through(self._session.store, transaction, attempts):
                    return new
            except StoreUnavailable as error:
                attempts.failed(error)

    # --- ownership -----------------------------------------------------------------------------------------------

    def claim_affinity(self, cidr: IPNetwork, *, node: NodeName | None = None) -> AffinityClaims:
        return self._ownership.claim(cidr, self._node(node))

    def release_affinity(self, cidr: IPNetwork, node: NodeName | None = None, *, must_be_empty: bool = False) -> int:
        return self._ownership.give_up_range(cidr, self._node(node), must_be_empty=must_be_empty)

    def release_host_affinities(self, node: NodeName | None = None, *, must_be_empty: bool = False) -> int:
        return self._ownership.give_up_host(self._node(node), must_be_empty=must_be_empty)

    def release_pool_affinities(self, cidr: IPNetwork) -> int:
        return self._ownership.give_up_range(cidr, None, must_be_empty=False)

    def remove_host(self, node: NodeName) -> int:
        _check_name(node, "a node name")
        return self._ownership.give_up_host(node, must_be_empty=False)

    def tidy(self, before: Marks = NO_MARKS) -> Tidied:
        node = self._session.node
        claims, pools, labels = self._ownership.claims(node)
        if labels is None:
            return Tidied()
        now = superfluous(claims, pools, labels)
        given_up = [
            cidr
            for cidr, mark in now.items()
            if before.get(cidr) == mark and self._ownership.give_up_as_marked(cidr, node, mark)
        ]
        return Tidied(tuple(given_up), {cidr: mark for cidr, mark in now.items() if cidr not in given_up})

    def _node(self, node: NodeName | None) -> NodeName:
        node = self._session.node if node is None else node
        _check_name(node, "a node name")
        return node

    def delete_pool(self, name: PoolName, *, revision: int | None = None) -> None:
        """Delete a pool: disabled first, so that no claim can begin; then its blocks given up; then the record.

        A claim that was under way compares the pool and loses. Calico's own writers do not, so blocks are looked for
        once more at the end.
        """
        attempts = Attempts(self._session, self._deadline(None), f"deleting the pool {name}")
        record: KeyValue | None = self._disabled_pool(name, revision, attempts)
        network = next((p.network for p in self._session.fresh_view().pools() if p.name == name), None)
        if network is not None:
            self.release_pool_affinities(network)
        while record is not None:
            transaction = Transaction(expect={record.key: record.revision}, deletes=frozenset({record.key}))
            if _is_through(self._session.store, transaction, attempts):
                break
            record = self._session.store.get(record.key, timeout=attempts.timeout())
        if network is not None:
            self.release_pool_affinities(network)

    def _disabled_pool(self, name: PoolName, revision: int | None, attempts: Attempts) -> KeyValue:
        """Disable a pool if it is not disabled already; return its record."""
        while True:
            try:
                record = self._session.store.get(key_of(name), timeout=attempts.timeout())
                if record is None:
                    raise DoesNotExist(f"resource does not exist: IPPool({name})", pool=name)
                if revision is not None and record.revision != revision:
                    raise UpdateConflict(f"update conflict: IPPool({name})", pool=name)
                value = _disabled(record.value)
                if value == record.value:
                    return record
                transaction = Transaction(expect={record.key: record.revision}, puts={record.key: value})
                _is_through(self._session.store, transaction, attempts)
                revision = None
            except StoreUnavailable as error:
                attempts.failed(error)


def _is_through(store: Store, transaction: Transaction, attempts: Attempts) -> bool:
    """Commit; False: it has to be looked at again, after a pause."""
    match store.commit(transaction, timeout=attempts.timeout()):
        case Committed():
            return True
        case Lost():
            attempts.lost()
        case Unknown(reason):
            attempts.failed(StoreUnavailable(reason))
    return False


def _disabled(value: bytes) -> bytes:
    """Return a pool's record with ``disabled`` set; the rest as it is. A record that is no pool stays as it is."""
    try:
        document = msgspec.json.decode(value, type=dict[str, object])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return value
    spec = document.get("spec")
    if not isinstance(spec, dict) or spec.get("disabled") is True:
        return value
    spec["disabled"] = True
    return escaped(msgspec.json.encode(document))


def _check_name(name: str, what: str) -> None:
    """Refuse what cannot stand in a key (reference ipam.md 2.1)."""
    if not name or "/" in name:
        raise ConfigurationError(
            f"{name!r} cannot be {what}: it is put into keys of the store, so it must not be empty or contain '/'",
            hint="choose another name",
        )

