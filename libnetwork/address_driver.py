"""Docker's IPAM driver: pools and addresses, on `ipam` (reference libnetwork.md 3 and 6.2, ipam.md 7.1).

The first sentence of each refusal is that of Calico's own plugin, which users' scripts know (libnetwork.md 6.6).
"""

import calendar
import ipaddress
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import structlog

from ipam.errors import AddressInUse, NotInPool, PoolUnusable, ReleaseRefused
from ipam.port import AddressAllocator
from ipam.results import Allocation, Release
from libnetwork import messages, records
from libnetwork.deadline import Deadline
from libnetwork.leftovers import Leftovers
from libnetwork.server import Call, Role, succeed
from libnetwork.timed_store import Datastore
from resources.errors import Rejected, Transient
from resources.kinds.pool import KIND as POOL
from resources.kinds.pool import IPPool
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import HandleId, IPAddress, IPNetwork, NodeName, parse_address

ANY_POOL = {"CalicoPoolIPv4": 4, "CalicoPoolIPv6": 6}
"""Pool ids of networks without a subnet: any pool of that version."""
_ANY_POOL_ID = {version: pool_id for pool_id, version in ANY_POOL.items()}
EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}
"""What such a network's subnet is called, and the gateway of every network (reference libnetwork.md 3.2)."""

OWNER_TYPE = "docker"
GRACE_SECONDS = 60.0
"""How long an address of another node may wait for its endpoint before it counts as left behind."""

_TIMESTAMP = "%Y-%m-%dT%H:%M:%SZ"
log = structlog.get_logger()


class PoolRefused(Rejected):
    """No pool answers to what `docker network create` asks for."""

    reference = "pool-refused"


class AddressRefused(Rejected):
    """The address cannot be had."""

    reference = "address-refused"


class Endpoints(Protocol):
    """What is needed of `libnetwork.records.EndpointRecords`."""

    orphans: dict[IPAddress, str]

    def holding(self, address: IPAddress, deadline: Deadline) -> WorkloadEndpoint | None: ...


