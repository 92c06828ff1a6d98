"""Typed resources in the store: create, update, apply, delete, get, list (reference resources.md 1.3, 1.5, 5.6).

Every write is a compare on the revision that was read. What a kind's rules need of the store (pools that overlap, a
policy's tier, what goes with a node) is in `rules`. Messages are those of the reference, 5.5.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic

import msgspec

from resources.codec import BadRecord, Stored, decode, encode, readable_document, with_metadata
from resources.datastore import rules
from resources.datastore.keys import ResourceKey, kind_prefix, parse_resource_key, resource_key
from resources.datastore.store import ABSENT, Committed, KeyValue, Lost, Store, Transaction, Unknown
from resources.errors import (
    AlreadyExists,
    DoesNotExist,
    OperationNotSupported,
    ReferenceMissing,
    Rejected,
    StoreUnavailable,
    UpdateConflict,
)
from resources.invalid import InvalidResource
from resources.kinds import problems_of
from resources.kinds.base import Kind, Metadata, Problem, R, Resource
from resources.kinds.clusterinformation import KIND as CLUSTER_INFORMATION
from resources.kinds.clusterinformation import NAME as CLUSTER_INFORMATION_NAME
from resources.kinds.clusterinformation import ClusterInformation, ClusterInformationSpec
from resources.kinds.fields import is_key_part
from resources.kinds.tier import DEFAULT_TIER, Tier
from resources.kinds.tier import KIND as TIER
from resources.runtime.backoff import Backoff, Clock, SystemClock


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """All readable resources of a kind, in the order of tables, at one revision of the store."""

    items: tuple[R, ...]
    revision: str
    bad: tuple[BadRecord, ...] = ()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ResourceClient:
    """Typed access to the store.

    `ipam` cleans up what belongs to a pool or a node when it is deleted; without it neither can be deleted.
    `settle_seconds` is how long a pool is disabled before its blocks are given back: time for allocators of the
    original, which do not compare the pool's revision, to finish.
    """

    def __init__(
        self,
        store: Store,
        *,
        ipam: rules.IpamCleanup | None = None,
        clock: Clock | None = None,
        now: Callable[[], datetime] = _utc_now,
        settle_seconds: float = 0.5,
    ) -> None:
        self.store = store
        self.ipam = ipam
        self.clock = clock or SystemClock()
        self.settle_seconds = settle_seconds
        self._now = now

    # --- reading

    def get(self, kind: Kind[R], name: str, namespace: str = "") -> R:
        """Return one resource.

        Raises:
            DoesNotExist: there is none of that name.
            BadRecord: it is there and cannot be read.
        """
        for special in rules.of(kind).synthetics():
            if special.metadata.name == name:
                return special
        _, stored = self._read(kind, name, namespace)
        return rules.of(kind).shown(stored.resource)

    def list(self, kind: Kind[R], namespace: str | None = None) -> Listing[R]:
        """Return all resources of a kind, of one namespace if it is given. Bad records are beside them."""
        prefix = kind_prefix(kind.plural) + (f"{namespace}/" if kind.namespaced and namespace else "")
        snapshot = self.store.list(prefix)
        items: list[R] = []
        bad: list[BadRecord] = []
        for key, item in _of_kind(kind, snapshot.items):
            try:
                items.append(rules.of(kind).shown(decode(kind, item.value, item.revision, key).resource))
            except BadRecord as error:
                bad.append(error)
        items.extend(rules.of(kind).synthetics())
        return Listing(tuple(sorted(items, key=kind.order)), str(snapshot.revision), tuple(bad))

    def readable(self, kind: Kind[R]) -> tuple[R, ...]:
        """Return all resources of a kind that can be read."""
        return self.list(kind).items

    def name_of_v1(self, kind: Kind[R], identifier: str) -> str:
        """Return the name of what v1 identifies on the command line: a pool by its CIDR, the others by name."""
        return rules.of(kind).name_of_v1(self, kind, identifier)

    def name_of(self, kind: Kind[R], resource: R, *, v1: bool = False) -> str:
        """Return the stored name of what a document identifies; a v1 pool is its CIDR, whatever its name is."""
        return rules.of(kind).identified(self, kind, resource) if v1 else resource.metadata.name

    # --- writing

    def create(self, kind: Kind[R], resource: R, *, v1: bool = False) -> R:
        """Write a new resource. With `v1` it came from a v1 document: identity and messages are those of v1.

        Raises:
            AlreadyExists, InvalidResource, OperationNotSupported, DoesNotExist (the tier of a policy).
        """
        self._refuse_read_only(kind, "create or apply")
        return self._create(kind, resource, v1)

    def update(self, kind: Kind[R], resource: R, *, v1: bool = False) -> R:
        """Replace spec, labels and annotations of a resource; what we do not know in it stays.

        With a resource version it must still be at that version; without one the last writer wins.

        Raises:
            DoesNotExist, UpdateConflict, InvalidResource, OperationNotSupported.
        """
        self._refuse_read_only(kind, "apply or replace")
        return self._update(kind, resource, v1)

    def apply(self, kind: Kind[R], resource: R, *, v1: bool = False) -> R:
        """Update the resource, or create it if there is none."""
        self._refuse_read_only(kind, "apply", "resource is readonly")
        for _ in self._tries():
            try:
                return self._update(kind, resource, v1)
            except ReferenceMissing:
                raise
            except DoesNotExist:
                pass
            try:
                return self._create(kind, with_metadata(resource, resource_version=""), v1)
            except AlreadyExists:
                continue
        raise UpdateConflict(f"update conflict: {self._label(kind, resource, v1)}")

    def modify(self, kind: Kind[R], name: str, change: Callable[[R], R], namespace: str = "") -> R:
        """Read a resource, change it, write it; again if somebody else wrote in between. Any part may change."""

        def changed(stored: R) -> R:
            new = change(stored)
            return with_metadata(new, name=stored.metadata.name, namespace=namespace)

        return self._write_over(kind, name, namespace, changed, kind.label(name, namespace))

    def delete(
        self, kind: Kind[R], name: str, namespace: str = "", *, resource_version: str = "", label: str = ""
    ) -> None:
        """Remove a resource and what goes with it. With a resource version only if it is still at that version.

        Raises:
            DoesNotExist, UpdateConflict, OperationNotSupported.
        """
        self._refuse_read_only(kind, "delete")
        label = label or kind.label(name, namespace)
        rules.of(kind).refuse_synthetic(name, "delete")
        try:
            key, stored = self._read(kind, name, namespace, label)
        except BadRecord:
            self.remove(self._found(kind, name, namespace, label)[1], label)  # nothing but its key is known of it
            return
        if resource_version and resource_version != str(stored.revision):
            raise UpdateConflict(f"update conflict: {label}")
        rules.of(kind).delete(self, kind, key, stored, label, unconditional=not resource_version)

    # --- what a datastore must have

    def ensure_defaults(self, cluster_type: str = "") -> ClusterInformation:
        """Create what every datastore needs (reference resources.md 1.7): the tier `default`, ClusterInformation.

        An explicit `datastoreReady: false` (a lock) stays. `cluster_type` is appended if it is not there yet.
        """
        self.ensure_default_tier()

        def completed(info: ClusterInformation) -> ClusterInformation:
            spec = info.spec
            types = [word for word in spec.cluster_type.split(",") if word]
            return ClusterInformation(
                metadata=info.metadata,
                spec=msgspec.structs.replace(
                    spec,
                    cluster_guid=spec.cluster_guid or uuid.uuid4().hex,
                    cluster_type=",".join([*types, cluster_type] if cluster_type not in types else types).strip(","),
                    datastore_ready=True if spec.datastore_ready is None else spec.datastore_ready,
                ),
            )

        name = CLUSTER_INFORMATION_NAME
        for _ in self._tries():
            try:
                info = self.get(CLUSTER_INFORMATION, name)
                return info if completed(info) == info else self.modify(CLUSTER_INFORMATION, name, completed)
            except DoesNotExist:
                pass
            try:
                new = ClusterInformation(metadata=Metadata(name=name), spec=ClusterInformationSpec())
                return self._create(CLUSTER_INFORMATION, completed(new), v1=False)
            except AlreadyExists:
                continue
        raise UpdateConflict(f"update conflict: {CLUSTER_INFORMATION.label(name)}")

    def ensure_default_tier(self) -> None:
        if self.store.get(resource_key(ResourceKey(TIER.plural, DEFAULT_TIER))) is None:
            try:
                self._create(TIER, Tier(metadata=Metadata(name=DEFAULT_TIER)), v1=False)
            except AlreadyExists:
                pass

    def set_datastore_ready(self, ready: bool) -> None:
        """Lock the datastore (false: felix stands still) or unlock it."""
        self.ensure_defaults()

        def changed(info: ClusterInformation) -> ClusterInformation:
            return msgspec.structs.replace(info, spec=msgspec.structs.replace(info.spec, datastore_ready=ready))

        self.modify(CLUSTER_INFORMATION, CLUSTER_INFORMATION_NAME, changed)

    # --- for the rules

    def commit(self, transaction: Transaction, what: str) -> Committed | Lost:
        """Commit, and settle an unknown outcome by trying again: the compare lets it take effect only once.

        A loss that shows our own write in place, made by the try whose answer got lost, is a success.

        Raises:
            StoreUnavailable: the store does not answer; whether `what` happened may not be known.
        """
        unknown = ""
        for _ in self._tries():
            try:
                outcome = self.store.commit(transaction)
            except StoreUnavailable as error:
                if not unknown:
                    raise
                unknown = str(error)
                continue
            if isinstance(outcome, Unknown):
                unknown = outcome.reason
                continue
            if isinstance(outcome, Lost) and unknown and (revision := _done(transaction, outcome)) is not None:
                return Committed(revision)
            return outcome
        raise StoreUnavailable(
            f"the store did not say whether it took the write of {what}: {unknown}",
            hint="look whether it is there, then repeat the command",
        )

    def remove(self, item: KeyValue, label: str) -> bool:
        """Delete a key as it was read; false if it changed since. Raises DoesNotExist if it is gone."""
        outcome = self.commit(
            Transaction(expect={item.key: item.revision}, deletes=frozenset((item.key,))), f"{label} (its removal)"
        )
        if isinstance(outcome, Committed):
            return True
        if outcome.current[item.key] is None:
            raise DoesNotExist(f"resource does not exist: {label}")
        return False

    # --- inside

    def _create(self, kind: Kind[R], resource: R, v1: bool) -> R:
        resource = kind.complete(resource)  # the name of an endpoint, say
        ruled, label, metadata = rules.of(kind), self._label(kind, resource, v1), resource.metadata
        self._refuse_namespace(kind, metadata.name, metadata.namespace)
        ruled.refuse_synthetic(metadata.name, "create")
        problems = []
        if metadata.resource_version:
            reason = "field must not be set for a Create request"
            problems.append(Problem(("metadata", "resourceVersion"), metadata.resource_version, reason))
        marks = {"resource_version": "", "uid": str(uuid.uuid4()), "creation_timestamp": self._created()}
        new = with_metadata(resource, **marks)
        self._check(kind, new, problems)
        there = self.store.get(resource_key(ResourceKey(kind.plural, new.metadata.name, metadata.namespace)))
        if there is not None or (v1 and ruled.identified(self, kind, new) != new.metadata.name):
            raise AlreadyExists(f"resource already exists: {label}")
        ruled.before_create(self, kind, new)
        item = self._put_new(kind, new, label)
        ruled.after_create(self, kind, new, item)
        return with_metadata(new, resource_version=str(item.revision))

    def _put_new(self, kind: Kind[R], new: R, label: str) -> KeyValue:
        """Put a resource where none is, under any of the names that mean the same."""
        ruled, name, namespace = rules.of(kind), new.metadata.name, new.metadata.namespace
        keys = [ResourceKey(kind.plural, each, namespace) for each in ruled.names(name)]
        at = resource_key(keys[0])
        value = encode(kind, ruled.stored(new, name))
        for _ in self._tries():
            expect = {at: ABSENT}
            for other in keys[1:]:
                there = self.store.get(resource_key(other))
                if there is not None and self._is_called(kind, other, there, name):
                    raise AlreadyExists(f"resource already exists: {label}")
                expect[resource_key(other)] = ABSENT if there is None else there.revision
            outcome = self.commit(Transaction(expect=expect, puts={at: value}), label)
            if isinstance(outcome, Committed):
                return KeyValue(at, value, outcome.revision)
            if outcome.current[at] is not None:
                break
        raise AlreadyExists(f"resource already exists: {label}")

    def _update(self, kind: Kind[R], resource: R, v1: bool) -> R:
        resource = kind.complete(resource)
        label = self._label(kind, resource, v1)
        metadata = resource.metadata
        rules.of(kind).refuse_synthetic(metadata.name, "update")
        name = self.name_of(kind, resource, v1=v1)

        def replaced(stored: R) -> R:
            new = resource
            if v1 and kind.v1 is not None:
                new = kind.v1.keep(stored, new)
            own = new.metadata
            kept = msgspec.structs.replace(stored.metadata, labels=own.labels, annotations=own.annotations)
            return _with_status(with_metadata(new, **msgspec.structs.asdict(kept)), stored)

        try:
            return self._write_over(kind, name, metadata.namespace, replaced, label, metadata.resource_version)
        except BadRecord:
            return self._write_in_place(kind, with_metadata(resource, name=name), label)

    def _write_over(
        self, kind: Kind[R], name: str, namespace: str, change: Callable[[R], R], label: str, version: str = ""
    ) -> R:
        """Write `change` of what is stored over it, at `version` or at whatever version it has."""
        self._refuse_namespace(kind, name, namespace)
        for _ in self._tries():
            key, stored = self._read(kind, name, namespace, label)
            if version and version != str(stored.revision):
                hint = "it changed since it was read: get it again and edit that, or leave resourceVersion out"
                raise UpdateConflict(f"update conflict: {label}", hint=hint)
            before = rules.of(kind).shown(stored.resource)
            new = change(before)
            marks = {"uid": before.metadata.uid or str(uuid.uuid4()), "creation_timestamp": self._created(before)}
            new = kind.complete(with_metadata(new, **marks))
            self._check(kind, new)
            rules.of(kind).before_update(self, kind, before, new)
            value = encode(kind, rules.of(kind).stored(new, key.name), stored.document)
            if value == stored.value:
                return with_metadata(new, resource_version=str(stored.revision))
            at = resource_key(key)
            outcome = self.commit(Transaction(expect={at: stored.revision}, puts={at: value}), label)
            if isinstance(outcome, Committed):
                return with_metadata(new, resource_version=str(outcome.revision))
            if version and outcome.current[at] is not None:
                break
        raise UpdateConflict(f"update conflict: {label}")

    def _write_in_place(self, kind: Kind[R], resource: R, label: str) -> R:
        """Put a resource in the place of a record that cannot be read; members that nobody knows stay in it."""
        metadata, ruled = resource.metadata, rules.of(kind)
        for _ in self._tries():
            key, item = self._found(kind, metadata.name, metadata.namespace, label)
            if metadata.resource_version not in ("", str(item.revision)):
                break
            new = with_metadata(resource, uid=str(uuid.uuid4()), creation_timestamp=self._created())
            self._check(kind, new)
            ruled.before_create(self, kind, new)
            value = encode(kind, ruled.stored(new, key.name), readable_document(item.value))
            outcome = self.commit(Transaction(expect={item.key: item.revision}, puts={item.key: value}), label)
            if isinstance(outcome, Committed):
                return with_metadata(new, resource_version=str(outcome.revision))
        raise UpdateConflict(f"update conflict: {label}")

    def _created(self, before: Resource | None = None) -> str:
        return (before.metadata.creation_timestamp if before else "") or f"{self._now():%Y-%m-%dT%H:%M:%SZ}"

    def _read(self, kind: Kind[R], name: str, namespace: str, label: str = "") -> tuple[ResourceKey, Stored[R]]:
        key, item = self._found(kind, name, namespace, label)
        return key, decode(kind, item.value, item.revision, key)

    def _found(self, kind: Kind[R], name: str, namespace: str, label: str = "") -> tuple[ResourceKey, KeyValue]:
        """Return the key under which a name is stored, and what is there."""
        self._refuse_namespace(kind, name, namespace)
        if not name:
            raise Rejected("resource name may not be empty")
        if is_key_part(name) and (is_key_part(namespace) or not kind.namespaced):
            for each in rules.of(kind).names(name):
                key = ResourceKey(kind.plural, each, namespace)
                item = self.store.get(resource_key(key))
                if item is not None and (each == name or self._is_called(kind, key, item, name)):
                    return key, item
        raise DoesNotExist(f"resource does not exist: {label or kind.label(name, namespace)}")

    @staticmethod
    def _is_called(kind: Kind[R], key: ResourceKey, item: KeyValue, name: str) -> bool:
        """Return whether what is stored under another name is what users call by this one."""
        try:
            resource = decode(kind, item.value, item.revision, key).resource
        except BadRecord:
            return False
        return rules.of(kind).is_called(resource, name)

    @staticmethod
    def _check(kind: Kind[R], resource: R, found: Iterable[Problem] = ()) -> None:
        problems = [*found, *(problem for problem in problems_of(kind, resource) if not problem.warning)]
        if problems:
            raise InvalidResource(problems)

    @staticmethod
    def _label(kind: Kind[R], resource: R, v1: bool) -> str:
        if v1 and kind.v1 is not None:
            return kind.v1.identifier(resource)
        return kind.label(resource.metadata.name, resource.metadata.namespace)

    @staticmethod
    def _refuse_read_only(kind: Kind[R], operation: str, reason: str = "") -> None:
        if kind.read_only:
            raise OperationNotSupported(
                f"operation {operation} is not supported on {kind.name}" + (f": {reason}" if reason else "")
            )

    @staticmethod
    def _refuse_namespace(kind: Kind[R], name: str, namespace: str) -> None:
        if kind.namespaced and not namespace:
            raise Rejected(
                f"namespace is not specified on namespaced resource: {kind.label(name)}", hint="give it with -n"
            )
        if namespace and not kind.namespaced:
            raise Rejected(
                "namespace should not be specified for a non-namespaced resource. "
                f"{kind.name} is not a namespaced resource"
            )

    def _tries(self) -> Iterator[int]:
        """Count the tries of a write, with a pause before each but the first two."""
        backoff = Backoff(first=0.02, most=0.5)
        for number in range(rules.TRIES):
            if number > 1:
                self.clock.sleep(backoff.next())
            yield number


def _of_kind(kind: Kind[R], items: "tuple[KeyValue, ...]") -> Iterator[tuple[ResourceKey, KeyValue]]:
    namespaced = frozenset((kind.plural,)) if kind.namespaced else frozenset[str]()
    for item in items:
        if key := parse_resource_key(item.key, namespaced):
            yield key, item


def _with_status(new: R, stored: R) -> R:
    """Keep a stored status that the new resource says nothing about: it is written by others."""
    status = getattr(new, "status", None)
    if status is None or status != type(status)():
        return new
    assert isinstance(new, msgspec.Struct)
    return msgspec.structs.replace(new, status=getattr(stored, "status", status))


def _done(transaction: Transaction, lost: Lost) -> int | None:
    """Return the revision at which this very transaction seems to have committed, or None."""
    revision = 0
    for key in transaction.expect:
        current = lost.current[key]
        if key in transaction.deletes:
            if current is not None:
                return None
        elif key in transaction.puts:
            if current is None or current.value != transaction.puts[key]:
                return None
            revision = max(revision, current.revision)
    return revision or lost.revision
