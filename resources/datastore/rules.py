"""What writing a kind asks of the rest of the store (reference resources.md 1.6, 2.1, 2.5, 2.8, 2.10).

Each class is the rules of one kind; `of` finds them. They act through the client they are handed, so that everything is
compared and settled in one place.
"""

from collections.abc import Sequence
from typing import Any, Generic, Protocol

import msgspec

from resources.codec import Stored, decode, encode, readable_document, with_metadata
from resources.datastore.keys import (
    ResourceKey,
    blocks_prefix,
    kind_prefix,
    parse_block_key,
    parse_resource_key,
    resource_key,
)
from resources.datastore.node_removal import remove_node_records
from resources.datastore.store import KeyValue, Lost, Store, Transaction
from resources.errors import AlreadyExists, DoesNotExist, OperationNotSupported, ReferenceMissing, UpdateConflict
from resources.invalid import InvalidResource
from resources.kinds.base import Kind, Problem, R
from resources.kinds.bgpfilter import KIND as BGP_FILTER
from resources.kinds.bgppeer import BGP_PORT, BGPPeer, peer_address
from resources.kinds.bgppeer import KIND as BGP_PEER
from resources.kinds.fields import is_key_part
from resources.kinds.globalnetworkpolicy import KIND as GLOBAL_POLICY
from resources.kinds.hostendpoint import KIND as HOST_ENDPOINT
from resources.kinds.hostendpoint import HostEndpoint
from resources.kinds.networkpolicy import KIND as POLICY
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.policy import KUBERNETES_PREFIX, NAME_ANNOTATION, P
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool
from resources.kinds.profile import DEFAULT_ALLOW, Profile, default_allow
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.stagedglobalnetworkpolicy import KIND as STAGED_GLOBAL_POLICY
from resources.kinds.stagednetworkpolicy import KIND as STAGED_POLICY
from resources.kinds.tier import BUILT_IN, DEFAULT_TIER, Tier
from resources.kinds.tier import KIND as TIER
from resources.names import IPAddress, IPNetwork, NodeName, parse_network
from resources.runtime.backoff import Clock

TRIES = 8
"""How often a write is tried against others, and how often an unknown outcome is settled."""

_DEFAULT_PREFIX = "default."
_POLICIES: tuple[Kind[Any], ...] = (GLOBAL_POLICY, POLICY, STAGED_GLOBAL_POLICY, STAGED_POLICY)


class IpamCleanup(Protocol):
    """What addresses have to do with the removal of a pool or a node. Both calls may be repeated."""

    def release_pool(self, pool: IPNetwork) -> None:
        """Give up every node's affinity to a block inside the pool; empty blocks go."""
        ...

    def release_node(self, node: NodeName, addresses: Sequence[IPAddress]) -> None:
        """Release these addresses, and everything else that the node holds: its affinities, its handles."""
        ...


class Records(Protocol):
    """The client, as its rules need it."""

    @property
    def store(self) -> Store: ...
    @property
    def ipam(self) -> IpamCleanup | None: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def settle_seconds(self) -> float: ...
    def readable(self, kind: Kind[R]) -> Sequence[R]:
        """All resources of a kind that can be read."""
        ...

    def commit(self, transaction: Transaction, what: str) -> Any: ...
    def remove(self, item: KeyValue, label: str) -> bool: ...
    def ensure_defaults(self) -> object: ...
    def ensure_default_tier(self) -> None: ...


class Rules(Generic[R]):
    """The rules of a kind that needs nothing of the store."""

    def synthetics(self) -> tuple[R, ...]:
        """Resources that are always there and never stored."""
        return ()

    def refuse_synthetic(self, name: str, operation: str) -> None:
        """Raise if `name` is always there and so can be neither created, updated nor deleted."""

    def names(self, name: str) -> tuple[str, ...]:
        """Under which names in keys a user's name may be stored; the first is the one we write."""
        return (name,)

    def is_called(self, stored: R, name: str) -> bool:  # noqa: ARG002
        """Return whether users call what is stored under another than the first of `names` by this name."""
        return False

    def shown(self, stored: R) -> R:
        """Return what a user sees of what is stored."""
        return stored

    def stored(self, resource: R, key_name: str) -> R:  # noqa: ARG002
        """Return what is stored, under `key_name`, of what a user gives."""
        return resource

    def identified(self, records: Records, kind: Kind[R], resource: R) -> str:  # noqa: ARG002
        """Return the name of the stored object that a resource from a v1 document is."""
        return resource.metadata.name

    def name_of_v1(self, records: Records, kind: Kind[R], identifier: str) -> str:  # noqa: ARG002
        """Return the name of what v1 identifies on the command line."""
        return kind.v1.name_of(identifier) if kind.v1 else identifier

    def before_create(self, records: Records, kind: Kind[R], new: R) -> None:
        """Raise if the store does not allow this new resource."""

    def after_create(self, records: Records, kind: Kind[R], new: R, item: KeyValue) -> None:
        """Look whether it is still allowed now that it is there."""

    def before_update(self, records: Records, kind: Kind[R], before: R, new: R) -> None:
        """Raise if this may not become that."""

    def delete(
        self, records: Records, kind: Kind[R], key: ResourceKey, stored: Stored[R], label: str, *, unconditional: bool
    ) -> None:
        """Remove it and what goes with it."""
        del kind
        item = KeyValue(resource_key(key), stored.value, stored.revision)
        for _ in range(TRIES):
            if records.remove(item, label):
                return
            current = records.store.get(item.key)
            if current is None:
                raise DoesNotExist(f"resource does not exist: {label}")
            if not unconditional:
                break
            item = current
        raise UpdateConflict(f"update conflict: {label}")


