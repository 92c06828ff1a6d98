"""`calicoctl ipam`: how addresses are used (reference ipam.md 7.3, resources.md 5.10)."""

import ipaddress
from datetime import UTC, datetime

import click

from calicoctl.output import boxed_table
from calicoctl.session import config_option, open_client
from ipam import audit
from ipam.allocator import Allocator
from ipam.borrowed import borrowed, stored_blocks
from ipam.results import PoolUse, Release
from resources.datastore.client import ResourceClient
from resources.errors import Rejected
from resources.kinds.workloadendpoint import KIND as ENDPOINT
from resources.kinds.workloadendpoint import WorkloadEndpoint
from resources.names import HandleId, IPAddress, NodeName

READER = NodeName("calicoctl")
"""Nothing is assigned in this name."""
DOCKER = "docker.projectcalico.org/"
"""What the annotations of Docker's driver begin with."""


class InUse(Rejected):
    """An address that is to be released, and that a container or node has."""

    reference = "address-has-user"


class NotAnAddress(Rejected):
    """``--ip`` with something else."""

    reference = "not-an-address"


@click.group()
def command() -> None:
    """Show how addresses are used, find what is wrong, and release what leaked."""


@command.command(short_help="Show how many addresses are used, and who holds one.")
@click.option("--ip", default=None, help="Show who holds one address.")
@click.option("--show-blocks", is_flag=True, help="Show the blocks of each pool.")
@click.option("--show-borrowed", is_flag=True, help="Show addresses that a node holds in another node's block.")
@click.option("--show-configuration", is_flag=True, help="Show the settings.")
@config_option
def show(ip: str | None, show_blocks: bool, show_borrowed: bool, show_configuration: bool, config: str | None) -> int:
    """Show how many addresses of each pool are used, or what the options ask for."""
    address = _address(ip) if ip else None
    with open_client(config) as client:
        allocator = Allocator(client.store, READER)
        if address:
            return _show_address(allocator, client, address)
        if show_blocks or not (show_borrowed or show_configuration):
            _show_pools(allocator.utilization(), show_blocks)
        elif show_borrowed:
            found, unknown = borrowed(stored_blocks(client.store))
            headings = ("IP", "BORROWING-NODE", "BLOCK", "BLOCK OWNER", "TYPE", "ALLOCATED-TO")
            rows = [(str(b.address), b.node, str(b.block), b.owner or "", b.type, b.allocated_to) for b in found]
            click.echo(boxed_table(headings, rows))
            if unknown:
                click.echo(
                    f"\nNote: found {unknown} IP allocations without an explicit node association. "
                    "Unable to determine if they are borrowed."
                )
        else:
            settings = allocator.configuration()
            properties = [
                ("StrictAffinity", str(settings.strict_affinity).lower()),
                ("AutoAllocateBlocks", str(settings.auto_allocate_blocks).lower()),
                ("MaxBlocksPerHost", str(settings.max_blocks_per_host)),
            ]
            click.echo(boxed_table(("PROPERTY", "VALUE"), properties))
    return 0


@command.command(short_help="Compare addresses with what uses them, and find leaks.")
@click.option("--show-all-ips", is_flag=True, help="Name every address, not only those with a problem.")
@click.option("--show-problem-ips", is_flag=True, help="Name what is wrong, and what to do about each.")
@config_option
def check(show_all_ips: bool, show_problem_ips: bool, config: str | None) -> int:
    """Compare addresses, blocks and handles with the containers and nodes that use them. Nothing is changed.

    What is set up or taken down at this moment is no problem: only what is found twice is told.
    """
    from calicoctl.ipam_check import lines

    with open_client(config) as client:
        unreadable: list[str] = []
        found = audit.check(
            client.store, datetime.now(UTC), lambda event, **told: unreadable.append(f"{event}: {told.get('key', '')}")
        )
    click.echo("\n".join(lines(found, names_all=show_all_ips, names_problems=show_problem_ips or show_all_ips)))
    for one in dict.fromkeys(unreadable):
        click.echo(f"Warning: passed over, {one}", err=True)
    if found.findings and not (show_problem_ips or show_all_ips):
        click.echo("calicoctl ipam check --show-problem-ips names what was found, and what to do about each", err=True)
    return 0


