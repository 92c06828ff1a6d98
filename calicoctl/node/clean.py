"""`calicoctl node clean`: stop, and remove everything of ours from this host and this host's records from the store."""

import re
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click

from calicoctl.node import identity, speaker, supervisor, turn
from calicoctl.node.stop import PATIENCE_SECONDS
from calicoctl.session import open_client
from ipam.cleanup import Cleanup
from kernel.errors import AlreadyThere, DataplaneError
from kernel.links import NetlinkLinks
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX
from kernel.routes import NetlinkRoutes
from kernel.sets import TEMPORARY_PREFIXES, IpsetSets
from kernel.vxlan import NetlinkVxlan
from kernel.xtables import BackEnd, TableChange, TableKernel, TableKey
from kernel.xtables_present import open_present
from resources.errors import CalicoError, DoesNotExist, Rejected
from resources.kinds.felixconfiguration import KIND as FELIXCONFIGURATION
from resources.kinds.felixconfiguration import ROUTES_OF_OTHERS
from resources.kinds.node import KIND as NODE
from resources.kinds.node import NODE_ID_ANNOTATION
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.names import IfName, NodeName
from resources.runtime import paths
from resources.runtime.nodename import node_name
from resources.vxlan import DEVICES

SET_PREFIXES = ("cali40", "cali60", *TEMPORARY_PREFIXES)
TUNNEL = IfName("tunl0")
OWN_VETH = re.compile(r"cali.+|temp[0-9a-f]{11}")
"""Our ends of veth pairs: the host's, and the container's until Docker took it."""
_ANSWER = "the question goes to a terminal; 'calicoctl node clean --yes' is the answer where there is none"


class Unanswered(Rejected):
    """A question that nobody answered: there is no terminal, or it was interrupted."""

    reference = "unanswered"


def clean(*, config: str | None, confirmed: bool, ask: Callable[[str], bool]) -> int:
    """Remove everything of ours; 0 if nothing is left."""
    name, _ = node_name()
    if not confirmed:
        try:
            agreed = ask(_question(name, config))
        except click.Abort:
            click.echo(err=True)  # the question has no line end
            raise Unanswered("nothing was changed: nobody answered", hint=_ANSWER) from None
        if not agreed:
            click.echo("Nothing was changed.")
            return 1
    was_running = supervisor.stop()
    with turn.taken(seconds=PATIENCE_SECONDS):
        if supervisor.stop() | speaker.end() | was_running:
            click.echo("stopped calico")
        good = _clean_kernel(_route_protocols(name, config))
        good &= _clean_store(name, config)
        if good:
            _clean_files()
    if not good:
        return 1
    click.echo(f"Nothing of calico is left on this host (its logs are in {paths.LOG}).")
    return 0


def _question(name: NodeName, config: str | None) -> str:
    try:
        with open_client(config) as client:
            local = [e for e in client.list(ENDPOINT).items if e.node == name]
        lose = "1 container loses its network" if len(local) == 1 else f"{len(local)} containers lose their network"
        attached = f"{lose}, and the records of node {name} are removed"
    except CalicoError:
        attached = "containers lose their network (the datastore does not answer, so they cannot be counted)"
    return f"Remove all routes, rules, sets and interfaces of calico from this host? {attached}."


def _route_protocols(name: NodeName, config: str | None) -> frozenset[int]:
    """Return the numbers that mark our routes: bgpd's, felix's, and one that felix was given in its place."""
    found = {PROTOCOL_FELIX, PROTOCOL_BGPD}
    try:
        with open_client(config) as client:
            for settings in client.list(FELIXCONFIGURATION).items:
                number = settings.spec.device_route_protocol
                if settings.metadata.name in ("default", f"node.{name}") and number and number not in ROUTES_OF_OTHERS:
                    found.add(number)
    except CalicoError:
        pass  # whoever removes the records says it
    return frozenset(found)


def _clean_kernel(route_protocols: frozenset[int]) -> bool:
    """Remove routes first, so that nothing is reachable when its rules go; then rules, sets, interfaces."""
    good = True
    for what, remove in (
        ("routes", partial(_remove_routes, route_protocols)),
        ("tunnel addresses", leave_tunnel),
        ("tunnels", remove_vxlan),
        ("chains", _remove_chains),
        ("sets", _remove_sets),
        ("interfaces", _remove_links),
    ):
        try:
            removed, failed = remove()
        except DataplaneError as error:
            removed, failed = 0, {what: error}
        if removed:
            click.echo(f"removed {removed} {what}")
        for key, failure in failed.items():
            click.echo(f"could not remove {key}: {failure}", err=True)
            good = False
    return good


