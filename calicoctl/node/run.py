"""`calicoctl node run`, and the command of the container: prepare the host, start the daemons, wait until ready."""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from calicoctl.node import identity, readiness, speaker, supervisor, turn
from calicoctl.node import options as o
from calicoctl.node.addresses import HostInterface
from calicoctl.node.startup import Host, Prepared, prepare
from calicoctl.node.supervisor import DaemonFailed, Program
from calicoctl.session import load_settings
from resources.datastore.client import ResourceClient
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.settings import VARIABLES as DATASTORE_VARIABLES
from resources.datastore.settings import connect
from resources.errors import Rejected, Transient
from resources.names import IPAddress, IPInterface, NodeName
from resources.runtime import paths
from resources.runtime.nodename import node_name
from resources.runtime.options import Settings, Source, resolve

RETRY_SECONDS = 2.0
BACKENDS_MAPPED = ("bird", "gobgp")


class Running(Rejected):
    """Calico runs on this host already, and the caller wants to be the one who runs it."""

    reference = "node-runs-already"


def run(environment: Mapping[str, str], *, config: str | None, foreground: bool, dry_run: bool) -> int:
    """Start calico on this host; 0 when every daemon is ready, or was running already."""
    settings = resolve(o.OPTIONS, [Source("environment", environment)])
    name, origin = node_name(environment)
    etcd = load_settings(config)
    wanted = supervisor.programs(driver=settings[o.DRIVER], bgp=settings[o.BACKEND] != "none")
    if dry_run:
        _show(name, origin, settings, etcd)
        click.echo("Would start: " + ", ".join(" ".join(program.command) for program in wanted))
        return 0
    if foreground:
        # the first process of a container has no default for it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with turn.taken(unless=lambda: supervisor.pid() is not None, waiting=_tell_waiting) as lock:
        if (pid := supervisor.pid()) is not None:
            if foreground:
                raise Running(
                    f"Calico is already running on this host (its supervisor has pid {pid})",
                    hint="to run it in the foreground: calicoctl node stop, then try again",
                )
            return _already(pid, wanted, settings[o.START_SECONDS])
        _show(name, origin, settings, etcd)
        _prepare(name, settings, etcd, patient=foreground)
        inherited = _environment(environment, name, etcd)
        for stray in supervisor.end_strays():
            click.echo(f"ended {stray}, which ran without a supervisor")
        if foreground and lock is not None:
            sys.stdout.flush()
            os.set_inheritable(lock, True)  # until its control socket is there the turn tells others of supervisord
            supervisor.exec_foreground(wanted, inherited)
        _start(wanted, inherited, settings[o.START_SECONDS])
    click.echo(f"Calico is running on node {name}.")
    return 0


def _start(wanted: Sequence[Program], environment: Mapping[str, str], seconds: float) -> None:
    """Start the daemons and wait until they are ready; if one fails nothing that was started here stays.

    Raises:
        DaemonFailed: the last lines of the daemon's log have been printed.
    """
    sizes = readiness.log_sizes(wanted)
    had_speaker = speaker.is_running()
    try:
        supervisor.start_background(wanted, environment)
        readiness.wait_ready(
            wanted, click.echo, log_sizes=sizes, processes=supervisor.processes, seconds=seconds
        )
    except BaseException as error:
        supervisor.stop()
        if not had_speaker:
            speaker.end()
        if isinstance(error, readiness.NotReady):
            click.echo(f"the last lines of {error.log}:", err=True)
            for line in error.lines:
                click.echo(f"    {line}", err=True)
            raise DaemonFailed(
                str(error), hint="the daemons were ended again; traffic goes on. Remove the cause and run it again"
            ) from error
        raise


def _tell_waiting() -> None:
    click.echo(f"waiting for another calico command on this host (pid {turn.holder()})", err=True)


def _already(pid: int, wanted: Sequence[Program], seconds: float) -> int:
    """Say that it runs; another command may just be starting it, so unready daemons have some time."""
    click.echo(f"Calico is already running on this host (its supervisor has pid {pid}); nothing was changed.")
    deadline = time.monotonic() + seconds
    while missing := readiness.unready(wanted):
        if supervisor.pid() != pid:
            raise DaemonFailed("calico was ended while this command waited for it")
        if time.monotonic() > deadline:
            hint = "to start it anew: calicoctl node stop, then calicoctl node run"
            raise DaemonFailed("; ".join(missing), hint=hint)
        time.sleep(readiness.POLL_SECONDS)
    return 0


def _show(name: NodeName, origin: str, settings: Settings, etcd: EtcdConfig) -> None:
    """Print each effective setting once, with where it comes from."""
    click.echo(f"setting node_name = {name} (from {origin})")
    click.echo(f"setting etcd_endpoints = {','.join(etcd.endpoints)} (from {etcd.origin})")
    for setting in settings:
        click.echo(f"setting {setting.option.name} = {shown(setting.value)} (from {setting.origin})")
    if settings[o.BACKEND] in BACKENDS_MAPPED:
        click.echo(f"networking backend {settings[o.BACKEND]} is served by exabgp")


def shown(value: object) -> str:
    """Return a setting's value as it may be given in the environment."""
    if value is None or value == "":
        return "(unset)"
    return str(value).lower() if isinstance(value, bool) else str(value)


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

        fleeting = links.fleeting_addresses()
        interfaces = [
            HostInterface(device, tuple(held), frozenset(a.address for a in fleeting if a.device == device))
            for device, held in by_name.items()
        ]
        return Host(
            name=name, node_id=identity.node_id(), interfaces=interfaces, networks=networks,
            source_towards=source_towards,
        )
    finally:
        links.close()


def _environment(environment: Mapping[str, str], name: NodeName, etcd: EtcdConfig) -> dict[str, str]:
    """Return what the daemons inherit: they know no configuration file, so the datastore is spelled out."""
    kept = {key: value for key, value in environment.items() if key not in DATASTORE_VARIABLES}
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
