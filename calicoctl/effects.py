"""Whom a policy or a host endpoint that is written cuts off: said once, with numbers, before it happens."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from resources.datastore.client import ResourceClient
from resources.documents import Document
from resources.errors import CalicoError, StoreUnavailable
from resources.kinds.base import Kind, Resource
from resources.kinds.globalnetworkpolicy import KIND as GLOBAL_POLICY
from resources.kinds.globalnetworkpolicy import GlobalNetworkPolicy
from resources.kinds.hostendpoint import ALL_INTERFACES, HostEndpoint
from resources.kinds.hostendpoint import KIND as HOST_ENDPOINT
from resources.kinds.networkpolicy import NetworkPolicy
from resources.kinds.node import KIND as NODE
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.rule import Rule
from resources.kinds.tier import KIND as TIER
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.selection import policy_selector, seen_labels
from resources.selector import Selector

Labels = Mapping[str, str]
R = TypeVar("R", bound=Resource)
CONTAINERS = "cali"
"""What the names of containers' interfaces begin with, unless felix is told otherwise."""
_WAYS = {("Ingress",): "to", ("Egress",): "from", ("Ingress", "Egress"): "to or from"}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The store as it will be, as far as it is asked for."""

    workloads: Mapping[tuple[str, str], Labels]
    """Labels that selectors see, by namespace and name."""
    hosts: Mapping[tuple[str, str], Labels]
    host_endpoints: Mapping[tuple[str, str], HostEndpoint]
    profiles: frozenset[str] = frozenset()
    pass_tiers: frozenset[str] = frozenset()
    """Tiers that hand on what none of their policies decided."""
    policies: Sequence[GlobalNetworkPolicy] = ()
    nodes: frozenset[str] = frozenset()


def warnings(client: ResourceClient, documents: Sequence[Document]) -> list[str]:
    """Return one line for each document that cuts endpoints off or picks none. Records that cannot be read count not.

    Raises:
        StoreUnavailable: the store is away; a write would only wait as long once more to say so.
    """
    written = [document.resource for document in documents]
    if not any(map(_is_worth_reading, written)):
        return []
    try:
        return list(told(written, _read(client, written)))
    except StoreUnavailable:
        raise
    except CalicoError:
        return []


def _is_worth_reading(resource: Resource) -> bool:
    """Return whether anything might be said of it: most policies allow something, and need no look at the store."""
    if isinstance(resource, GlobalNetworkPolicy):
        spec = resource.spec
        return spec.do_not_track or spec.pre_dnat or bool(closed_ways(resource, passes=False))
    return isinstance(resource, NetworkPolicy | HostEndpoint)


def told(written: Iterable[Resource], world: World) -> Iterator[str]:
    """Return what to say of resources that are written. Pure."""
    for resource in written:
        if isinstance(resource, GlobalNetworkPolicy | NetworkPolicy):
            yield from _policy(resource, world)
        elif isinstance(resource, HostEndpoint):
            yield from _host_endpoint(resource, world)


def _policy(policy: GlobalNetworkPolicy | NetworkPolicy, world: World) -> Iterator[str]:
    metadata = policy.metadata
    name = f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
    home = metadata.namespace
    if home and world.workloads and not any(namespace == home for namespace, _ in world.workloads):
        others = sorted({namespace for namespace, _ in world.workloads})
        yield (
            f"policy {name} is for the endpoints of namespace {home}, and there are none: "
            f"endpoints are in {', '.join(others)} (-n {others[0]})"
        )
    selector = _selector(policy)
    hosts = [key for key, labels in world.hosts.items() if selector.matches(labels)]
    workloads = sum(map(selector.matches, world.workloads.values()))
    if isinstance(policy, GlobalNetworkPolicy) and (policy.spec.do_not_track or policy.spec.pre_dnat):
        yield from _early(policy, workloads, hosts, world)
        workloads = 0
        if policy.spec.do_not_track:
            hosts = [key for key in hosts if not _is_wild(world.host_endpoints[key])]
    ways = closed_ways(policy, passes=policy.spec.tier in world.pass_tiers)
    if ways and workloads + len(hosts):
        yield _cut_off(policy, name, ways, workloads, len(hosts))


def _early(
    policy: GlobalNetworkPolicy, workloads: int, hosts: Sequence[tuple[str, str]], world: World
) -> Iterator[str]:
    """Tell where a policy that comes before connection tracking or NAT is not applied."""
    flag = "doNotTrack" if policy.spec.do_not_track else "preDNAT"
    name = policy.metadata.name
    if workloads and not hosts:
        yield (
            f"policy {name} has {flag}, which only host endpoints take, and it selects none of them: "
            f"the {workloads} workload endpoint(s) that it selects stay as they are"
        )
    wild = [key[1] for key in hosts if _is_wild(world.host_endpoints[key])]
    if wild and policy.spec.do_not_track:
        yield (
            f"policy {name} has doNotTrack, which a host endpoint of all interfaces does not take: it is not applied "
            f"to {', '.join(sorted(wild)[:3])}{', ...' if len(wild) > 3 else ''}; name the interfaces one by one"
        )


def _is_wild(endpoint: HostEndpoint) -> bool:
    return endpoint.spec.interface_name == ALL_INTERFACES


def _cut_off(
    policy: GlobalNetworkPolicy | NetworkPolicy, name: str, ways: tuple[str, ...], workloads: int, hosts: int
) -> str:
    counts = [f"{count} {kind}" for count, kind in ((workloads, "workload"), (hosts, "host")) if count]
    endpoints = "1 endpoint" if workloads + hosts == 1 else f"{workloads + hosts} endpoints"
    failsafe = " (and, on hosts, the failsafe ports)" if hosts else ""
    return (
        f"policy {name} selects {endpoints} ({', '.join(counts)}) and allows nothing {_WAYS[ways]} them: only what "
        f"another policy allows before it{failsafe} gets through. If that is not meant, give it a rule with action "
        f"Allow, or a narrower selector than {policy.spec.selector or 'all()'}"
    )


def closed_ways(policy: GlobalNetworkPolicy | NetworkPolicy, *, passes: bool) -> tuple[str, ...]:
    """Return the types in which a policy lets nothing through; `passes`: its tier hands on what is left."""
    spec = policy.spec
    if isinstance(policy, GlobalNetworkPolicy) and (policy.spec.do_not_track or policy.spec.pre_dnat):
        passes = True  # what they do not decide is decided later
    sides = {"Ingress": spec.ingress, "Egress": spec.egress}
    return tuple(type_ for type_, rules in sides.items() if type_ in spec.types and _closes(rules, passes))


def _closes(rules: Sequence[Rule], passes: bool) -> bool:
    for rule in rules:
        if rule.action in ("Allow", "Pass"):
            return False
        if rule == Rule(action="Deny", metadata=rule.metadata):
            return True
    return not passes


def _selector(policy: GlobalNetworkPolicy | NetworkPolicy) -> Selector:
    return policy_selector(
        policy.spec.selector,
        namespace=policy.metadata.namespace,
        namespaces=policy.spec.namespace_selector if isinstance(policy, GlobalNetworkPolicy) else "",
        service_accounts=policy.spec.service_account_selector,
    )


def _host_endpoint(endpoint: HostEndpoint, world: World) -> Iterator[str]:
    name, spec = endpoint.metadata.name, endpoint.spec
    if spec.node not in world.nodes:
        known = f"nodes are {', '.join(sorted(world.nodes)[:5])}" if world.nodes else "there are no nodes yet"
        yield f"host endpoint {name} is on node {spec.node}, which does not exist: {known}"
    yield from _unserved(endpoint, world)
    missing = [profile for profile in spec.profiles if profile not in world.profiles]
    for profile in missing:
        yield f"host endpoint {name} has the profile {profile}, which does not exist: it allows nothing"
    if len(missing) < len(spec.profiles):
        return
    labels = world.hosts["", name]
    covered = {
        type_
        for policy in world.policies
        if not (policy.spec.do_not_track or policy.spec.pre_dnat) and _selector(policy).matches(labels)
        for type_ in policy.spec.types
    }
    open_ways = tuple(type_ for type_ in ("Ingress", "Egress") if type_ not in covered)
    if open_ways:
        where = "any interface" if spec.interface_name == ALL_INTERFACES else spec.interface_name
        where = where or f"the interface with {', '.join(spec.expected_ips)}"
        yield (
            f"no policy of type {' or '.join(open_ways)} selects host endpoint {name}, and no profile allows anything: "
            f"nothing {_WAYS[open_ways]} node {spec.node} on {where} but the failsafe ports gets through. If that is "
            "not meant, write the policy first, or give it the profile projectcalico-default-allow"
        )


def _unserved(endpoint: HostEndpoint, world: World) -> Iterator[str]:
    """Tell if no interface will have the endpoint: another one comes first, or it is a container's."""
    name, spec = endpoint.metadata.name, endpoint.spec
    rivals = [
        other.metadata.name
        for other in world.host_endpoints.values()
        if (other.spec.node, other.spec.interface_name) == (spec.node, spec.interface_name) != (spec.node, "")
    ]
    if rivals and min(rivals) != max(rivals):
        first, rest = min(rivals), sorted(set(rivals) - {min(rivals)})
        yield (
            f"host endpoints {', '.join(sorted(rivals))} are for the same interface {spec.interface_name} of node "
            f"{spec.node}: only {first} is served, not {', '.join(rest)}"
        )
    if spec.interface_name.startswith(CONTAINERS):
        yield f"host endpoint {name} is for {spec.interface_name}, a container's interface: it is not served"