class PoolRules(Rules[IPPool]):
    """Pools overlap nothing, keep CIDR and block size, and are emptied before they go."""

    def identified(self, records: Records, kind: Kind[IPPool], resource: IPPool) -> str:
        return self._named(records, kind, resource.spec.cidr) or resource.metadata.name

    def name_of_v1(self, records: Records, kind: Kind[IPPool], identifier: str) -> str:
        return self._named(records, kind, identifier) or super().name_of_v1(records, kind, identifier)

    @staticmethod
    def _named(records: Records, kind: Kind[IPPool], cidr: str) -> str | None:
        try:
            network = parse_network(cidr)
        except ValueError:
            return None
        return next((p.metadata.name for p in records.readable(kind) if p.network == network), None)

    def before_create(self, records: Records, kind: Kind[IPPool], new: IPPool) -> None:
        self._refuse_overlap(records, kind, new)
        for item in records.store.list(blocks_prefix(new.network.version)).items:
            block = parse_block_key(item.key)
            if block and block.overlaps(new.network) and block.prefixlen != new.spec.block_size:
                reason = f"blocks of another size exist inside the pool: {block} and maybe more"
                hint = f"set blockSize to {block.prefixlen}, or release their addresses first"
                raise InvalidResource([Problem(("spec", "blockSize"), str(new.spec.block_size), reason, hint)])

    def after_create(self, records: Records, kind: Kind[IPPool], new: IPPool, item: KeyValue) -> None:
        """Two overlapping pools may have been created at the same moment: the later one goes again."""
        try:
            self._refuse_overlap(records, kind, new, before=item.revision)
        except InvalidResource:
            records.remove(item, kind.label(new.metadata.name))
            raise

    @staticmethod
    def _refuse_overlap(records: Records, kind: Kind[IPPool], new: IPPool, before: int | None = None) -> None:
        for pool in records.readable(kind):
            if pool.metadata.name == new.metadata.name or not pool.network.overlaps(new.network):
                continue
            if before is not None and int(pool.metadata.resource_version) > before:
                continue
            ours, theirs = kind.label(new.metadata.name), kind.label(pool.metadata.name)
            reason = f"{ours} CIDR overlaps with {theirs} CIDR {pool.spec.cidr}"
            raise InvalidResource([Problem(("spec", "cidr"), new.spec.cidr, reason)])

    def before_update(self, records: Records, kind: Kind[IPPool], before: IPPool, new: IPPool) -> None:
        del records, kind
        problems = []
        if before.network != new.network:
            problems.append(Problem(("spec", "cidr"), new.spec.cidr, "IPPool CIDR cannot be modified"))
        if before.spec.block_size != new.spec.block_size:
            reason = "IPPool BlockSize cannot be modified"
            problems.append(Problem(("spec", "blockSize"), str(new.spec.block_size), reason))
        if problems:
            raise InvalidResource(problems)

    def delete(
        self,
        records: Records,
        kind: Kind[IPPool],
        key: ResourceKey,
        stored: Stored[IPPool],
        label: str,
        *,
        unconditional: bool,
    ) -> None:
        if records.ipam is None:
            raise OperationNotSupported(f"operation delete is not supported on {label}: this program has no IPAM")
        for _ in range(TRIES):
            item = self._disable(records, kind, key, stored, label)
            if item is not None:
                records.clock.sleep(records.settle_seconds)
                records.ipam.release_pool(stored.resource.network)
                if records.remove(item, label):
                    return
            if not unconditional:
                break
            current = records.store.get(resource_key(key))
            if current is None:
                raise DoesNotExist(f"resource does not exist: {label}")
            stored = decode(kind, current.value, current.revision, key)
        raise UpdateConflict(f"update conflict: {label}")

    @staticmethod
    def _disable(
        records: Records, kind: Kind[IPPool], key: ResourceKey, stored: Stored[IPPool], label: str
    ) -> KeyValue | None:
        """Let nobody take addresses of the pool any more; None if it changed meanwhile."""
        at = resource_key(key)
        pool = stored.resource
        if pool.spec.disabled:
            return KeyValue(at, stored.value, stored.revision)
        disabled = msgspec.structs.replace(pool, spec=msgspec.structs.replace(pool.spec, disabled=True))
        value = encode(kind, disabled, stored.document)
        outcome = records.commit(Transaction(expect={at: stored.revision}, puts={at: value}), label)
        return None if isinstance(outcome, Lost) else KeyValue(at, value, outcome.revision)


