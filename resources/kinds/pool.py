"""IPPool: an address range and its options (reference resources.md 2.1)."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from resources.kinds import fields
from resources.kinds.base import V1, Column, Kind, Metadata, NotEmpty, Path, Problem, View, name_cell, wire, yes_no
from resources.kinds.naming import pool_name
from resources.names import IPNetwork, parse_network

MODES = ("Never", "Always", "CrossSubnet")
USES = ("Workload", "Tunnel", "LoadBalancer")
DEFAULT_USES = ("Workload", "Tunnel")
BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}
"""Least and greatest prefix length of a block, by IP version."""
DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}

_CIDR: Path = ("spec", "cidr")
_LINK_LOCAL = {4: ipaddress.ip_network("169.254.0.0/16"), 6: ipaddress.ip_network("fe80::/10")}
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.2.0/24",
        "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "fc00::/7",
        "fe80::/10",
    )
)


class IPPoolSpec(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename=wire(disable_bgp_export="disableBGPExport"),
):
    cidr: str
    vxlan_mode: str = ""
    """Never, Always or CrossSubnet."""
    ipip_mode: str = ""
    nat_outgoing: bool = False
    disabled: bool = False
    disable_bgp_export: bool = False
    block_size: int = 0
    """Prefix length of the pool's blocks; 0 until completed (26, IPv6 122)."""
    node_selector: str = ""
    namespace_selector: str = ""
    allowed_uses: list[str] = []
    assignment_mode: NotEmpty = ""