@command.command(short_help="Release an address that nothing uses any more.")
@click.option("--ip", default=None, help="The address.")
@click.option("--force", is_flag=True, help="Release it though a container or node has it.")
@click.option("--stale-handles", is_flag=True, help="Remove the handles that 'ipam check' finds without addresses.")
@config_option
def release(ip: str | None, force: bool, stale_handles: bool, config: str | None) -> int:
    """Give an address back to its pool. One that a container or node has is not released without --force."""
    if (ip is None) is not stale_handles:
        raise click.UsageError("give either --ip=ADDRESS or --stale-handles")
    if ip is None:
        return _release_stale_handles(config)
    address = _address(ip)
    with open_client(config) as client:
        allocator = Allocator(client.store, READER)
        held = allocator.attributes(address)
        if held is None or held.cooling:
            click.echo(f"IP address {address} is not assigned", err=True)
            return 1
        if not force and (who := audit.users(client.store).get(address)):
            raise InUse(
                f"{address} is in use by {', '.join(who)}; nothing was changed",
                hint="stop that container first; with --force another container may be given the same address",
            )
        # not what somebody else was given meanwhile
        allocator.release([Release(address, held.handle, held.sequence)])
    click.echo(f"Successfully released IP address {address}")
    return 0


def _release_stale_handles(config: str | None) -> int:
    with open_client(config) as client:
        allocator = Allocator(client.store, READER)
        found = audit.check(client.store, datetime.now(UTC)).of(audit.Kind.LEAKED_HANDLE)
        click.echo(f"Deleting {len(found)} handles...")
        # one that holds an address again is somebody's
        released = sum(allocator.drop_empty_handle(HandleId(finding.subject)) for finding in found)
    click.echo(f"Released {released} handles; {len(found) - released} skipped.")
    return 0


def _address(text: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise NotAnAddress(f"invalid IP address specified: {text}") from None


def _show_address(allocator: Allocator, client: ResourceClient, address: IPAddress) -> int:
    held = allocator.attributes(address)
    if held is None:
        click.echo(f"{address} is not assigned")
        return 0
    click.echo(f"IP {address} is in use")
    click.echo(f"Handle ID: {held.handle or '<none>'}")
    if held.attributes:
        click.echo("Active Owner Attributes:")
        for key, value in sorted(held.attributes.items()):
            click.echo(f"  {key}: {value}")
    else:
        click.echo("No Active Owner attributes defined")
    for endpoint in client.list(ENDPOINT).items:
        if address in endpoint.addresses:
            click.echo(f"Endpoint: {_described(endpoint)}")
    return 0


def _described(endpoint: WorkloadEndpoint) -> str:
    """Return whose endpoint it is: the container, as far as Docker's driver noted it, and its interface."""
    noted = endpoint.metadata.annotations
    container, network = noted.get(f"{DOCKER}container"), noted.get(f"{DOCKER}network")
    who = f"container {container}" if container else endpoint.metadata.name
    within = f" of network {network}" if network else ""
    return f"{who}{within} on {endpoint.spec.node}, interface {endpoint.spec.interface_name}"


def _show_pools(uses: list[PoolUse], with_blocks: bool) -> None:
    rows: list[tuple[str, ...]] = []
    for use in uses:
        if use.cidr is not None:
            rows.append(("IP Pool", str(use.cidr), *_figures(use.capacity, use.in_use, use.free)))
        if with_blocks:
            for block in sorted(use.blocks, key=lambda block: str(block.cidr)):
                figures = _figures(block.capacity, block.in_use, block.capacity - block.in_use)
                rows.append(("Block", str(block.cidr), *figures))
    click.echo(boxed_table(("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"), rows))


def _figures(total: int, used: int, free: int) -> tuple[str, str, str]:
    return f"{total:.5g}", _share(used, total), _share(free, total)


def _share(count: int, total: int) -> str:
    return f"{count:.5g} ({100 * count / total:.0f}%)" if total else f"{count:.5g}"