class PolicyRules(Rules[P]):
    """Names of policies differ from era to era: the user's name is in an annotation, `default.` may be in front."""

    def names(self, name: str) -> tuple[str, ...]:
        bare = name.removeprefix(_DEFAULT_PREFIX)
        return (name, bare) if bare != name else (name, _DEFAULT_PREFIX + name)

    def is_called(self, stored: P, name: str) -> bool:
        shown = self.shown(stored).metadata.name
        return stored.spec.tier == DEFAULT_TIER and shown.removeprefix(_DEFAULT_PREFIX) == name.removeprefix(
            _DEFAULT_PREFIX
        )

    def shown(self, stored: P) -> P:
        metadata = stored.metadata
        name = _annotated_name(metadata.annotations.get(NAME_ANNOTATION, ""))
        if name is None:
            name = metadata.name.removeprefix(_DEFAULT_PREFIX) if stored.spec.tier == DEFAULT_TIER else metadata.name
        annotations = {key: text for key, text in metadata.annotations.items() if key != NAME_ANNOTATION}
        return with_metadata(stored, name=name, annotations=annotations)

    def identified(self, records: Records, kind: Kind[P], resource: P) -> str:
        """Return the name that became the resource's name on its way from v1, if a policy has it."""
        name = resource.metadata.name
        stored = {policy.metadata.name for policy in records.readable(kind)} if kind.v1 else set()
        same = sorted(other for other in stored - {name} if kind.v1 and kind.v1.name_of(other) == name)
        return same[0] if same and name not in stored else name

    def name_of_v1(self, records: Records, kind: Kind[P], identifier: str) -> str:
        """Return the name as given where a policy has it: v3 allows dots, which v1 would have replaced."""
        if is_key_part(identifier) and records.store.get(resource_key(ResourceKey(kind.plural, identifier))):
            return identifier
        return super().name_of_v1(records, kind, identifier)

    def stored(self, resource: P, key_name: str) -> P:
        metadata = resource.metadata
        annotation = msgspec.json.encode({"name": metadata.name}).decode()
        return with_metadata(
            resource, name=key_name, annotations=metadata.annotations | {NAME_ANNOTATION: annotation}
        )

    def before_update(self, records: Records, kind: Kind[P], before: P, new: P) -> None:
        if new.spec.tier != before.spec.tier:
            self.before_create(records, kind, new)

    def before_create(self, records: Records, kind: Kind[P], new: P) -> None:
        del kind
        if new.spec.tier == DEFAULT_TIER:
            records.ensure_default_tier()
        elif records.store.get(resource_key(ResourceKey(TIER.plural, new.spec.tier))) is None:
            from resources.reader import closest  # only after a mistake

            message = f"resource does not exist: {TIER.label(new.spec.tier)}"
            near = closest(new.spec.tier, [DEFAULT_TIER, *(tier.metadata.name for tier in records.readable(TIER))])
            hint = "create the tier first" + (f", or did you mean '{near}'?" if near else "")
            raise ReferenceMissing(message, hint=hint)


class NamespacedPolicyRules(PolicyRules[P]):
    """Some names are those of Kubernetes."""

    def refuse_synthetic(self, name: str, operation: str) -> None:
        if name.startswith(KUBERNETES_PREFIX):
            verb = {"create": "create or apply", "update": "apply or replace"}.get(operation, operation)
            raise OperationNotSupported(
                f"operation {verb} is not supported on {name}: "
                "kubernetes network policies must be managed through the kubernetes API",
                hint=f"take a name that does not begin with {KUBERNETES_PREFIX}",
            )


def _annotated_name(text: str) -> str | None:
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None
    name = document.get("name") if isinstance(document, dict) else None
    return name if isinstance(name, str) and name else None


class HostEndpointRules(Rules[HostEndpoint]):
    """v1 knows them by node and name, whatever they are called in the store."""

    def identified(self, records: Records, kind: Kind[HostEndpoint], resource: HostEndpoint) -> str:
        name, node = resource.metadata.name, resource.spec.node
        same = {name, name.removeprefix(f"{node}.")}
        stored = {h.metadata.name for h in records.readable(kind) if h.spec.node == node and h.metadata.name in same}
        return name if name in stored or not stored else min(stored)