class IPPool(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Metadata = Metadata()
    spec: IPPoolSpec

    @property
    def network(self) -> IPNetwork:
        return ipaddress.ip_network(self.spec.cidr)


def _network(pool: IPPool) -> IPNetwork | None:
    try:
        return parse_network(pool.spec.cidr) if "/" in pool.spec.cidr else None
    except ValueError:
        return None


def _complete(pool: IPPool) -> IPPool:
    spec, network = pool.spec, _network(pool)
    return msgspec.structs.replace(
        pool,
        spec=msgspec.structs.replace(
            spec,
            cidr=str(network) if network else spec.cidr,
            vxlan_mode=spec.vxlan_mode or "Never",
            ipip_mode=spec.ipip_mode or "Never",
            block_size=spec.block_size or (DEFAULT_BLOCK_SIZE[network.version] if network else 0),
            node_selector=spec.node_selector or "all()",
            allowed_uses=spec.allowed_uses or list(DEFAULT_USES),
            assignment_mode=spec.assignment_mode or "Automatic",
        ),
    )


def _check(pool: IPPool) -> Iterable[Problem]:
    spec = pool.spec
    yield from _cidr_problems(spec.cidr)
    yield from fields.one_of(("spec", "vxlanMode"), spec.vxlan_mode, MODES)
    yield from fields.one_of(("spec", "ipipMode"), spec.ipip_mode, MODES)
    yield from fields.one_of(("spec", "assignmentMode"), spec.assignment_mode, ("Automatic", "Manual"))
    yield from fields.selector(("spec", "nodeSelector"), spec.node_selector)
    yield from fields.selector(("spec", "namespaceSelector"), spec.namespace_selector)
    if spec.ipip_mode != "Never" and spec.vxlan_mode != "Never":
        yield Problem(("spec", "vxlanMode"), spec.vxlan_mode, "Cannot enable both VXLAN and IPIP on the same IPPool")
    yield from _use_problems(spec)
    if network := _network(pool):
        yield from _size_problems(spec, network)
        if network.version == 6 and spec.ipip_mode != "Never":
            yield Problem(("spec", "ipipMode"), spec.ipip_mode, "IPIP is not supported on an IPv6 IP pool")


def _cidr_problems(cidr: str) -> Iterator[Problem]:
    if not cidr:
        yield Problem(_CIDR, "", "IPPool CIDR must be specified")
        return
    if "/" not in cidr:
        yield Problem(_CIDR, cidr, "IPPool CIDR must be a valid subnet", "write address/length, such as 10.0.0.0/24")
        return
    try:
        network = parse_network(cidr)
    except ValueError as error:
        if hint := fields.masked_hint(cidr):
            yield Problem(_CIDR, cidr, "IPPool CIDR is not strictly masked", hint)
        else:
            hint = str(error) if "IPv4-mapped" in str(error) else None
            yield Problem(_CIDR, cidr, "IPPool CIDR must be a valid subnet", hint)
        return
    local = _LINK_LOCAL[network.version]
    if network.overlaps(local):
        what = f"IPPool CIDR overlaps with IPv{network.version} Link Local range {local}"
        yield Problem(_CIDR, cidr, what)
    elif is_public(network):
        yield Problem(
            _CIDR, cidr, "is public address space: containers here cannot reach the real owner of it", warning=True
        )


def is_public(network: IPNetwork) -> bool:
    """Return whether any of it lies outside the ranges that are for private use or documentation."""
    return not any(
        network.version == private.version and network.subnet_of(private)  # type: ignore[arg-type]
        for private in _NOT_PUBLIC
    )


def _size_problems(spec: IPPoolSpec, network: IPNetwork) -> Iterator[Problem]:
    least, most = BLOCK_SIZES[network.version]
    if not least <= spec.block_size <= most:
        reason = f"IPv{network.version} block size must be between {least} and {most}"
        yield Problem(("spec", "blockSize"), str(spec.block_size), reason)
    elif network.prefixlen > spec.block_size and not spec.disabled:
        yield Problem(
            _CIDR,
            spec.cidr,
            "IP pool size is too small for use with Calico IPAM. It must be equal to or greater than the block size.",
            f"blocks are /{spec.block_size}: take a larger pool, or set blockSize to at least {network.prefixlen}"
            if network.prefixlen <= most
            else None,
        )


def _use_problems(spec: IPPoolSpec) -> Iterator[Problem]:
    for index, use in enumerate(spec.allowed_uses):
        if use not in USES:
            yield Problem(("spec", "allowedUses", index), use, f"unknown use: {use}", f"allowed are {', '.join(USES)}")
    if spec.namespace_selector and "Tunnel" in spec.allowed_uses:
        yield Problem(
            ("spec", "namespaceSelector"),
            spec.namespace_selector,
            "cannot be combined with the use Tunnel",
            "set allowedUses to [Workload]",
        )
    if "LoadBalancer" not in spec.allowed_uses:
        return
    for use in ("Workload", "Tunnel"):
        if use in spec.allowed_uses:
            reason = f"LoadBalancer cannot be used at the same time as: {use}"
            yield Problem(("spec", "allowedUses"), ", ".join(spec.allowed_uses), reason)
    for field, mode in (("ipipMode", spec.ipip_mode), ("vxlanMode", spec.vxlan_mode)):
        if mode != "Never":
            yield Problem(("spec", field), mode, "must be Never on a pool for LoadBalancer")
    if spec.disable_bgp_export:
        yield Problem(("spec", "disableBGPExport"), "true", "cannot be set on a pool for LoadBalancer")
    if spec.node_selector != "all()":
        yield Problem(("spec", "nodeSelector"), spec.node_selector, "must be all() on a pool for LoadBalancer")


def _needs(pool: IPPool) -> Iterable[Problem]:
    yield from (problem for problem in _cidr_problems(pool.spec.cidr) if not problem.warning)
    if network := _network(pool):
        least, most = BLOCK_SIZES[network.version]
        yield from fields.between(("spec", "blockSize"), pool.spec.block_size, least, most)
    yield from fields.one_of(("spec", "vxlanMode"), pool.spec.vxlan_mode, MODES)
    yield from fields.one_of(("spec", "ipipMode"), pool.spec.ipip_mode, MODES)
    if pool.spec.node_selector != "all()":
        yield from fields.selector(("spec", "nodeSelector"), pool.spec.node_selector)


def host_overlaps(pool: IPPool, present: Mapping[str, IPNetwork]) -> Iterator[Problem]:
    """Warn of networks that this host has already; `present` maps what has them (an interface) to the network."""
    network = _network(pool)
    for where, known in sorted(present.items()):
        if network is not None and known.version == network.version and network.overlaps(known):
            yield Problem(_CIDR, pool.spec.cidr, f"overlaps {known} of {where} on this host", warning=True)


class IPIPV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    enabled: bool = False
    mode: str = ""
    """always or cross-subnet; empty means always."""


class IPPoolMetadataV1(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cidr: str = ""


class IPPoolSpecV1(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=wire(nat_outgoing="nat-outgoing")
):
    ipip: IPIPV1 | None = None
    nat_outgoing: bool = False
    disabled: bool = False


class IPPoolV1(msgspec.Struct, frozen=True, kw_only=True):
    metadata: IPPoolMetadataV1 = IPPoolMetadataV1()
    spec: IPPoolSpecV1 = IPPoolSpecV1()


_MODES_V1 = {"": "Always", "always": "Always", "cross-subnet": "CrossSubnet"}


def _check_v1(pool: IPPoolV1) -> Iterable[Problem]:
    path: Path = ("metadata", "cidr")
    cidr, ipip = pool.metadata.cidr, pool.spec.ipip
    if not cidr:
        yield Problem(path, "", "insufficient identifiers, missing 'cidr'")
    if ipip is not None and ipip.mode not in _MODES_V1:
        yield from fields.one_of(("spec", "ipip", "mode"), ipip.mode, ("always", "cross-subnet"))
    network = _network(IPPool(spec=IPPoolSpec(cidr=cidr)))
    if network and not pool.spec.disabled and network.prefixlen > DEFAULT_BLOCK_SIZE[network.version]:
        least = DEFAULT_BLOCK_SIZE[network.version]
        yield Problem(path, cidr, f"IP pool size is too small (min /{least}) for use with Calico IPAM")


def _to_v3(pool: IPPoolV1) -> IPPool:
    spec, cidr = pool.spec, pool.metadata.cidr
    enabled = spec.ipip is not None and spec.ipip.enabled
    return IPPool(
        metadata=Metadata(name=_name_of(cidr)),
        spec=IPPoolSpec(
            cidr=cidr,
            ipip_mode=_MODES_V1[spec.ipip.mode] if spec.ipip is not None and enabled else "Never",
            nat_outgoing=spec.nat_outgoing,
            disabled=spec.disabled,
        ),
    )


def _name_of(cidr: str) -> str:
    network = _network(IPPool(spec=IPPoolSpec(cidr=cidr)))
    return pool_name(str(network) if network else cidr)


def _from_v3(pool: IPPool) -> IPPoolV1:
    spec = pool.spec
    mode = {"Always": "always", "CrossSubnet": "cross-subnet"}.get(spec.ipip_mode)
    return IPPoolV1(
        metadata=IPPoolMetadataV1(cidr=spec.cidr),
        spec=IPPoolSpecV1(
            ipip=IPIPV1(enabled=True, mode=mode) if mode else None,
            nat_outgoing=spec.nat_outgoing,
            disabled=spec.disabled,
        ),
    )


def _keep(stored: IPPool, new: IPPool) -> IPPool:
    """Take what v1 can say from the new pool, and the rest from the stored one."""
    said = new.spec
    spec = msgspec.structs.replace(
        stored.spec, ipip_mode=said.ipip_mode, nat_outgoing=said.nat_outgoing, disabled=said.disabled
    )
    if said.ipip_mode != "Never":
        spec = msgspec.structs.replace(spec, vxlan_mode="Never")
    return msgspec.structs.replace(stored, spec=spec)


def _cidr_cell(pool: IPPool, _: View) -> str:
    return pool.spec.cidr


def _nat_cell(pool: IPPool, _: View) -> str:
    return yes_no(pool.spec.nat_outgoing)


def _selector_cell(pool: IPPool, _: View) -> str:
    return pool.spec.node_selector


_V1: V1[IPPool] = V1(
    name="ipPool",
    type=IPPoolV1,
    check=_check_v1,
    to_v3=_to_v3,
    from_v3=_from_v3,
    identifier=lambda pool: f"IPPool(cidr={pool.spec.cidr})",
    name_of=_name_of,
    keep=_keep,
    paths=(
        (("metadata",), ("metadata", "cidr")),
        (_CIDR, ("metadata", "cidr")),
        (("spec", "ipipMode"), ("spec", "ipip", "mode")),
        (("spec", "natOutgoing"), ("spec", "nat-outgoing")),
    ),
    order=lambda pool: (pool.spec.cidr,),
    columns=(Column("CIDR", _cidr_cell),),
    wide=(
        Column("CIDR", _cidr_cell),
        Column("NAT", _nat_cell),
        Column("IPIP", lambda pool, _: yes_no(pool.spec.ipip_mode != "Never")),
    ),
)

KIND: Kind[IPPool] = Kind(
    name="IPPool",
    plural="ippools",
    type=IPPool,
    aliases=("ippool", "ippools", "ipp", "ipps", "pool", "pools"),
    complete=_complete,
    check=_check,
    needs=_needs,
    dropped=(("status",),),
    columns=(Column("NAME", name_cell), Column("CIDR", _cidr_cell), Column("SELECTOR", _selector_cell)),
    wide=(
        Column("NAME", name_cell),
        Column("CIDR", _cidr_cell),
        Column("NAT", _nat_cell),
        Column("IPIPMODE", lambda pool, _: pool.spec.ipip_mode),
        Column("VXLANMODE", lambda pool, _: pool.spec.vxlan_mode),
        Column("DISABLED", lambda pool, _: yes_no(pool.spec.disabled)),
        Column("DISABLEBGPEXPORT", lambda pool, _: yes_no(pool.spec.disable_bgp_export)),
        Column("SELECTOR", _selector_cell),
        Column("ASSIGNMENTMODE", lambda pool, _: pool.spec.assignment_mode),
    ),
    v1=_V1,
)