class AddressDriver:
    """Answers IpamDriver calls. Thread-safe.

    Docker gives an address back by its bare value, so what it was given is remembered: the release then names the
    handle, and cannot take the address from somebody who got it in between.
    """

    def __init__(
        self,
        allocator: AddressAllocator,
        datastore: Datastore,
        endpoints: Endpoints,
        leftovers: Leftovers,
        *,
        node: NodeName,
        new_handle: Callable[[], HandleId],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._allocator, self._datastore, self._endpoints = allocator, datastore, endpoints
        self._leftovers = leftovers
        self._node, self._new_handle, self._now = node, new_handle, now
        self._lock = threading.Lock()
        self._given: dict[IPAddress, HandleId] = {}

    def role(self) -> Role:
        return Role(
            "IpamDriver",
            {
                "GetCapabilities": Call(messages.NoArguments, lambda _, __: messages.AddressCapabilities()),
                "GetDefaultAddressSpaces": Call(messages.NoArguments, lambda _, __: messages.AddressSpaces()),
                "RequestPool": Call(messages.RequestPool, self.request_pool),
                "ReleasePool": Call(messages.PoolRef, succeed),
                "RequestAddress": Call(messages.RequestAddress, self.request_address),
                "ReleaseAddress": Call(messages.ReleaseAddress, self.release_address),
            },
        )

    # --- pools

    def request_pool(self, request: messages.RequestPool, deadline: Deadline) -> messages.Pool:
        """Say which pool a network takes its addresses from. Nothing is stored: the same question, the same answer."""
        if request.sub_pool:
            raise PoolRefused(
                "Calico IPAM does not support sub pool configuration on 'docker create network'. Calico IP Pools should"
                " be configured first and IP assignment is from those pre-configured pools.",
                hint=f"Leave --ip-range {request.sub_pool} away.",
            )
        if request.options:
            raise PoolRefused(
                "Arbitrary options are not supported",
                hint=f"leave --ipam-opt {', '.join(sorted(request.options))} away",
            )
        if not request.pool:
            return self._any_pool(request, deadline)
        try:
            subnet = ipaddress.ip_network(request.pool, strict=False)
        except ValueError as error:
            raise PoolRefused("Invalid CIDR", hint=f"{error}") from error
        pools = self._pools(deadline)
        pool = next((pool for pool in pools if pool.network == subnet), None)
        if pool is None:
            raise _in_no_pool(subnet, pools)
        if pool.spec.disabled:
            raise PoolRefused(
                f"The requested subnet must match the CIDR of a configured Calico IP Pool. Pool {_named(pool)} is"
                " disabled",
                hint="enable it: calicoctl apply -f, with disabled: false",
            )
        return _pool_answer(str(subnet), str(subnet), subnet.version)

    def _any_pool(self, request: messages.RequestPool, deadline: Deadline) -> messages.Pool:
        version = 6 if request.v6 else 4
        local = request.address_space == messages.LOCAL_SPACE
        if local and version == 6:
            # Docker would compare any answer with the host's name servers and ask again for ever (libnetwork.md 3.1).
            raise PoolRefused(
                "An IPv6 network needs a subnet", hint="give --subnet with the CIDR of an IPv6 pool as well"
            )
        pools = self._pools(deadline)
        usable = [pool for pool in pools if pool.network.version == version and _serves_everybody(pool)]
        if not usable:
            raise PoolRefused(
                f"There is no IPv{version} pool that could give addresses to containers; {_listed(pools)}",
                hint="create one with calicoctl create -f",
            )
        if local:
            # A real pool as the answer would be on-link by our own routes, and asked for again for ever.
            return _pool_answer(_ANY_POOL_ID[version], EVERYTHING[version], version)
        chosen = str(usable[0].network)
        return _pool_answer(chosen, chosen, version)

    def _pools(self, deadline: Deadline) -> Sequence[IPPool]:
        """Return all pools, enabled or not, in the order of tables."""
        return self._datastore.until(deadline).readable(POOL)

    # --- addresses

    def request_address(self, request: messages.RequestAddress, deadline: Deadline) -> messages.Address:
        """Take an address, any of the pool or the one asked for, under a handle of its own."""
        options = request.options or {}
        if options.get(messages.REQUEST_ADDRESS_TYPE) == messages.GATEWAY:
            raise AddressRefused(
                "Calico IPAM does not support specifying a gateway.",
                hint="Leave --gateway away: the gateway of every container is its host (169.254.1.1, or fe80::...).",
            )
        handle = self._new_handle()
        if request.address:
            address = self._take(_address(request.address), handle, deadline)
        else:
            address = self._take_any(request.pool_id, handle, deadline)
        with self._lock:
            self._given[address] = handle
        log.info("address.assigned", address=str(address), pool=request.pool_id, handle=handle)
        return messages.Address(address=f"{address}/{address.max_prefixlen}")

    def _attributes(self) -> dict[str, str]:
        timestamp = time.strftime(_TIMESTAMP, time.gmtime(self._now()))
        return {"node": self._node, "timestamp": timestamp, "type": OWNER_TYPE}

    def _take_any(self, pool_id: str, handle: HandleId, deadline: Deadline) -> IPAddress:
        version, pools = ANY_POOL.get(pool_id), None
        if version is None:
            pool = self._pool_of(pool_id, deadline)
            version, pools = pool.version, (pool,)
        try:
            assignment = self._allocator.auto_assign(
                version=version, pools=pools, handle=handle, attributes=self._attributes(), timeout=deadline.left()
            )
        except PoolUnusable as error:
            if pools is not None and all(pool.network != pools[0] for pool in self._pools(deadline)):
                raise _deleted(pool_id) from error
            raise
        return assignment.one()

    def _pool_of(self, pool_id: str, deadline: Deadline) -> IPNetwork:
        """Return the CIDR that a pool id stands for: itself, or the pool of that name (older plugins' ids)."""
        try:
            return ipaddress.ip_network(pool_id)
        except ValueError:
            named = (pool for pool in self._pools(deadline) if pool.metadata.name == pool_id)
            pool = next(named, None)
            if pool is None:
                raise _deleted(pool_id) from None
            return pool.network

    def _take(self, address: IPAddress, handle: HandleId, deadline: Deadline) -> IPAddress:
        try:
            self._allocator.assign(
                address, handle=handle, attributes=self._attributes(), timeout=deadline.left()
            )
        except NotInPool as error:
            raise AddressRefused(
                f"Address {address} is in no enabled pool; {_listed(self._pools(deadline))}",
                hint="create one with calicoctl create -f",
            ) from error
        except AddressInUse as error:
            raise AddressRefused(
                f"Address {address} is already in use{self._by_whom(address, deadline)}",
                hint="choose another one, or none and let Docker choose",
            ) from error
        return address

    def _by_whom(self, address: IPAddress, deadline: Deadline) -> str:
        record = self._endpoints.holding(address, deadline)
        if record is not None:
            container = record.metadata.annotations.get(records.CONTAINER)
            who = f"container {container}" if container else f"endpoint {record.spec.endpoint[:12]}"
            return f" by {who} on {record.spec.node}"
        allocation = self._allocator.attributes(address)
        node = allocation and allocation.attributes.get("node")
        return f" on {node}" if node else ""

    def release_address(self, request: messages.ReleaseAddress, deadline: Deadline) -> messages.Message:
        """Give an address back; one that is not allocated, or is somebody else's by now, is left alone."""
        address = _address(request.address)
        if address.is_unspecified:  # the gateway that request_pool made up
            return messages.Empty()
        with self._lock:
            handle = self._given.get(address)
        release = Release(address, handle) if handle else self._unremembered(address, deadline)
        if release is not None:
            try:
                self._release(release, deadline)
            except Transient:
                owner = release.handle or release.sequence
                self._leftovers.add(f"address {address} of {owner}", partial(self._release, release))
                raise
        return messages.Empty()

    def _release(self, release: Release, deadline: Deadline) -> None:
        address = str(release.address)
        try:
            unallocated = self._allocator.release([release], timeout=deadline.left())
        except ReleaseRefused as refused:
            log.warning("address.kept", address=address, reason=str(refused))
        else:
            if not unallocated:
                log.info("address.released", address=address)
        with self._lock:
            if release.handle and self._given.get(release.address) == release.handle:
                del self._given[release.address]

    def _unremembered(self, address: IPAddress, deadline: Deadline) -> Release | None:
        """Return the release of an allocation that this process did not make, or None if it is not to be touched.

        Docker asks for addresses of other nodes too, when a container of a lost host is disconnected by force. But a
        daemon that comes back late may also ask for an address that has gone to another node since.
        """
        allocation = self._allocator.attributes(address)
        if allocation is None or allocation.cooling:
            return None
        if reason := self._not_ours(allocation, deadline):
            log.warning("address.kept", address=str(address), reason=reason, **allocation.attributes)
            return None
        return Release(address, sequence=allocation.sequence)

    def _not_ours(self, allocation: Allocation, deadline: Deadline) -> str | None:
        attributes = allocation.attributes
        if attributes.get("type", OWNER_TYPE) != OWNER_TYPE:
            return "it was not assigned for Docker"
        node = attributes.get("node")
        if node in (None, self._node, self._endpoints.orphans.pop(allocation.address, "")):
            return None
        if self._endpoints.holding(allocation.address, deadline) is not None:
            return f"an endpoint on {node} has it"
        if self._age_seconds(attributes) < GRACE_SECONDS:
            return f"{node} was given it just now"
        return None

    def _age_seconds(self, attributes: Mapping[str, str]) -> float:
        try:
            return self._now() - calendar.timegm(time.strptime(attributes.get("timestamp", ""), _TIMESTAMP))
        except ValueError:
            return float("inf")


def _address(text: str) -> IPAddress:
    try:
        return parse_address(text)
    except ValueError as error:
        raise AddressRefused(f"{text!r} is not an address") from error


def _pool_answer(pool_id: str, pool: str, version: int) -> messages.Pool:
    """Without a gateway Docker would ask for one, and the pool lose an address that no interface carries."""
    return messages.Pool(pool_id=pool_id, pool=pool, data={messages.GATEWAY: EVERYTHING[version]})


def _serves_everybody(pool: IPPool) -> bool:
    spec = pool.spec
    return (
        not spec.disabled
        and spec.assignment_mode != "Manual"
        and (not spec.allowed_uses or "Workload" in spec.allowed_uses)
        and spec.node_selector.strip() in ("", "all()")
    )


def _in_no_pool(subnet: IPNetwork, pools: Sequence[IPPool]) -> PoolRefused:
    around = next((pool for pool in pools if _contains(pool.network, subnet)), None)
    if around is not None:
        where, hint = f"is only a part of pool {_named(around)}", f"give --subnet {around.network}"
    else:
        where, hint = f"is in no pool; {_listed(pools)}", "create one with calicoctl create -f"
    return PoolRefused(
        f"The requested subnet must match the CIDR of a configured Calico IP Pool. Subnet {subnet} {where}", hint=hint
    )


def _contains(pool: IPNetwork, subnet: IPNetwork) -> bool:
    return pool.version == subnet.version and subnet.subnet_of(pool)  # type: ignore[arg-type]  # versions are equal


def _deleted(pool_id: str) -> PoolRefused:
    return PoolRefused(
        "The network references a Calico pool which has been deleted. Please re-instate the Calico pool before using"
        " the network.",
        hint=f"The pool was {pool_id}.",
    )


def _named(pool: IPPool) -> str:
    return f"{pool.network} ({pool.metadata.name})"


def _listed(pools: Sequence[IPPool]) -> str:
    if not pools:
        return "there are no pools"
    return "pools are " + ", ".join(f"{pool.network}{' (disabled)' if pool.spec.disabled else ''}" for pool in pools)
