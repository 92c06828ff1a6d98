"""The calculation: records of the store in, policy data of this host out.

`update` takes records one by one, in any order and as often as anybody likes; `flush` concludes what they amount to and
returns what differs from the last time. The conclusion depends on the current records only. A reference to something
that is missing has a defined result, and that result is closed (reference felix.md 1.8, 4).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from felix.calc.endpoints import LocalEndpoints, read_local, read_member
from felix.calc.hosts import HostEndpoints, read_host, read_host_member
from felix.calc.ipsets import MemberSets, SetUse
from felix.calc.labels import NO_LABELS, LabelIndex, Labels, interned
from felix.calc.masquerade import NodeRecord, PoolRecord, read_node, read_pool, surroundings
from felix.calc.model import (
    ALLOW_ALL,
    ANY_INTERFACE,
    NO_TURNOVER,
    LocalEndpoint,
    LocalHostEndpoint,
    MembersChange,
    PolicyId,
    Rules,
    SetSpec,
    Stage,
    Surroundings,
    Turnover,
)
from felix.calc.netsets import Entry, network_set, read_entries
from felix.calc.parameters import Parameters, Resolved, effective, spec_texts
from felix.calc.policies import (
    BUILT_IN_DEFAULT,
    CLOSED,
    PolicyRecord,
    TierRecord,
    effective_rules,
    of_host_endpoint,
    ordered,
    policy_id,
    policy_key,
    read_policy,
    read_tier,
)
from felix.calc.problems import Problems
from felix.calc.rules import read_profile_rules, without_doubt, without_sets
from resources.datastore.keys import ResourceKey
from resources.errors import Rejected
from resources.kinds.base import Resource
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.globalnetworkset import GlobalNetworkSet
from resources.kinds.hostendpoint import HostEndpoint
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.networkset import NetworkSet
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.kinds.profile import DEFAULT_ALLOW, Profile
from resources.kinds.tier import DEFAULT_TIER, Tier
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import IfName, IPAddress, NodeName, ProfileName
from resources.runtime.options import Source

K = TypeVar("K")
V = TypeVar("V")

GLOBAL_CONFIGURATION = "default"
_POLICY_TYPES: Mapping[str, type[GlobalNetworkPolicy] | type[NetworkPolicy]] = {
    "globalnetworkpolicies": GlobalNetworkPolicy,
    "networkpolicies": NetworkPolicy,
}


def nothing() -> Mapping[K, V]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusions:
    """What differs since the last flush; None as a value: no longer there."""

    sets: Mapping[str, MembersChange | None] = field(default_factory=nothing)
    specs: Mapping[str, SetSpec] = field(default_factory=nothing)
    """The sets that `sets` mentions and that exist."""
    closing: Mapping[str, frozenset[PolicyId | ProfileName]] = field(default_factory=nothing)
    """Of sets that have no safe order: whose rules are to let nothing pass while the members change."""
    policies: Mapping[PolicyId, Rules | None] = field(default_factory=nothing)
    profiles: Mapping[ProfileName, Rules | None] = field(default_factory=nothing)
    endpoints: Mapping[IfName, LocalEndpoint | None] = field(default_factory=nothing)
    host_endpoints: Mapping[IfName, LocalHostEndpoint | None] = field(default_factory=nothing)
    surroundings: Surroundings | None = None
    parameters: Resolved | None = None
    problems: Mapping[ResourceKey, tuple[str, ...]] = field(default_factory=nothing)
    """What is wrong with a record and what is done about it; empty: nothing any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Everything that is concluded, as of the last flush."""

    sets: Mapping[str, tuple[SetSpec, Mapping[int, frozenset[str]]]]
    policies: Mapping[PolicyId, Rules]
    profiles: Mapping[ProfileName, Rules]
    endpoints: Mapping[IfName, LocalEndpoint]
    host_endpoints: Mapping[IfName, LocalHostEndpoint]
    surroundings: Surroundings | None
    problems: Mapping[ResourceKey, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _ProfileRecord:
    rules: Rules
    labels: Labels


class Graph:
    """All records that matter to this host, and what follows from them."""

    def __init__(self, node: NodeName, sources: Sequence[Source] = ()) -> None:
        """`sources` of parameters that are stronger than the store: overrides, environment, file.

        Raises:
            ConfigurationError: a value in `sources` that cannot be used.
        """
        self.node = node
        self._sources = tuple(sources)
        self._configurations: dict[str, Source] = {}
        self._resolved = effective(self._sources)
        self._pools: dict[ResourceKey, PoolRecord] = {}
        self._nodes: dict[ResourceKey, NodeRecord] = {}
        self._tiers: dict[str, TierRecord] = {DEFAULT_TIER: BUILT_IN_DEFAULT}
        self._profiles: dict[ProfileName, _ProfileRecord] = {
            ProfileName(DEFAULT_ALLOW): _ProfileRecord(Rules(ingress=(ALLOW_ALL,), egress=(ALLOW_ALL,)), NO_LABELS)
        }
        self._policies: dict[PolicyId, PolicyRecord] = {}
        self._policies_of_tier: dict[str, set[PolicyId]] = {}
        self._locals = LocalEndpoints()
        self._local_labels: dict[ResourceKey, Labels] = {}
        self._members = MemberSets()
        self._picked: LabelIndex[ResourceKey, PolicyId] = LabelIndex(self._picks, self._picks)
        self._profile_users: dict[ProfileName, set[IfName]] = {}
        self._hosts = HostEndpoints()
        self._host_labels: dict[ResourceKey, Labels] = {}
        self._host_picked: LabelIndex[ResourceKey, PolicyId] = LabelIndex(self._picks_host, self._picks_host)
        self._host_profile_users: dict[ProfileName, set[IfName]] = {}
        self._host_policy_users: dict[PolicyId, set[IfName]] = {}
        self._entries: dict[ResourceKey, Mapping[str, Entry]] = {}
        self._set_use = SetUse()
        self._sets_changed: Mapping[str, MembersChange | None] = {}
        self._turnover = NO_TURNOVER
        self._problems = Problems()

        self._unsettled: set[IfName] = set()
        self._dirty_interfaces: set[IfName] = set()
        self._unsettled_hosts: set[IfName] = set()
        self._dirty_hosts: set[IfName] = set()
        self._dirty_policies: set[PolicyId] = set()
        self._picked_otherwise: set[PolicyId] = set()
        self._dirty_profiles: set[ProfileName] = set()
        self._surroundings_dirty = True
        self._parameters_dirty = True

        self._endpoints_told: dict[IfName, LocalEndpoint] = {}
        self._hosts_told: dict[IfName, LocalHostEndpoint] = {}
        self._rules_told: dict[ResourceKey, Rules] = {}
        self._surroundings_told: Surroundings | None = None
        self._parameters_told: Resolved | None = None
        self._refused: frozenset[str] = frozenset()
        self._set_size_told = 0
        self._doubtful: frozenset[str] = frozenset()
        self._readers: dict[str, Callable[[ResourceKey, Resource | None], tuple[str, ...]]] = {
            "workloadendpoints": self._read_endpoint,
            "profiles": self._read_profile,
            "globalnetworkpolicies": self._read_policy,
            "networkpolicies": self._read_policy,
            "globalnetworksets": self._read_network_set,
            "networksets": self._read_network_set,
            "hostendpoints": self._read_host_endpoint,
            "tiers": self._read_tier,
            "ippools": self._read_pool,
            "nodes": self._read_node,
            "felixconfigurations": self._read_configuration,
        }

    @property
    def plurals(self) -> frozenset[str]:
        """The kinds that matter here."""
        return frozenset(self._readers)

    @property
    def parameters(self) -> Parameters:
        """As of the last flush."""
        return self._resolved.parameters

    @property
    def evaluations(self) -> int:
        """How often a selector was tried on something: what the calculation costs."""
        return self._members.evaluations + self._picked.evaluations + self._host_picked.evaluations

    def update(self, key: ResourceKey, value: Resource | None) -> None:
        """Take note that the record at `key` is `value` now, or gone (None). Kinds that do not matter are ignored.

        A record that cannot be used counts as absent and becomes a problem of the next flush.
        """
        reader = self._readers.get(key.plural)
        if reader is None:
            return
        if value is None:
            self._problems.forget(key)
            reader(key, None)
            return
        try:
            problems = reader(key, value)
        except (ValueError, Rejected) as error:
            reader(key, None)
            problems = (f"it cannot be used and counts as absent: {error}",)
        self._problems.note(key, "record", problems)

    def set_interface(self, name: IfName, addresses: frozenset[IPAddress] | None) -> None:
        """Take note of the addresses that an interface of this host has now; None: there is no such interface."""
        if self._hosts.set_interface(name, addresses):
            self._unsettled_hosts.add(name)

    def flush(self) -> Conclusions:
        """Conclude, and return what differs from the last time."""
        parameters = self._settle_parameters()
        self._settle_interfaces()
        self._settle_host_interfaces()
        endpoints = self._settle_endpoints()
        host_endpoints = self._settle_host_endpoints()
        surroundings_now = self._settle_surroundings()
        rules = self._settle_rules()
        if host_endpoints or surroundings_now is not None or parameters is not None:
            self._turnover |= Turnover.CHANGES
        sets, closing = self._set_use.in_order(self._sets_changed, self._turnover)
        self._sets_changed, self._turnover = {}, NO_TURNOVER
        return Conclusions(
            sets=sets,
            closing={set_id: frozenset(map(_rules_id, owners)) for set_id, owners in closing.items()},
            specs={set_id: self._members.spec(set_id) for set_id, change in sets.items() if change is not None},
            policies={policy_id(key): told for key, told in rules.items() if key.plural != "profiles"},
            profiles={ProfileName(key.name): told for key, told in rules.items() if key.plural == "profiles"},
            endpoints=endpoints,
            host_endpoints=host_endpoints,
            surroundings=surroundings_now,
            parameters=parameters,
            problems=self._problems.take_changes(),
        )

    def whole(self) -> Whole:
        """Return everything that is concluded, as of the last flush."""
        rules = self._rules_told.items()
        return Whole(
            sets=self._members.members(),
            policies={policy_id(key): told for key, told in rules if key.plural != "profiles"},
            profiles={ProfileName(key.name): told for key, told in rules if key.plural == "profiles"},
            endpoints=dict(self._endpoints_told),
            host_endpoints=dict(self._hosts_told),
            surroundings=self._surroundings_told,
            problems=self._problems.whole(),
        )

    # Readers: one record each. They keep what matters of it, note what it may change, and return its problems.

    def _read_endpoint(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is None:
            member = local = None
        else:
            endpoint = _expected(WorkloadEndpoint, value)
            member = read_member(endpoint)
            local = read_local(key, endpoint) if endpoint.node == self.node else None
        self._members.set_endpoint(key, member)
        self._unsettled |= self._locals.set(key, local)
        if local is not None and member is not None:
            self._local_labels[key] = member.labels
        elif self._local_labels.pop(key, None) is not None:
            self._picked.remove_item(key)
            self._problems.note(key, "interface", ())
            self._problems.note(key, "profiles", ())
        return ()

    def _read_host_endpoint(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        problems: tuple[str, ...] = ()
        member = host = None
        if value is not None:
            endpoint = _expected(HostEndpoint, value)
            member, problems = read_host_member(endpoint)
            host = read_host(endpoint) if endpoint.spec.node == self.node else None
        self._members.set_endpoint(key, member)
        self._unsettled_hosts |= self._hosts.put(key, host)
        if host is not None and member is not None:
            self._host_labels[key] = member.labels
            if self._hosts.is_served(key):
                self._host_picked.set_item(key, member.labels, host.profiles)
        elif self._host_labels.pop(key, None) is not None:
            self._host_picked.remove_item(key)
            for topic in ("interface", "profiles", "untracked"):
                self._problems.note(key, topic, ())
        return problems

    def _read_network_set(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is None:
            self._entries.pop(key, None)
            self._members.set_endpoint(key, None)
            return ()
        found = _expected(NetworkSet, value) if key.namespace else _expected(GlobalNetworkSet, value)
        entries = self._entries[key] = read_entries(found.spec.nets, self._entries.get(key, {}))
        member, problems = network_set(found.metadata, key.namespace, entries)
        self._members.set_endpoint(key, member)
        return problems

    def _read_profile(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        name = ProfileName(key.name)
        if name == DEFAULT_ALLOW:
            return ()
        problems: tuple[str, ...] = ()
        if value is None:
            existed = self._profiles.pop(name, None) is not None
            labels = NO_LABELS
        else:
            profile = _expected(Profile, value)
            rules, problems = read_profile_rules(profile.spec.ingress, profile.spec.egress)
            existed = name in self._profiles
            labels = interned(profile.spec.labels_to_apply)
            self._profiles[name] = _ProfileRecord(rules, labels)
        self._members.set_profile(name, labels)
        self._picked.set_parent(name, labels)
        self._host_picked.set_parent(name, labels)
        self._dirty_profiles.add(name)
        if existed is (value is None):
            self._dirty_interfaces |= self._profile_users.get(name, set())
            self._dirty_hosts |= self._host_profile_users.get(name, set())
        return problems

    def _read_policy(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        policy = policy_id(key)
        record = None if value is None else read_policy(key, _expected(_POLICY_TYPES[key.plural], value))
        before = self._policies.pop(policy, None)
        self._dirty_policies.add(policy)
        if before is None or record is None or before.bearing != record.bearing:
            self._dirty_picked(policy)
        if before is not None:
            self._policies_of_tier[before.tier].discard(policy)
            if not self._policies_of_tier[before.tier]:
                del self._policies_of_tier[before.tier]
        if record is None:
            self._picked.remove_selector(policy)
            self._host_picked.remove_selector(policy)
            return ()
        self._policies[policy] = record
        self._policies_of_tier.setdefault(record.tier, set()).add(policy)
        self._host_picked.set_selector(policy, record.selector)
        if record.for_workloads:
            self._picked.set_selector(policy, record.selector)
        else:
            self._picked.remove_selector(policy)
        return record.problems

    def _read_tier(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is not None:
            self._tiers[key.name] = read_tier(_expected(Tier, value))
        elif key.name == DEFAULT_TIER:
            self._tiers[key.name] = BUILT_IN_DEFAULT
        else:
            self._tiers.pop(key.name, None)
        for policy in self._policies_of_tier.get(key.name, ()):
            self._dirty_policies.add(policy)
            self._dirty_picked(policy)
        return ()

    def _read_pool(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        self._surroundings_dirty = True
        if value is None:
            self._pools.pop(key, None)
        else:
            self._pools[key] = read_pool(_expected(IPPool, value))
        return ()

    def _read_node(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        record = None if value is None else read_node(_expected(Node, value))
        if record != self._nodes.get(key):
            self._surroundings_dirty = True
        if record is None:
            self._nodes.pop(key, None)
        else:
            self._nodes[key] = record
        return ()

    def _read_configuration(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if key.name not in (GLOBAL_CONFIGURATION, f"node.{self.node}"):
            return ()
        self._parameters_dirty = True
        if value is None:
            self._configurations.pop(key.name, None)
        else:
            texts = spec_texts(value.spec, value.metadata.annotations)
            self._configurations[key.name] = Source(f"FelixConfiguration {key.name}", texts, strict=False)
        return ()

    # Steps of a flush, in order.

    def _settle_parameters(self) -> Resolved | None:
        if not self._parameters_dirty:
            return None
        self._parameters_dirty = False
        names = (f"node.{self.node}", GLOBAL_CONFIGURATION)
        stored = [self._configurations[name] for name in names if name in self._configurations]
        before, self._resolved = self._resolved, effective((*self._sources, *stored))
        for name in names:
            origin = f"FelixConfiguration {name}"
            refused = [one for one in self._resolved.refused if one.origin == origin]
            self._problems.note(
                ResourceKey("felixconfigurations", name),
                "values",
                (f"{one.option} = {one.value!r} is passed over: {one.reason}" for one in refused),
            )
        if before.parameters.interface_prefixes != self.parameters.interface_prefixes:
            self._unsettled.update(self._locals.interfaces())
            self._unsettled_hosts |= self._hosts.interfaces()
        self._surroundings_dirty = True
        if self._parameters_told == self._resolved:
            return None
        self._parameters_told = self._resolved
        return self._resolved

    def _settle_interfaces(self) -> None:
        """Decide which endpoint has each interface that is in question, and ask the policies about its labels."""
        prefixes = self.parameters.interface_prefixes
        settled = {
            interface: (self._locals.served(interface), self._locals.settle(interface, prefixes))
            for interface in self._unsettled
        }
        self._dirty_interfaces |= self._unsettled
        self._unsettled.clear()
        for interface, (before, now) in settled.items():
            if before is not None and not self._locals.is_served(before):
                self._picked.remove_item(before)
                self._problems.note(before, "profiles", ())
            if now is not None:
                self._picked.set_item(now, self._local_labels[now], self._locals.record(now).profiles)
            for key in self._locals.claimants(interface):
                self._problems.note(key, "interface", self._why_not_served(key, interface, now))

    def _why_not_served(self, key: ResourceKey, interface: IfName, now: ResourceKey | None) -> tuple[str, ...]:
        if now is None:
            prefixes = " or ".join(self.parameters.interface_prefixes)
            return (f"it is not served: interface {interface} does not begin with {prefixes}",)
        return () if key == now else (f"it waits: interface {interface} belongs to {now}",)

    def _settle_host_interfaces(self) -> None:
        """Decide which host endpoint has each interface that is in question, and ask the policies about its labels."""
        prefixes = self.parameters.interface_prefixes
        touched = [
            key
            for interface in self._unsettled_hosts
            for key in (self._hosts.served(interface), self._hosts.settle(interface, prefixes))
            if key is not None
        ]
        self._dirty_hosts |= self._unsettled_hosts
        self._unsettled_hosts.clear()
        for key in dict.fromkeys(touched):
            if self._hosts.is_served(key):
                self._host_picked.set_item(key, self._host_labels[key], self._hosts.record(key).profiles)
            else:
                self._host_picked.remove_item(key)
                for topic in ("profiles", "untracked"):
                    self._problems.note(key, topic, ())
        for key, texts in self._hosts.take_explanations(prefixes).items():
            self._problems.note(key, "interface", texts)

    def _settle_endpoints(self) -> dict[IfName, LocalEndpoint | None]:
        changes: dict[IfName, LocalEndpoint | None] = {}
        for interface in self._dirty_interfaces:
            endpoint = self._conclude_endpoint(interface)
            told = self._endpoints_told.get(interface)
            if endpoint == told:
                continue
            changes[interface] = endpoint
            self._turnover |= _turnover(told, endpoint)
            old, new = (each.profiles if each else () for each in (told, endpoint))
            self._dirty_profiles |= _use(self._profile_users, interface, old, new)
            if endpoint is None:
                del self._endpoints_told[interface]
            else:
                self._endpoints_told[interface] = endpoint
        self._dirty_interfaces.clear()
        return changes

    def _conclude_endpoint(self, interface: IfName) -> LocalEndpoint | None:
        key = self._locals.served(interface)
        if key is None:
            return None
        record = self._locals.record(key)
        self._note_missing_profiles(key, record.profiles)
        picking = (self._policies[policy] for policy in self._picked.selectors_of(key))
        return LocalEndpoint(
            interface=interface,
            addresses=record.networks,
            mac=record.mac,
            tiers=ordered(picking, self._tiers),
            profiles=record.profiles,
            spoofed_sources=record.spoofed_sources,
            name=record.name,
        )

    def _note_missing_profiles(self, key: ResourceKey, profiles: Sequence[ProfileName]) -> None:
        missing = [name for name in profiles if name not in self._profiles]
        self._problems.note(
            key, "profiles", (f"profile {name} does not exist: until it does it denies everything" for name in missing)
        )

    def _settle_host_endpoints(self) -> dict[IfName, LocalHostEndpoint | None]:
        changes: dict[IfName, LocalHostEndpoint | None] = {}
        for interface in self._dirty_hosts:
            endpoint = self._conclude_host_endpoint(interface)
            told = self._hosts_told.get(interface)
            if endpoint == told:
                continue
            changes[interface] = endpoint
            old, new = (each.profiles if each else () for each in (told, endpoint))
            self._dirty_profiles |= _use(self._host_profile_users, interface, old, new)
            old_policies, new_policies = (each.policies if each else () for each in (told, endpoint))
            self._picked_otherwise |= _use(self._host_policy_users, interface, old_policies, new_policies)
            if endpoint is None:
                del self._hosts_told[interface]
            else:
                self._hosts_told[interface] = endpoint
        self._dirty_hosts.clear()
        return changes

    def _conclude_host_endpoint(self, interface: IfName) -> LocalHostEndpoint | None:
        key = self._hosts.served(interface)
        if key is None:
            return None
        record = self._hosts.record(key)
        self._note_missing_profiles(key, record.profiles)
        by_stage = of_host_endpoint(
            (self._policies[policy] for policy in self._host_picked.selectors_of(key)), self._tiers
        )
        untracked, ignored = by_stage[Stage.UNTRACKED], set[str]()
        if interface == ANY_INTERFACE:
            ignored = {policy.name for tier in untracked for policy in tier.ingress + tier.egress}
            untracked = ()
        effect = "is doNotTrack and ignored: this endpoint is for all interfaces, and that needs a named one"
        self._problems.note(key, "untracked", (f"policy {name} {effect}" for name in sorted(ignored)))
        return LocalHostEndpoint(
            name=key.name,
            interface=interface,
            profiles=record.profiles,
            untracked=untracked,
            pre_dnat=by_stage[Stage.PRE_DNAT],
            normal=by_stage[Stage.NORMAL],
            forward=by_stage[None],
        )

    def _settle_rules(self) -> dict[ResourceKey, Rules | None]:
        """Decide which policies and profiles are in use, and with them the sets; return the changes of the rules."""
        flipped = {
            policy
            for policy in self._picked_otherwise
            if self._is_used(policy) is not (policy_key(policy) in self._rules_told)
        }
        owners = [policy_key(policy) for policy in self._dirty_policies | flipped]
        owners += [_profile_key(profile) for profile in self._dirty_profiles]
        self._dirty_policies.clear()
        self._dirty_profiles.clear()
        self._picked_otherwise.clear()
        rules = {key: self._conclude_rules(key) for key in owners}
        for key, concluded in rules.items():
            self._set_use.replace(key, concluded or self._needed_anyway(key))
        self._set_use.settle(self._members)
        self._sets_changed = self._members.flush(self.parameters.set_size_max)
        refused, self._refused = self._refused, self._members.refused
        doubtful, self._doubtful = self._doubtful, self._members.doubtful
        affected = (refused ^ self._refused) | (doubtful ^ self._doubtful)
        if self._set_size_told != self.parameters.set_size_max:
            self._set_size_told = self.parameters.set_size_max
            affected |= self._refused  # for what is said about them
        for set_id in affected:
            for key in self._set_use.owners(set_id):
                rules.setdefault(key, self._conclude_rules(key))
        enforced = {key: self._enforced(key, concluded) for key, concluded in rules.items()}
        return {key: told for key, told in enforced.items() if self._tell(key, told)}

    def _conclude_rules(self, key: ResourceKey) -> Rules | None:
        """Return the rules of a policy or profile that is in use, else None."""
        if key.plural == "profiles":
            name = ProfileName(key.name)
            if name not in self._profile_users and name not in self._host_profile_users:
                return None
            return self._profiles[name].rules if name in self._profiles else CLOSED
        policy = policy_id(key)
        record = self._policies.get(policy)
        if record is None:
            self._problems.note(key, "tier", ())
            return None
        known = record.tier in self._tiers
        problem = f"tier {record.tier} does not exist: until it does, what the policy selects is closed"
        self._problems.note(key, "tier", () if known else (problem,))
        return effective_rules(record, self._tiers) if self._is_used(policy) else None

    def _is_used(self, policy: PolicyId) -> bool:
        return self._picked.is_used(policy) or policy in self._host_policy_users

    def _needed_anyway(self, key: ResourceKey) -> Rules | None:
        """Return the rules of a policy that is not in use, but whose sets are wanted on every host."""
        record = None if key.plural == "profiles" else self._policies.get(policy_id(key))
        return record.rules if record is not None and record.sets_everywhere else None

    def _enforced(self, key: ResourceKey, rules: Rules | None) -> Rules | None:
        """Return the rules without those whose sets are too large or lack something, and say so."""
        specs = rules.all_sets if rules and (self._refused or self._doubtful) else {}
        refused, doubtful = self._refused.intersection(specs), self._doubtful.intersection(specs)
        limit = self.parameters.set_size_max
        texts = [f"selector {specs[i].selector} has more than {limit} members: rules with it allow nothing"
                 for i in sorted(refused)]  # fmt: skip
        texts += [f"selector {specs[i].selector} picks something that cannot be read in full: "
                  "rules that this would open deny instead" for i in sorted(doubtful)]  # fmt: skip
        self._problems.note(key, "sets", texts)
        if rules and refused:
            rules = without_sets(rules, refused)
        return without_doubt(rules, doubtful) if rules and doubtful else rules

    def _tell(self, key: ResourceKey, rules: Rules | None) -> bool:
        """Remember what is told of a policy or profile; tell whether it is news."""
        before = self._rules_told.get(key)
        if before == rules:
            return False
        if before is not None and rules is not None:  # new rules meet nothing but by an endpoint that changes
            self._turnover |= Turnover.CHANGES
        if rules is None:
            del self._rules_told[key]
        else:
            self._rules_told[key] = rules
        return True

    def _settle_surroundings(self) -> Surroundings | None:
        if not self._surroundings_dirty:
            return None
        self._surroundings_dirty = False
        now = surroundings(
            self._pools.values(),
            self._nodes,
            node=self.node,
            external_nodes=self.parameters.external_nodes,
            ipip=self.parameters.ipip,
        )
        if now == self._surroundings_told:
            return None
        self._surroundings_told = now
        return now

    def _picks(self, policy: PolicyId, key: ResourceKey) -> None:
        """A policy begins or ends to pick a local endpoint."""
        self._picked_otherwise.add(policy)
        if self._locals.is_served(key):
            self._dirty_interfaces.add(self._locals.record(key).interface)

    def _picks_host(self, _: PolicyId, key: ResourceKey) -> None:
        """A policy begins or ends to pick a host endpoint of this host."""
        self._dirty_hosts.update(self._hosts.serves(key))

    def _dirty_picked(self, policy: PolicyId) -> None:
        for key in self._picked.items_of(policy):
            if self._locals.is_served(key):
                self._dirty_interfaces.add(self._locals.record(key).interface)
        for key in self._host_picked.items_of(policy):
            self._dirty_hosts.update(self._hosts.serves(key))


def _turnover(before: LocalEndpoint | None, now: LocalEndpoint | None) -> Turnover:
    if before is None:
        return Turnover.COMES
    return Turnover.GOES if now is None else Turnover.CHANGES


def _rules_id(owner: ResourceKey) -> PolicyId | ProfileName:
    return ProfileName(owner.name) if owner.plural == "profiles" else policy_id(owner)


def _use(users: dict[V, set[IfName]], user: IfName, before: Iterable[V], now: Iterable[V]) -> set[V]:
    """Note that an interface uses other things now; return those that have their first user, or none any more."""
    old, new = set(before), set(now)
    changed = {thing for thing in new - old if thing not in users}
    for thing in old - new:
        users[thing].discard(user)
        if not users[thing]:
            del users[thing]
            changed.add(thing)
    for thing in new - old:
        users.setdefault(thing, set()).add(user)
    return changed


def _profile_key(profile: ProfileName) -> ResourceKey:
    return ResourceKey("profiles", profile)


def _expected(kind: type[V], value: object) -> V:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value
