"""Entry point calico-libnetwork: Docker's network and IPAM driver of this host.

The sockets answer before anything else is done, so that dockerd, which waits for them, may start at the same time;
calls that come while etcd is away fail with an error that says so. Ready is the daemon when the sockets answer and this
node's endpoints have been read.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from ipam.allocator import Allocator
from ipam.cache import WatchedCache
from ipam.handle import new_handle
from ipam.session import SourceFactory
from kernel.links import NetlinkLinks
from libnetwork import options
from libnetwork.address_driver import AddressDriver
from libnetwork.deadline import Deadline
from libnetwork.engine import DockerEngine
from libnetwork.leftovers import Leftovers
from libnetwork.mtu import ContainerMtu
from libnetwork.network_driver import Engine, NetworkDriver, NetworkSettings
from libnetwork.profiles import NetworkProfiles
from libnetwork.records import EndpointRecords
from libnetwork.server import PluginApp, PluginServer
from libnetwork.timed_store import Datastore
from libnetwork.veth import Links, VethPairs
from resources.datastore.settings import connect, etcd_config_of_daemon
from resources.datastore.store import Store
from resources.datastore.syncer import Syncer
from resources.errors import CalicoError, ConfigurationError
from resources.names import NodeName
from resources.runtime import log as logging
from resources.runtime import paths
from resources.runtime.backoff import Backoff
from resources.runtime.health import Health
from resources.runtime.nodename import node_name
from resources.runtime.options import Settings

NETWORK_SOCKET = "calico.sock"
ADDRESS_SOCKET = "calico-ipam.sock"

_SOCKETS = "the sockets for Docker"
_STORE = "this node's endpoints in the datastore"
_LOOP_SECONDS = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Drivers:
    """Everything that answers Docker, and the records behind it."""

    network: NetworkDriver
    address: AddressDriver
    endpoints: EndpointRecords
    leftovers: Leftovers


def build(
    settings: Settings,
    node: NodeName,
    store: Store,
    *,
    engine: Engine,
    links: Links,
    now: Callable[[], float] = time.time,
    source: SourceFactory | None = None,
) -> Drivers:
    """Put the drivers together. Nothing is read or written yet. `source` is what addresses are planned on."""
    datastore, leftovers = Datastore(store), Leftovers()
    endpoints = EndpointRecords(datastore, node=node, namespace=settings[options.NAMESPACE])
    network = NetworkDriver(
        engine,
        endpoints,
        NetworkProfiles(datastore, endpoints),
        VethPairs(links, mtu=ContainerMtu(settings[options.VETH_MTU])),
        leftovers,
        node=node,
        settings=NetworkSettings(
            scope=settings[options.SCOPE],
            interface_prefix=settings[options.INTERFACE_PREFIX],
            create_profiles=settings[options.CREATE_PROFILES],
            label_seconds=settings[options.LABEL_TIMEOUT] if settings[options.LABEL_ENDPOINTS] else None,
        ),
    )
    allocator = Allocator(store, node, report=log.warning, source=source)
    address = AddressDriver(
        allocator, datastore, endpoints, leftovers, node=node, new_handle=new_handle, now=now
    )
    return Drivers(network, address, endpoints, leftovers)


def servers(drivers: Drivers, settings: Settings) -> tuple[PluginServer, PluginServer]:
    """Return the two servers, not yet started: one role each (reference libnetwork.md 1.1)."""
    folder, seconds = settings[options.PLUGIN_DIR], settings[options.CALL_TIMEOUT]
    made = [
        PluginServer(PluginApp(role, call_seconds=seconds), folder / name, threads=settings[options.THREADS])
        for role, name in ((drivers.network.role(), NETWORK_SOCKET), (drivers.address.role(), ADDRESS_SOCKET))
    ]
    return made[0], made[1]


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run until SIGTERM. Returns the exit code: 1 if a setting cannot be used."""
    try:
        settings = options.read(environ)
        node, node_origin = node_name(environ)
        config = etcd_config_of_daemon(environ)
        store = connect(config)
    except ConfigurationError as error:
        print(f"calico-libnetwork: {error}{f' ({error.hint})' if error.hint else ''}", file=sys.stderr)  # noqa: T201
        return 1
    logging.configure("libnetwork", "debug" if settings[options.DEBUG] else settings[options.LOG_LEVEL])
    logging.tell_settings((node, node_origin), (config.endpoints, config.origin), settings)
    for refused in settings.refused:
        log.warning("setting.refused", setting=refused.option, value=refused.value, reason=refused.reason)
    engine = DockerEngine(settings[options.DOCKER_HOST], timeout_seconds=settings[options.DOCKER_TIMEOUT])
    links = NetlinkLinks()
    cache = WatchedCache(store, node)
    syncer = Syncer(store, cache.prefixes, cache.take)
    drivers = build(settings, node, store, engine=engine, links=links, source=cache.source)
    syncer.start()
    try:
        return serve(drivers, settings)
    finally:
        syncer.stop()
        store.close()
        links.close()


def serve(drivers: Drivers, settings: Settings) -> int:
    """Serve until a signal to end; then finish the calls under way."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    health = Health(_SOCKETS, _STORE)
    turned_at = time.monotonic()
    health.watch_loop(lambda: turned_at)
    health.state = lambda: {
        "endpoints": len(drivers.endpoints.local),
        "removals_postponed": len(drivers.leftovers),
    }
    health.serve(paths.health_socket("libnetwork"))
    running = servers(drivers, settings)
    for server in running:
        server.start()
        log.info("socket.opened", path=str(server.path))
    health.done(_SOCKETS)
    patience = settings[options.CALL_TIMEOUT]
    for name, work in (
        ("load", partial(_load, drivers.endpoints, health, stopping, patience)),
        ("leftovers", partial(drivers.leftovers.run, seconds=patience)),
    ):
        threading.Thread(target=work, name=name, daemon=True).start()
    while not stopping.wait(_LOOP_SECONDS):
        turned_at = time.monotonic()
    log.info("daemon.stopping")
    for server in running:
        server.stop(patience_seconds=patience)
    drivers.leftovers.stop()
    log.info("daemon.stopped")
    return 0


def _load(endpoints: EndpointRecords, health: Health, stopping: threading.Event, patience: float) -> None:
    """Read this node's endpoints as soon as the store answers."""
    backoff = Backoff(0.2, 5.0)
    while not stopping.is_set():
        try:
            endpoints.load(Deadline(patience))
        except CalicoError as error:
            log.warning("endpoints.unread", error=str(error), retry="soon")
            stopping.wait(backoff.next())
        else:
            log.info("endpoints.read", endpoints=len(endpoints.local))
            health.done(_STORE)
            return


if __name__ == "__main__":
    sys.exit(main())
