"""Conclusions in, pieces of desired state out: renders what changed and keeps what was rendered.

A chain of a policy or profile is rendered when its rules change, an endpoint's two chains when what applies to it
changes; nobody else's. Chains that come out as they were are not handed on.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from felix.calc.conclusions import Conclusions
from felix.calc.model import Direction, LocalEndpoint, PolicyId, Rules, SetSpec, Stage, Surroundings
from felix.calc.parameters import DenyAction, Parameters, Resolved
from felix.desired import Chain, ChainKey, IPSet, KernelChain, LocalInterface, SetChange, Update
from felix.render import dispatch
from felix.render.chains import Rule
from felix.render.flowlog import Owner
from felix.render.groups import Group, Groups, group_rules
from felix.render.hosts import HostChains, failsafe_rules
from felix.render.iptables import render_chain, render_kernel_chain
from felix.render.names import (
    FAILSAFE,
    FROM_WORKLOAD,
    TO_WORKLOAD,
    endpoint_chain,
    policy_chain,
    profile_chain,
    set_name,
)
from felix.render.policy import chain_rules
from felix.render.static import fixed_sets, kernel_chains, spoofing_chain, static_chains
from felix.render.workloads import denied, endpoint_rules
from resources.names import IfName, ProfileName

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_SPOOFING_CHAIN = "cali-rpf-skip"
_PREFIX = {Direction.INGRESS: TO_WORKLOAD, Direction.EGRESS: FROM_WORKLOAD}


class Renderer:
    """What has been rendered so far, by the parameters in effect."""

    def __init__(self) -> None:
        self._parameters = self._silent = Parameters()
        self._surroundings: Surroundings | None = None
        self._policies: dict[PolicyId, Rules] = {}
        self._profiles: dict[ProfileName, Rules] = {}
        self._endpoints: dict[IfName, LocalEndpoint] = {}
        self._groups = Groups()
        self._dispatch = dispatch.Dispatch()
        self._hosts = HostChains()
        self._failsafe: frozenset[tuple[str, Direction]] = frozenset()
        self._chains: dict[ChainKey, Chain] = {}
        self._kernel_chains: dict[ChainKey, KernelChain] = {}
        self._fixed_sets: dict[str, frozenset[str]] = {}
        self._interfaces: dict[IfName, LocalInterface] = {}
        self._new_chains: dict[ChainKey, Chain | None] = {}
        self.rendered = 0
        """How many chains were rendered: the cost, for tests and metrics."""

    @property
    def chains(self) -> Mapping[ChainKey, Chain]:
        return self._chains

    @property
    def kernel_chains(self) -> Mapping[ChainKey, KernelChain]:
        return self._kernel_chains

    @property
    def fixed_sets(self) -> Mapping[str, IPSet]:
        return {name: self._fixed_set(name, members) for name, members in self._fixed_sets.items()}

    @property
    def interfaces(self) -> Mapping[IfName, LocalInterface]:
        return self._interfaces

    def conclusions(self) -> Conclusions:
        """Return all that was taken in so far, whole; callable from any thread, so it copies."""
        return Conclusions(
            policies=dict(self._policies),
            profiles=dict(self._profiles),
            endpoints=dict(self._endpoints),
            host_endpoints=dict(self._hosts.endpoints),
            surroundings=self._surroundings,
            parameters=Resolved(parameters=self._parameters, origins={}, refused=()),
        )

    def render(self, conclusions: Conclusions) -> Update:
        """Take the conclusions in and return what they change."""
        _fold(self._policies, conclusions.policies)
        _fold(self._profiles, conclusions.profiles)
        regrouped: dict[Group, None] = {}
        for name, endpoint in conclusions.endpoints.items():
            regrouped |= dict.fromkeys(self._groups.take(self._endpoints.get(name), endpoint))
        _fold(self._endpoints, conclusions.endpoints)
        for name, endpoint in conclusions.endpoints.items():
            if endpoint is None:
                self._dispatch.remove(name)
            else:
                self._dispatch.add(name)
        flipped = self._hosts.take(conclusions.host_endpoints)
        if conclusions.surroundings is not None:
            self._surroundings = conclusions.surroundings
        if conclusions.parameters is not None and conclusions.parameters.parameters != self._parameters:
            return self._render_anew(conclusions, conclusions.parameters.parameters, regrouped)
        self._render_policies(conclusions.policies)
        self._render_profiles(conclusions.profiles)
        if flipped:
            self._render_for_hosts(flipped)
        self._render_groups(regrouped)
        self._render_endpoints(conclusions.endpoints)
        self._render_hosts(self._hosts.touched(conclusions.host_endpoints))
        static = conclusions.surroundings is not None or conclusions.parameters is not None
        return self._update(conclusions, conclusions.endpoints, static=static)

    def _render_anew(self, conclusions: Conclusions, parameters: Parameters, regrouped: Iterable[Group]) -> Update:
        """Render everything: the parameters are others."""
        self._parameters = parameters
        # REJECT is a target of the filter table only
        self._silent = replace(parameters, filter_deny_action=DenyAction.DROP)
        for key in [key for key in self._chains if key.version not in parameters.versions]:
            self._drop_chain(key)
        self._render_policies({**conclusions.policies, **self._policies})
        self._render_profiles({**conclusions.profiles, **self._profiles})
        self._render_groups({*regrouped, *self._groups}, anew=True)
        self._render_endpoints({**conclusions.endpoints, **self._endpoints})
        self._render_hosts({*conclusions.host_endpoints, *self._hosts.names})
        self._dispatch.touch_all()
        self._hosts.touch_all()
        return self._update(conclusions, {**conclusions.endpoints, **self._endpoints}, static=True)

    def _update(
        self, conclusions: Conclusions, interfaces: Mapping[IfName, LocalEndpoint | None], *, static: bool
    ) -> Update:
        self._render_dispatch()
        self._render_failsafe(anew=static)
        self._render_spoofing(conclusions)
        sets = dict(self._member_sets(conclusions))
        kernel: dict[ChainKey, KernelChain | None] = {}
        if static and self._surroundings is not None:
            self._render_static(self._surroundings)
            sets |= self._changed_fixed_sets(self._surroundings)
            kernel = self._changed_kernel_chains()
        chains, self._new_chains = self._new_chains, {}
        return Update(
            sets=sets,
            chains=chains,
            kernel_chains=kernel,
            interfaces=self._changed_interfaces(interfaces),
            host_endpoints={name: made.name if made else None for name, made in conclusions.host_endpoints.items()},
            parameters=conclusions.parameters,
            remote=conclusions.remote,
            problems=conclusions.problems,
        )

    def _render_policies(self, policies: Mapping[PolicyId, Rules | None]) -> None:
        for policy, rules in policies.items():
            for direction in Direction:
                title = f"{policy.kind} {'/'.join(filter(None, (policy.namespace, policy.name)))} {direction.value}"
                owner = Owner(direction, policy, rules.tier if rules else "")
                self._rules_chain(policy_chain(policy, direction), title, rules, owner)

    def _render_profiles(self, profiles: Mapping[ProfileName, Rules | None]) -> None:
        for profile, rules in profiles.items():
            for direction in Direction:
                title = f"Profile {profile} {direction.value}"
                self._rules_chain(profile_chain(profile, direction), title, rules, Owner(direction, profile))

    def _rules_chain(self, chain: str, title: str, rules: Rules | None, owner: Owner) -> None:
        """Render the rules of one direction into the tables in which somebody asks them."""
        of_direction = rules.of(owner.direction) if rules else None
        tables = () if rules is None or of_direction is None else self._tables_of(rules.stage, owner)
        for version in self._parameters.versions:
            for table in ("filter", "mangle", "raw"):
                key = ChainKey(version, table, chain)
                if of_direction is None or table not in tables:
                    self._drop_chain(key)
                else:
                    parameters = self._parameters if table == "filter" else self._silent
                    self._put(key, chain_rules(of_direction, title, version, parameters, owner))

    def _tables_of(self, stage: Stage, owner: Owner) -> tuple[str, ...]:
        match stage:
            case Stage.UNTRACKED:
                return ("raw",)
            case Stage.PRE_DNAT:
                return ("mangle",) if owner.direction is Direction.INGRESS else ()
            case Stage.NORMAL:
                after_nat = owner.direction is Direction.EGRESS and self._hosts.is_asked_after_nat(owner.who)
                return ("filter", "mangle") if after_nat else ("filter",)

    def _render_for_hosts(self, flipped: Iterable[PolicyId | ProfileName]) -> None:
        """Render what host endpoints begin or end to ask for in the mangle table."""
        self._render_policies({who: self._policies.get(who) for who in flipped if isinstance(who, PolicyId)})
        self._render_profiles({who: self._profiles.get(who) for who in flipped if not isinstance(who, PolicyId)})

    def _render_hosts(self, names: Iterable[IfName]) -> None:
        for (table, chain), rules in self._hosts.render(names, self._parameters).items():
            self._put_everywhere(table, chain, rules)

    def _render_failsafe(self, *, anew: bool) -> None:
        wanted = self._hosts.failsafe
        for table, direction in self._failsafe - wanted:
            for version in self._parameters.versions:
                self._drop_chain(ChainKey(version, table, FAILSAFE[direction]))
        for table, direction in wanted if anew else wanted - self._failsafe:
            for version in self._parameters.versions:
                rules = failsafe_rules(direction, table, version, self._parameters)
                self._put(ChainKey(version, table, FAILSAFE[direction]), rules)
        self._failsafe = wanted

    def _render_endpoints(self, endpoints: Mapping[IfName, LocalEndpoint | None]) -> None:
        for name, endpoint in endpoints.items():
            for direction in Direction:
                chain = endpoint_chain(_PREFIX[direction], name)
                rules = None if endpoint is None else endpoint_rules(endpoint, direction, self._parameters)
                self._put_everywhere("filter", chain, rules)

    def _render_groups(self, groups: Iterable[Group], *, anew: bool = False) -> None:
        """Render the chains of groups that came (with `anew`, of all), and let those go that nobody uses any more."""
        for group in groups:
            chain = group.chain
            if group not in self._groups:
                self._put_everywhere("filter", chain, None)
            elif anew or ChainKey(self._parameters.versions[0], "filter", chain) not in self._chains:
                self._put_everywhere("filter", chain, group_rules(group, self._parameters))

    def _render_dispatch(self) -> None:
        end = dispatch.unknown_interface(denied(self._parameters))
        for chain, rules in self._dispatch.take_changes({dispatch.FROM: end, dispatch.TO: end}).items():
            self._put_everywhere("filter", chain, rules)
        for (table, chain), of_hosts in self._hosts.render_dispatch(self._parameters).items():
            self._put_everywhere(table, chain, of_hosts)

    def _render_spoofing(self, conclusions: Conclusions) -> None:
        if conclusions.parameters is None and not (self._parameters.source_spoofing and conclusions.endpoints):
            return
        for version in self._parameters.versions:
            rules = spoofing_chain(self._endpoints.values(), version, self._parameters)
            self._put(ChainKey(version, "raw", _SPOOFING_CHAIN), rules)

    def _render_static(self, surroundings: Surroundings) -> None:
        for version in self._parameters.versions:
            for (table, chain), rules in static_chains(version, self._parameters, surroundings).items():
                self._put(ChainKey(version, table, chain), rules)

    def _put_everywhere(self, table: str, chain: str, rules: Iterable[Rule] | None) -> None:
        """Put a chain that is the same in all families, rendered once."""
        rendered = None if rules is None else self._rendered(chain, rules)
        for version in self._parameters.versions:
            key = ChainKey(version, table, chain)
            if rendered is None:
                self._drop_chain(key)
            else:
                self._keep(key, rendered)

    def _put(self, key: ChainKey, rules: Iterable[Rule]) -> None:
        self._keep(key, self._rendered(key.chain, rules))

    def _rendered(self, chain: str, rules: Iterable[Rule]) -> Chain:
        self.rendered += 1
        return render_chain(chain, rules)

    def _keep(self, key: ChainKey, chain: Chain) -> None:
        if self._chains.get(key) != chain:
            self._chains[key] = chain
            self._new_chains[key] = chain

    def _drop_chain(self, key: ChainKey) -> None:
        if self._chains.pop(key, None) is not None:
            self._new_chains[key] = None

    def _member_sets(self, conclusions: Conclusions) -> Iterable[tuple[str, IPSet | SetChange | None]]:
        for set_id, change in conclusions.sets.items():
            owners = conclusions.closing.get(set_id, ())
            for version in self._parameters.versions:
                name = set_name(version, set_id)
                closing = frozenset(key for owner in owners for key in _chains_of(owner, version))
                if change is None:
                    yield name, None
                elif change.whole:
                    whole = member_set(conclusions.specs[set_id], version, change.added[version])
                    yield name, replace(whole, order=change.order, closing=closing)
                elif change.added[version] or change.removed[version]:
                    yield name, SetChange(
                        change.added[version], change.removed[version], order=change.order, closing=closing
                    )

    def _changed_fixed_sets(self, surroundings: Surroundings) -> dict[str, IPSet | SetChange | None]:
        wanted: dict[str, frozenset[str]] = {}
        for version in self._parameters.versions:
            wanted |= fixed_sets(version, self._parameters, surroundings)
        changes: dict[str, IPSet | SetChange | None] = dict.fromkeys(self._fixed_sets.keys() - wanted.keys())
        for name, members in wanted.items():
            before = self._fixed_sets.get(name)
            if before is None:
                changes[name] = self._fixed_set(name, members)
            elif before != members:
                changes[name] = SetChange(members - before, before - members)
        self._fixed_sets = wanted
        return changes

    def _fixed_set(self, name: str, members: frozenset[str]) -> IPSet:
        return IPSet("hash:net", 4 if name.startswith(set_name(4, "")) else 6, members)

    def _changed_kernel_chains(self) -> dict[ChainKey, KernelChain | None]:
        wanted = {
            ChainKey(version, table, chain): render_kernel_chain(chain, rules.first, rules.last)
            for (table, chain), rules in kernel_chains(self._parameters).items()
            for version in self._parameters.versions
        }
        changes: dict[ChainKey, KernelChain | None] = dict.fromkeys(self._kernel_chains.keys() - wanted.keys())
        changes |= {key: chain for key, chain in wanted.items() if self._kernel_chains.get(key) != chain}
        self._kernel_chains = wanted
        return changes

    def _changed_interfaces(
        self, endpoints: Mapping[IfName, LocalEndpoint | None]
    ) -> dict[IfName, LocalInterface | None]:
        changes: dict[IfName, LocalInterface | None] = {}
        for name, endpoint in endpoints.items():
            interface = None if endpoint is None else self._local_interface(endpoint)
            if interface != self._interfaces.get(name):
                changes[name] = interface
        _fold(self._interfaces, changes)
        return changes

    def _local_interface(self, endpoint: LocalEndpoint) -> LocalInterface:
        versions = self._parameters.versions
        return LocalInterface(
            frozenset(net for net in endpoint.addresses if net.version in versions),
            endpoint.mac,
            spoofs=self._parameters.source_spoofing and bool(endpoint.spoofed_sources),
        )


def member_set(spec: SetSpec, version: int, members: frozenset[str]) -> IPSet:
    """Return a set of addresses, or of addresses with ports."""
    return IPSet("hash:net" if spec.port is None else "hash:ip,port", version, members)


def _chains_of(owner: PolicyId | ProfileName, version: int) -> Iterable[ChainKey]:
    """Yield every chain of one family that the rules of a policy or profile may be in."""
    for direction in Direction:
        chain = policy_chain(owner, direction) if isinstance(owner, PolicyId) else profile_chain(owner, direction)
        for table in ("filter", "mangle", "raw"):
            yield ChainKey(version, table, chain)


def _fold(state: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            state.pop(key, None)
        else:
            state[key] = value