class PeerRules(Rules[BGPPeer]):
    """v1 knows them by node and address, whatever they are called; the filters that they name exist."""

    def identified(self, records: Records, kind: Kind[BGPPeer], resource: BGPPeer) -> str:
        name, wanted = resource.metadata.name, _identity_v1(resource)
        stored = {peer.metadata.name for peer in records.readable(kind) if _identity_v1(peer) == wanted}
        return name if name in stored or not stored else min(stored)

    def before_create(self, records: Records, kind: Kind[BGPPeer], new: BGPPeer) -> None:
        del kind
        missing = [
            (index, name)
            for index, name in enumerate(new.spec.filters)
            if records.store.get(resource_key(ResourceKey(BGP_FILTER.plural, name))) is None
        ]
        if missing:
            reason, hint = "BGPFilter(s) not found", "create it before the peer"
            raise InvalidResource(Problem(("spec", "filters", i), name, reason, hint) for i, name in missing)

    def before_update(self, records: Records, kind: Kind[BGPPeer], before: BGPPeer, new: BGPPeer) -> None:
        del before
        self.before_create(records, kind, new)


def _identity_v1(peer: BGPPeer) -> tuple[str, str, object]:
    """Return what v1 identifies a peer by; the standard port may be said or not."""
    spec = peer.spec
    try:
        address, port = peer_address(spec.peer_ip)
    except ValueError:
        return spec.node, spec.node_selector, spec.peer_ip or f"name {peer.metadata.name}"
    return spec.node, spec.node_selector, (address, port or BGP_PORT)


class ProfileRules(Rules[Profile]):
    """One profile is always there."""

    def synthetics(self) -> tuple[Profile, ...]:
        return (default_allow(),)

    def refuse_synthetic(self, name: str, operation: str) -> None:
        if name != DEFAULT_ALLOW:
            return
        if operation == "create":
            raise AlreadyExists(f"resource already exists: {PROFILE.label(name)}: Calico provides it by default")
        verb = {"update": "updated", "delete": "deleted"}[operation]
        raise OperationNotSupported(
            f"operation {operation.title()} is not supported on {name}: "
            f'The profile "{name}" is a default provided by Calico and cannot be {verb}'
        )


class TierRules(Rules[Tier]):
    """Built-in tiers stay, and so does a tier that has policies."""

    def delete(
        self,
        records: Records,
        kind: Kind[Tier],
        key: ResourceKey,
        stored: Stored[Tier],
        label: str,
        *,
        unconditional: bool,
    ) -> None:
        if key.name in BUILT_IN:
            reason = f"Cannot delete {key.name} tier"
            raise OperationNotSupported(f"operation Delete is not supported on {key.name}: {reason}")
        for policies in _POLICIES:
            for item in records.store.list(kind_prefix(policies.plural)).items:
                if _tier_of(item) == key.name:
                    raise OperationNotSupported(
                        f"operation delete is not supported on {key.name}: Cannot delete a non-empty tier",
                        hint=f"delete its policies first, such as {_label_of(policies, item.key)}",
                    )
        super().delete(records, kind, key, stored, label, unconditional=unconditional)


def _label_of(kind: Kind[Any], text: str) -> str:
    key = parse_resource_key(text, frozenset((kind.plural,)) if kind.namespaced else frozenset())
    return kind.label(key.name, key.namespace) if key else text


def _tier_of(item: KeyValue) -> str | None:
    document = readable_document(item.value) or {}
    spec = document.get("spec")
    tier = spec.get("tier") if isinstance(spec, dict) else None
    return tier if isinstance(tier, str) else None


class NodeRules(Rules[Node]):
    """A node takes its endpoints, addresses and settings with it."""

    def before_create(self, records: Records, kind: Kind[Node], new: Node) -> None:
        del kind, new
        records.ensure_defaults()

    def delete(
        self,
        records: Records,
        kind: Kind[Node],
        key: ResourceKey,
        stored: Stored[Node],
        label: str,
        *,
        unconditional: bool,
    ) -> None:
        if records.ipam is None:
            raise OperationNotSupported(f"operation delete is not supported on {label}: this program has no IPAM")
        remove_node_records(records, records.ipam, stored.resource)
        super().delete(records, kind, key, stored, label, unconditional=unconditional)


_RULES: dict[str, Rules[Any]] = {
    POOL.name: PoolRules(),
    **{kind.name: NamespacedPolicyRules() if kind.namespaced else PolicyRules() for kind in _POLICIES},
    PROFILE.name: ProfileRules(),
    TIER.name: TierRules(),
    NODE.name: NodeRules(),
    HOST_ENDPOINT.name: HostEndpointRules(),
    BGP_PEER.name: PeerRules(),
}
_NONE: Rules[Any] = Rules()


def of(kind: Kind[R]) -> Rules[R]:
    """Return the rules of a kind."""
    return _RULES.get(kind.name, _NONE)