Result = tuple[int, Mapping[str, DataplaneError]]


def _remove_routes(protocols: frozenset[int]) -> Result:
    routes = NetlinkRoutes()
    try:
        ours = routes.read(lambda _, route: route.protocol in protocols).ours
        failed = routes.delete(ours)
    finally:
        routes.close()
    return len(ours) - len(failed), {f"route {key}": error for key, error in failed.items()}


def leave_tunnel() -> Result:
    """Take our addresses off the IPIP device, which is the kernel's, and switch it off if nobody else has one there.

    That is before the rules go that say who may send into it.
    """
    links = NetlinkLinks()
    failed: dict[str, DataplaneError] = {}
    removed = 0
    try:
        there = [found.address for found in links.addresses() if found.device == TUNNEL and found.address.version == 4]
        ours = [address for address in there if address.network.prefixlen == address.max_prefixlen]
        for address in ours:
            try:
                links.remove_address(TUNNEL, address)
                removed += 1
            except DataplaneError as error:
                failed[f"{address} on {TUNNEL}"] = error
        if ours and len(ours) == len(there) and not failed:
            links.set_down(TUNNEL)
    finally:
        links.close()
    return removed, failed


def remove_vxlan() -> Result:
    """Remove the VXLAN devices, before the rules go that say who may send into them."""
    vxlan = NetlinkVxlan()
    removed = 0
    failed: dict[str, DataplaneError] = {}
    try:
        for name in DEVICES.values():
            try:
                if vxlan.read(name) is not None:
                    vxlan.delete(name)
                    removed += 1
            except AlreadyThere:
                continue  # somebody else's interface has the name
            except DataplaneError as error:
                failed[f"interface {name}"] = error
    finally:
        vxlan.close()
    return removed, failed


def _remove_chains() -> Result:
    """From both back ends: felix may have been switched."""
    removed = 0
    failed: dict[str, DataplaneError] = {}
    for back_end in BackEnd:
        if (present := open_present(back_end)) is None:
            continue
        tables, keys = present
        for key in keys:
            gone, stuck = _remove_from_table(tables, key)
            removed += gone
            failed.update({f"chain {chain} of {key}": error for chain, error in stuck.items()})
        tables.close()
    return removed, failed


def _remove_from_table(tables: TableKernel, key: TableKey) -> Result:
    state = tables.read(key)
    change = TableChange(
        delete=[(chain, rule.text) for chain, rules in state.outside.items() for rule in rules if rule.text],
        remove_chains=frozenset(state.chains),
    )
    stuck = tables.write(key, change)
    return len(state.chains) - len(stuck), stuck


def _remove_sets() -> Result:
    sets = IpsetSets()
    names = list(sets.read(SET_PREFIXES))
    failed = sets.destroy(names)
    return len(names) - len(failed), {f"set {name}": error for name, error in failed.items()}


def _remove_links() -> Result:
    links = NetlinkLinks()
    try:
        ours = [
            link.name for link in links.links().values()
            if link.kind == "veth" and OWN_VETH.fullmatch(link.name)
        ]
        failed: dict[str, DataplaneError] = {}
        for name in ours:
            try:
                links.delete(name)
            except DataplaneError as error:
                failed[f"interface {name}"] = error
    finally:
        links.close()
    return len(ours) - len(failed), failed


def _clean_store(name: NodeName, config: str | None) -> bool:
    """Remove this host's Node with its endpoints, addresses and blocks, unless another host owns the name."""
    try:
        with open_client(config) as client:
            client.ipam = Cleanup(client.store)
            node = client.get(NODE, name)
            owner = node.metadata.annotations.get(NODE_ID_ANNOTATION)
            if owner not in (None, identity.node_id()):
                click.echo(f"the records of node {name} belong to another host ({node.ipv4}) and stay")
                return True
            client.delete(NODE, name)
    except DoesNotExist:
        return True
    except CalicoError as error:
        click.echo(f"the records of node {name} could not be removed: {error}", err=True)
        click.echo(f"  when the datastore answers: calicoctl delete node {name}", err=True)
        return False
    click.echo(f"removed node {name} and its endpoints, addresses and blocks from the datastore")
    return True


def _clean_files() -> None:
    for path in (paths.NODENAME, paths.NODE_ID, paths.MTU):
        path.unlink(missing_ok=True)
    shutil.rmtree(paths.RUN, ignore_errors=True)
    for name in ("calico.sock", "calico-ipam.sock"):
        Path(paths.DOCKER_PLUGINS / name).unlink(missing_ok=True)
