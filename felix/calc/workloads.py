"""The workloads of this host: which has which interface, and what applies to it.

Of two that claim one interface the one with the lowest id is served; the other waits in its shadow (reference felix.md
2.1). Two may claim one address: both are handed on, and the route goes to the interface that is up and newest, which
only the dataplane knows (reference felix.md 2.4).
"""

from collections.abc import Mapping, Sequence

from felix.calc.book import Book
from felix.calc.claims import Claims
from felix.calc.endpoints import Local, read_local, read_member
from felix.calc.ipsets import MemberSets
from felix.calc.model import LocalEndpoint
from felix.calc.policies import PolicyRecord, ordered
from felix.calc.problems import Problems
from felix.calc.reading import Reader, expected
from felix.calc.serving import Serving
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import IfName, NodeName


class LocalEndpoints(Claims[Local]):
    """The workloads of this host, by the interface they claim."""

    def _order(self, _: ResourceKey, record: Local) -> tuple[object, ...]:
        return record.order

    def _admits(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> bool:
        return interface.startswith(workload_prefixes)

    def _refusal(self, interface: IfName, workload_prefixes: tuple[str, ...]) -> str:
        return f"it is not served: interface {interface} does not begin with {' or '.join(workload_prefixes)}"


class Workloads(Serving[Local, LocalEndpoint]):
    """Reads workload endpoints: all as members of sets, those of this host to serve them."""

    def __init__(self, node: NodeName, members: MemberSets, book: Book, problems: Problems) -> None:
        super().__init__(LocalEndpoints(), book, problems)
        self._node = node
        self._members = members
        self.readers: Mapping[str, Reader] = {"workloadendpoints": self._read}

    def _read(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        member = local = None
        if value is not None:
            endpoint = expected(WorkloadEndpoint, value)
            member = read_member(endpoint)
            local = read_local(key, endpoint) if endpoint.node == self._node else None
        self._members.set_endpoint(key, member)
        self.put(key, local)
        return ()

    def _is_asked(self, policy: PolicyRecord) -> bool:
        return policy.for_workloads

    def _conclude(
        self, interface: IfName, _: ResourceKey, record: Local, policies: Sequence[PolicyRecord]
    ) -> tuple[LocalEndpoint, Sequence[str]]:
        endpoint = LocalEndpoint(
            interface=interface,
            addresses=record.networks,
            mac=record.mac,
            tiers=ordered(policies, self._book.tiers),
            profiles=record.profiles,
            spoofed_sources=record.spoofed_sources,
            name=record.name,
        )
        return endpoint, ()
