"""dockerd's side of the plugin protocol: the calls of each command, in its order, with its roll-backs.

What it does is what Docker 20.10 was measured to do (reference libnetwork.md 2 to 5); `later` makes it send what Docker
28 sends. Containers have no processes: only what the driver was told counts.
"""

import ipaddress
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

from fakes.engine_api import FakeEngine
from fakes.plugin_client import Json, PluginError

Caller = Callable[[str, Json | None], dict[str, object]]
"""Calls a method of the plugin. Raises PluginError, or PluginDied."""


class PluginDied(Exception):
    """The plugin died during the call; it has been started again."""


class DockerError(Exception):
    """What the user reads after ``Error response from daemon: ``."""


@dataclass
class Network:
    id: str
    name: str
    pools: list[tuple[str, str]]
    """Pool ids and subnets, as IPAM gave them."""
    internal: bool = False


@dataclass
class Endpoint:
    id: str
    network: Network
    addresses: dict[str, str] = field(default_factory=dict)
    """Address (with its length) by pool id."""
    mac: str = ""
    joined: dict[str, object] = field(default_factory=dict)


@dataclass
class Container:
    name: str
    sandbox: str = ""
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    """By the network's name."""


class FakeDockerd:
    """One dockerd. `shared` networks and their endpoints are those of a cluster store that several use.

    `ids` makes identifiers; several dockerds of one test must share it.
    """

    def __init__(
        self,
        call: Caller,
        engine: FakeEngine,
        *,
        ids: Callable[[], str],
        networks: dict[str, Network] | None = None,
        scope: str = "global",
        later: bool = False,
    ) -> None:
        self._call, self.engine, self._ids = call, engine, ids
        self.networks = {} if networks is None else networks
        self.containers: dict[str, Container] = {}
        self._space = {"global": "CalicoGlobalAddressSpace", "local": "CalicoLocalAddressSpace"}[scope]
        self._later = later
        self.errors: list[str] = []
        """Errors that Docker only logs."""

    # --- networks

    def network_create(
        self,
        name: str,
        *subnets: str,
        ipv6: bool = False,
        internal: bool = False,
        options: Mapping[str, str] | None = None,
        ip_range: str = "",
        ipam_options: Mapping[str, str] | None = None,
        gateway: str = "",
    ) -> Network:
        network = Network(self._ids(), name, [], internal)
        wanted = list(subnets) or [""]
        if ipv6 and not any(":" in subnet for subnet in subnets):
            wanted.append("")
        data: dict[int, list[dict[str, str]]] = {4: [], 6: []}
        try:
            for position, subnet in enumerate(wanted):
                v6 = ":" in subnet or (not subnet and position > 0)
                pool = self._ask(
                    "IpamDriver.RequestPool",
                    {
                        "AddressSpace": self._space, "Pool": subnet, "SubPool": ip_range,
                        "Options": dict(ipam_options or {}), "V6": v6,
                    },
                )
                pool_id, cidr = str(pool["PoolID"]), str(pool["Pool"])
                ipaddress.ip_network(cidr)
                network.pools.append((pool_id, cidr))
                given = cast(dict[str, str], pool["Data"]).get("com.docker.network.gateway", "")
                if gateway or not given:
                    given = self._request_gateway(pool_id, gateway)
                data[6 if v6 else 4].append({"AddressSpace": self._space, "Pool": cidr, "Gateway": given})
            self._ask("NetworkDriver.CreateNetwork", self._network_request(network, data, ipv6, options))
        except DockerError:
            self._release_pools(network)
            raise
        self.networks[name] = network
        self.engine.add_network(network.id, name)
        return network

    def _request_gateway(self, pool_id: str, gateway: str) -> str:
        try:
            answer = self._ask(
                "IpamDriver.RequestAddress",
                {
                    "PoolID": pool_id, "Address": gateway,
                    "Options": {"RequestAddressType": "com.docker.network.gateway"},
                },
            )
        except DockerError as error:
            raise DockerError(f"failed to allocate gateway ({gateway}): {error}") from error
        return str(answer["Address"])

    def _network_request(
        self, network: Network, data: Mapping[int, object], ipv6: bool, options: Mapping[str, str] | None
    ) -> Json:
        settings: dict[str, object] = {
            "com.docker.network.enable_ipv6": ipv6, "com.docker.network.generic": dict(options or {}),
        }
        if network.internal:
            settings["com.docker.network.internal"] = True
        if self._later:
            settings["com.docker.network.enable_ipv4"] = True
        return {"NetworkID": network.id, "Options": settings, "IPv4Data": data[4], "IPv6Data": data[6]}

    def network_rm(self, name: str) -> None:
        network = self.networks[name]
        if any(name in container.endpoints for container in self.containers.values()):
            raise DockerError(f"error while removing network: network {name} has active endpoints")
        self._release_pools(network)
        self.engine.networks[network.id].visible = False
        self._tell("NetworkDriver.DeleteNetwork", {"NetworkID": network.id})
        del self.engine.networks[network.id], self.networks[name]

    def _release_pools(self, network: Network) -> None:
        for pool_id, cidr in network.pools:
            self._tell("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": "::" if ":" in cidr else "0.0.0.0"})
        for pool_id, _ in network.pools:
            self._tell("IpamDriver.ReleasePool", {"PoolID": pool_id})

    # --- containers

    def run(
        self, name: str, network: str, *, ip: str = "", mac: str = "", labels: Mapping[str, str] | None = None
    ) -> Endpoint:
        """``docker run --name NAME --net NETWORK``; the container is removed again if it fails, as with ``--rm``."""
        self.containers[name] = Container(name, sandbox=f"/var/run/docker/netns/{self._ids()[:12]}")
        self.engine.add_container(name, labels)
        try:
            return self.connect(name, network, ip=ip, mac=mac)
        except DockerError:
            del self.containers[name], self.engine.containers[name]
            raise

    def connect(self, name: str, network: str, *, ip: str = "", mac: str = "") -> Endpoint:
        """Give a running container an endpoint on one more network."""
        container, net = self.containers[name], self.networks[network]
        endpoint = Endpoint(self._ids(), net)
        self._request_addresses(endpoint, ip)
        try:
            self._create_endpoint(endpoint, mac)
        except DockerError as error:
            self._release_addresses(endpoint)
            raise DockerError(f"failed to create endpoint {name} on network {network}: {error}") from error
        listed = self.engine.networks[net.id]
        listed.endpoints[endpoint.id] = name
        try:
            self._join(container, endpoint)
        except DockerError:
            del listed.endpoints[endpoint.id]
            self._tell("NetworkDriver.DeleteEndpoint", _ids_of(endpoint))
            self._release_addresses(endpoint)
            raise
        container.endpoints[network] = endpoint
        listed.joined.add(endpoint.id)
        return endpoint

    def _request_addresses(self, endpoint: Endpoint, ip: str) -> None:
        served = set()
        try:
            for pool_id, cidr in endpoint.network.pools:
                version = ipaddress.ip_network(cidr).version
                wanted = ip if ip and ipaddress.ip_address(ip) in ipaddress.ip_network(cidr) else ""
                if version in served or (ip and version == 4 and not wanted):
                    continue
                served.add(version)
                answer = self._ask(
                    "IpamDriver.RequestAddress", {"PoolID": pool_id, "Address": wanted, "Options": None}
                )
                endpoint.addresses[pool_id] = str(answer["Address"])
        except DockerError:
            self._release_addresses(endpoint)
            raise

    def _create_endpoint(self, endpoint: Endpoint, mac: str) -> None:
        by_version = {ipaddress.ip_interface(text).version: text for text in endpoint.addresses.values()}
        interface = {"Address": by_version.get(4, ""), "AddressIPv6": by_version.get(6, ""), "MacAddress": mac}
        options: dict[str, object] = {
            "com.docker.network.endpoint.exposedports": [], "com.docker.network.portmap": [],
        }
        request = {**_ids_of(endpoint), "Interface": interface, "Options": options}
        answer = self._ask("NetworkDriver.CreateEndpoint", request)
        filled = cast(dict[str, str], answer.get("Interface") or {})
        for member, value in filled.items():
            if value and interface[member]:
                raise DockerError(f"driver modified interface {member}")
        endpoint.mac = mac or filled.get("MacAddress", "")

    def _join(self, container: Container, endpoint: Endpoint) -> None:
        request = {**_ids_of(endpoint), "SandboxKey": container.sandbox, "Options": {}}
        endpoint.joined = self._ask("NetworkDriver.Join", request)
        if not endpoint.network.internal:
            self._ask("NetworkDriver.ProgramExternalConnectivity", {**_ids_of(endpoint), "Options": {}})
        for _ in range(1 if self._later else 2):
            self._ask("NetworkDriver.EndpointOperInfo", _ids_of(endpoint))

    def disconnect(self, name: str, network: str) -> None:
        endpoint = self.containers[name].endpoints.pop(network)
        self._tell("NetworkDriver.RevokeExternalConnectivity", _ids_of(endpoint))
        self._tell("NetworkDriver.Leave", _ids_of(endpoint))
        self._forget(endpoint)
        self._tell("NetworkDriver.DeleteEndpoint", _ids_of(endpoint))
        self._release_addresses(endpoint)

    def disconnect_by_force(self, endpoint: Endpoint) -> None:
        """``docker network disconnect -f`` of a container of a host that is lost."""
        self._forget(endpoint)
        self._tell("NetworkDriver.DeleteEndpoint", _ids_of(endpoint))
        self._release_addresses(endpoint)

    def rm(self, name: str) -> None:
        """``docker rm -f``."""
        for network in list(self.containers[name].endpoints):
            self.disconnect(name, network)
        del self.containers[name], self.engine.containers[name]

    def crash(self) -> None:
        """Killed and started again: of each endpoint only the addresses are released."""
        for container in self.containers.values():
            for endpoint in container.endpoints.values():
                self._forget(endpoint)
                self._release_addresses(endpoint)
        self.containers.clear()
        self.engine.containers.clear()

    def _forget(self, endpoint: Endpoint) -> None:
        listed = self.engine.networks[endpoint.network.id]
        listed.endpoints.pop(endpoint.id, None)
        listed.joined.discard(endpoint.id)

    def _release_addresses(self, endpoint: Endpoint) -> None:
        for pool_id, address in endpoint.addresses.items():
            bare = address.partition("/")[0]
            self._tell("IpamDriver.ReleaseAddress", {"PoolID": pool_id, "Address": bare})

    # --- calls

    def _ask(self, call: str, request: Json) -> dict[str, object]:
        """Call; a call that is cut is repeated once, with an empty body."""
        try:
            try:
                return self._call(call, request)
            except PluginDied:
                return self._call(call, None)
        except PluginError as error:
            self.errors.append(str(error))
            raise DockerError(str(error)) from error

    def _tell(self, call: str, request: Json) -> None:
        """Call, and only log an error."""
        try:
            self._ask(call, request)
        except DockerError:
            pass


def _ids_of(endpoint: Endpoint) -> dict[str, object]:
    return {"NetworkID": endpoint.network.id, "EndpointID": endpoint.id}


def counted_ids() -> Callable[[], str]:
    """Return a maker of identifiers that differ in their first characters, as random ones do."""
    counter = itertools.count(1)
    return lambda: (f"{next(counter):04x}" * 16)[::-1]
