"""A network of the product whose workloads are bare namespaces: what the Docker driver does, without Docker.

Not imported by `bed` itself, which needs the standard library only: ``from bed.network import Network``.
"""

import threading
from collections.abc import Mapping
from ipaddress import ip_network

from bed.cluster import Cluster
from bed.host import Host
from bed.workload import Workload
from ipam.allocator import Allocator
from ipam.cleanup import Cleanup
from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import connect
from resources.datastore.store import Store
from resources.kinds.base import Metadata
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.profile import Profile, ProfileSpec
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import DOCKER_NAMESPACE, WorkloadEndpoint, WorkloadEndpointSpec, endpoint_name
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.names import HandleId, NodeName


class Network:
    """A pool and a profile of its own, as a Docker network has; `attach` puts workloads on it.

    Its members reach each other and nobody else does, until a policy says otherwise. A member has the label of the
    network's name, as Docker's have: ``has(NAME)`` selects them.
    """

    def __init__(
        self,
        cluster: Cluster,
        name: str = "net1",
        cidr: str = "10.65.0.0/24",
        cidr6: str = "",
        *,
        nat_outgoing: bool = False,
    ) -> None:
        """`cidr`, `cidr6`: of its pools; a member has an address of each that is given."""
        self.cluster, self.name = cluster, name
        self.cidrs = [ip_network(given) for given in (cidr, cidr6) if given]
        self._store: Store = connect(EtcdConfig(endpoints=tuple(cluster.store.endpoint_list)))
        self.client = ResourceClient(self._store, ipam=Cleanup(self._store))
        self._count = 0
        self._lock = threading.Lock()
        member = EntityRule(selector=f"has({name})")
        spec = ProfileSpec(
            ingress=[Rule(action="Allow", source=member)], egress=[Rule(action="Allow")], labels_to_apply={name: ""}
        )
        with self.cluster.fabric.entered():
            for pool in self.cidrs:
                of_pool = IPPoolSpec(cidr=str(pool), nat_outgoing=nat_outgoing)
                named = f"{name}-pool" if pool.version == 4 else f"{name}-pool6"
                self.client.create(POOL, IPPool(metadata=Metadata(name=named), spec=of_pool))
            self.client.create(PROFILE, Profile(metadata=Metadata(name=name), spec=spec))

    def attach(self, host: Host, name: str, *, labels: Mapping[str, str] | None = None) -> Workload:
        """Give a new workload on `host` an address of each pool of the network, its interface and its record."""
        with self._lock:
            self._count += 1
            handle = HandleId(f"bed.{self.name}.{self._count}")
        with self.cluster.fabric.entered():
            allocator = Allocator(self._store, NodeName(host.node))
            addresses = [
                allocator.auto_assign(version=cidr.version, pools=[cidr], handle=handle).one() for cidr in self.cidrs
            ]

        def record(workload: Workload) -> None:
            with self.cluster.fabric.entered():
                self.client.create(ENDPOINT, self._endpoint(workload, labels or {}))

        def unrecord(workload: Workload) -> None:
            with self.cluster.fabric.entered():
                endpoint = self._endpoint(workload, {})
                self.client.delete(ENDPOINT, endpoint.metadata.name, endpoint.metadata.namespace)
                allocator.release_by_handle(handle)

        return Workload(host, name, addresses, record=record, unrecord=unrecord)

    def _endpoint(self, workload: Workload, labels: Mapping[str, str]) -> WorkloadEndpoint:
        spec = WorkloadEndpointSpec(
            node=workload.host.node,
            orchestrator="libnetwork",
            workload="libnetwork",
            endpoint=workload.interface.removeprefix("cali"),
            ip_networks=[f"{address}/{address.max_prefixlen}" for address in workload.addresses],
            profiles=[self.name],
            interface_name=workload.interface,
        )
        name = endpoint_name(spec)
        return WorkloadEndpoint(
            metadata=Metadata(name=name, namespace=DOCKER_NAMESPACE, labels=dict(labels)), spec=spec
        )
