"""A store with nodes and pools in it, and what a test of the driver asks of its contents."""

from collections.abc import Iterable

from ipam.allocator import Allocator
from ipam.results import Allocation
from resources.datastore import keys
from resources.datastore.client import ResourceClient
from resources.datastore.store import Store
from resources.kinds.base import Metadata
from resources.kinds.node import KIND as NODE
from resources.kinds.node import Node
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool, IPPoolSpec
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.profile import Profile
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import HandleId, IPAddress, NodeName, parse_address

NAMESPACE = "libnetwork"


class SeededStore:
    """Nodes by name; pools are added with `add_pool`."""

    def __init__(self, store: Store, *, nodes: Iterable[str]) -> None:
        self.store = store
        self.client = ResourceClient(store)
        for name in nodes:
            self.client.create(NODE, Node(metadata=Metadata(name=name)))

    def add_pool(self, name: str, cidr: str, **spec: object) -> None:
        made = IPPoolSpec(cidr=cidr, **spec)  # type: ignore[arg-type]
        self.client.create(POOL, IPPool(metadata=Metadata(name=name), spec=made))

    def remove_pool(self, name: str) -> None:
        """As by hand: the key is gone, blocks stay."""
        key = keys.resource_key(keys.ResourceKey(POOL.plural, name))
        found = self.store.get(key)
        assert found is not None
        self.client.remove(found, name)

    def endpoints(self, namespace: str = NAMESPACE) -> dict[str, WorkloadEndpoint]:
        """Return the records by endpoint id."""
        listing = self.client.list(ENDPOINT, namespace)
        assert listing.bad == ()
        return {record.spec.endpoint: record for record in listing.items}

    def profiles(self) -> dict[str, Profile]:
        return {
            profile.metadata.name: profile
            for profile in self.client.readable(PROFILE)
            if profile.metadata.name != "projectcalico-default-allow"
        }

    def allocation(self, address: str | IPAddress) -> Allocation | None:
        return Allocator(self.store, NodeName("observer")).attributes(parse_address(str(address)))

    def handles(self) -> list[HandleId]:
        found = (keys.parse_handle_key(item.key) for item in self.store.list(keys.IPAM_HANDLES).items)
        return [handle for handle in found if handle]

    def allocated(self) -> dict[IPAddress, HandleId]:
        """Return who holds which address, by the handles."""
        allocator = Allocator(self.store, NodeName("observer"))
        return {address: handle for handle in self.handles() for address in allocator.addresses_of_handle(handle)}