def _read(client: ResourceClient, written: Sequence[Resource]) -> World:
    profiles = _merged(client, PROFILE, written)
    handed_down = {name: profile.spec.labels_to_apply for (_, name), profile in profiles.items()}
    with_hosts = any(isinstance(resource, HostEndpoint) for resource in written)

    def labels(resource: Resource, namespace: str, parents: Sequence[str]) -> Labels:
        seen = seen_labels(resource.metadata.labels, namespace)
        inherited = [handed_down[name] for name in parents if handed_down.get(name)]
        effective: dict[str, str] = {}
        for from_parent in reversed(inherited):
            effective.update(from_parent)
        return {**effective, **seen} if effective else seen

    host_endpoints = _merged(client, HOST_ENDPOINT, written)
    return World(
        workloads={
            key: labels(endpoint, key[0], endpoint.spec.profiles)
            for key, endpoint in _merged(client, ENDPOINT, written).items()
        },
        hosts={key: labels(endpoint, "", endpoint.spec.profiles) for key, endpoint in host_endpoints.items()},
        host_endpoints=host_endpoints,
        profiles=frozenset(handed_down),
        pass_tiers=frozenset(
            name for (_, name), tier in _merged(client, TIER, written).items() if tier.spec.default_action == "Pass"
        ),
        policies=tuple(_merged(client, GLOBAL_POLICY, written).values()) if with_hosts else (),
        nodes=frozenset(name for _, name in _merged(client, NODE, written)) if with_hosts else frozenset(),
    )


def _merged(client: ResourceClient, kind: Kind[R], written: Iterable[Resource]) -> dict[tuple[str, str], R]:
    """Return the resources of a kind, by namespace and name, as they will be once `written` is."""
    resources = [*client.readable(kind), *(new for new in written if isinstance(new, kind.type))]
    return {(resource.metadata.namespace, resource.metadata.name): resource for resource in resources}
