"""`calicoctl node run`, and the command of the container: prepare the host, start the daemons, wait until ready."""

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from calicoctl.node import identity, supervisor
from calicoctl.node import options as o
from calicoctl.node.addresses import HostInterface
from calicoctl.node.startup import Host, Prepared, prepare
from calicoctl.session import load_settings
from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import connect
from resources.errors import Rejected, Transient
from resources.names import IPAddress, IPInterface, NodeName
from resources.runtime import paths
from resources.runtime.nodename import node_name
from resources.runtime.options import Settings, Source, resolve

LOCK = paths.RUN / "node.lock"
RETRY_SECONDS = 2.0
BACKENDS_MAPPED = ("bird", "gobgp")


class Running(Rejected):
    """Another ``node run`` is at work on this host."""

    reference = "node-run-twice"


def run(environment: Mapping[str, str], *, config: str | None, foreground: bool, dry_run: bool) -> int:
    """Start calico on this host; 0 when every daemon is ready, or was running already."""
    settings = resolve(o.OPTIONS, [Source("environment", environment)])
    name, origin = node_name(environment)
    etcd = load_settings(config)
    bgp = settings[o.BACKEND] != "none"
    wanted = supervisor.programs(driver=settings[o.DRIVER], bgp=bgp)
    if dry_run:
        _show(name, origin, settings, etcd)
        click.echo("Would start: " + ", ".join(" ".join(program.command) for program in wanted))
        return 0
    with _alone():
        if (pid := supervisor.pid()) is not None:
            return _already(pid, wanted)
        _show(name, origin, settings, etcd)
        _prepare(name, settings, etcd, patient=foreground)
        inherited = _environment(environment, name, etcd)
        if foreground:
            sys.stdout.flush()
            supervisor.exec_foreground(wanted, inherited)
        supervisor.start_background(wanted, inherited)
        supervisor.wait_ready(wanted, click.echo)
    click.echo(f"Calico is running on node {name}.")
    return 0


@contextmanager
def _alone() -> Iterator[None]:
    paths.RUN.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        os.set_inheritable(lock.fileno(), False)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Running("another 'node run' is at work on this host", hint="wait for it to end") from None
        yield


def _already(pid: int, wanted: tuple[supervisor.Program, ...]) -> int:
    click.echo(f"Calico is already running on this host (supervisord has pid {pid}); nothing was changed.")
    return 0 if not supervisor.say_unready(wanted, click.echo) else 1


def _show(name: NodeName, origin: str, settings: Settings, etcd: EtcdConfig) -> None:
    """Print each effective setting once, with where it comes from."""
    click.echo(f"setting node_name = {name} (from {origin})")
    click.echo(f"setting etcd_endpoints = {','.join(etcd.endpoints)} (from {etcd.origin})")
    for setting in settings:
        click.echo(f"setting {setting.option.name} = {setting.value} (from {setting.origin})")
    if settings[o.BACKEND] in BACKENDS_MAPPED:
        click.echo(f"networking backend {settings[o.BACKEND]} is served by exabgp")


def _prepare(name: NodeName, settings: Settings, etcd: EtcdConfig, *, patient: bool) -> Prepared:
    """Prepare the host; a `patient` caller waits for a store that does not answer, and says so."""
    store = connect(etcd)
    try:
        client = ResourceClient(store)
        while True:
            try:
                prepared = prepare(client, _host(name), settings)
                break
            except Transient as error:
                if not patient:
                    raise
                click.echo(f"waiting for the datastore: {error}", err=True)
                time.sleep(RETRY_SECONDS)
    finally:
        store.close()
    identity.remember_name(name)
    for line in prepared.done:
        click.echo(line)
    return prepared


def _host(name: NodeName) -> Host:
    from kernel.links import NetlinkLinks
    from kernel.routes import NetlinkRoutes

    links, routes = NetlinkLinks(), NetlinkRoutes()
    try:
        by_name: dict[str, list[IPInterface]] = {link.name: [] for link in links.links().values() if link.up}
        for found in links.addresses():
            if found.device in by_name:
                by_name[found.device].append(found.address)
        networks = [a.network for held in by_name.values() for a in held]
        networks += [key.destination for key, _ in routes.dump() if key.destination.prefixlen > 0]

        def source_towards(destination: IPAddress) -> IPAddress | None:
            route = routes.lookup(destination)
            if route is None:
                return None
            if route.source is not None:
                return route.source
            held = [a.ip for device in route.devices for a in by_name.get(device, ())]
            return next((address for address in held if address.version == destination.version), None)

        interfaces = [HostInterface(device, tuple(held)) for device, held in by_name.items()]
        return Host(
            name=name, node_id=identity.node_id(), interfaces=interfaces, networks=networks,
            source_towards=source_towards,
        )
    finally:
        links.close()


def _environment(environment: Mapping[str, str], name: NodeName, etcd: EtcdConfig) -> dict[str, str]:
    """Return what the daemons inherit: they know no configuration file, so the datastore is spelled out."""
    kept = dict(environment)
    kept.update(etcd_environment(etcd))
    kept["NODENAME"] = name
    kept.setdefault("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    kept["PYTHONUNBUFFERED"] = "1"
    return kept




def etcd_environment(etcd: EtcdConfig, folder: Path = paths.RUN) -> dict[str, str]:
    """Return the datastore's settings as daemons read them; certificates given as text are put into files (0600)."""
    found = {"ETCD_ENDPOINTS": ",".join(etcd.endpoints)}
    for variable, path, text, name in (
        ("ETCD_CA_CERT_FILE", etcd.ca_file, etcd.ca_pem, "etcd-ca.pem"),
        ("ETCD_CERT_FILE", etcd.cert_file, etcd.cert_pem, "etcd-cert.pem"),
        ("ETCD_KEY_FILE", etcd.key_file, etcd.key_pem, "etcd-key.pem"),
    ):
        if text is not None:
            path = folder / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
        if path is not None:
            found[variable] = str(path)
    if etcd.username is not None and etcd.password is not None:
        found |= {"ETCD_USERNAME": etcd.username, "ETCD_PASSWORD": etcd.password}
    return found
