"""Resource and IPAM ids <-> keys of the store (reference resources.md 1.1, 3.1; ipam.md 2.1). Nobody else knows paths.

Names are put into keys verbatim and are checked before (no ``/``). What is parsed out of a key is never trusted more
than its pattern.
"""

import ipaddress
import sys
from dataclasses import dataclass

from resources.names import HandleId, IPNetwork, NodeName

ROOT = "/calico/"
RESOURCES = "/calico/resources/v3/projectcalico.org/"
IPAM = "/calico/ipam/v2/"
IPAM_BLOCKS = IPAM + "assignment/"
IPAM_HOSTS = IPAM + "host/"
IPAM_HANDLES = IPAM + "handle/"
IPAM_CONFIG = IPAM + "config"
FELIX_STATUS = "/calico/felix/v2/no-region/host/"


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """Which resource: the plural of its kind as it stands in keys, its namespace ("" for global kinds), its name."""

    plural: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.plural}/{self.namespace}/{self.name}" if self.namespace else f"{self.plural}/{self.name}"


def resource_key(key: ResourceKey) -> str:
    """Return the store key of a resource."""
    return RESOURCES + str(key)


def kind_prefix(plural: str) -> str:
    """Return the prefix under which all resources of a kind are."""
    return f"{RESOURCES}{plural}/"


def parse_resource_key(text: str, namespaced_plurals: frozenset[str]) -> ResourceKey | None:
    """Return the resource a store key names, or None if it has another shape than its kind's."""
    if not text.startswith(RESOURCES):
        return None
    plural, *tail = text[len(RESOURCES) :].split("/")
    if not all(tail) or len(tail) != (2 if plural in namespaced_plurals else 1):
        return None
    # the same few kinds and namespaces in thousands of keys
    return ResourceKey(sys.intern(plural), tail[-1], sys.intern(tail[0]) if len(tail) == 2 else "")


def _cidr_part(cidr: IPNetwork) -> str:
    return str(cidr).replace("/", "-", 1)


def _parse_cidr_part(text: str, family: str) -> IPNetwork | None:
    address, dash, length = text.rpartition("-")
    try:
        network = ipaddress.ip_network(f"{address}/{length}")
    except ValueError:
        return None
    return network if dash and family == f"ipv{network.version}" and _cidr_part(network) == text else None


def block_key(cidr: IPNetwork) -> str:
    return f"{IPAM_BLOCKS}ipv{cidr.version}/block/{_cidr_part(cidr)}"


def blocks_prefix(version: int | None = None) -> str:
    return IPAM_BLOCKS if version is None else f"{IPAM_BLOCKS}ipv{version}/block/"


def parse_block_key(text: str) -> IPNetwork | None:
    parts = text.removeprefix(IPAM_BLOCKS).split("/")
    if not text.startswith(IPAM_BLOCKS) or len(parts) != 3 or parts[1] != "block":
        return None
    return _parse_cidr_part(parts[2], parts[0])


def affinity_key(node: NodeName, cidr: IPNetwork) -> str:
    return f"{IPAM_HOSTS}{node}/ipv{cidr.version}/block/{_cidr_part(cidr)}"


def affinities_prefix(node: NodeName | None = None, version: int | None = None) -> str:
    """Return the prefix of all affinities, of one node's, or of one node's of one version; with the trailing slash."""
    if node is None:
        return IPAM_HOSTS
    return f"{IPAM_HOSTS}{node}/" if version is None else f"{IPAM_HOSTS}{node}/ipv{version}/block/"


def parse_affinity_key(text: str) -> tuple[NodeName, IPNetwork] | None:
    parts = text.removeprefix(IPAM_HOSTS).split("/")
    if not text.startswith(IPAM_HOSTS) or len(parts) != 4 or parts[2] != "block" or not parts[0]:
        return None
    cidr = _parse_cidr_part(parts[3], parts[1])
    return None if cidr is None else (NodeName(parts[0]), cidr)


def handle_key(handle: HandleId) -> str:
    return IPAM_HANDLES + handle


def parse_handle_key(text: str) -> HandleId | None:
    name = text.removeprefix(IPAM_HANDLES)
    return HandleId(name) if text.startswith(IPAM_HANDLES) and name and "/" not in name else None


def felix_status_key(node: NodeName) -> str:
    """Felix's status, under a lease."""
    return f"{FELIX_STATUS}{node}/status"


def felix_last_status_key(node: NodeName) -> str:
    """Felix's last status, kept."""
    return f"{FELIX_STATUS}{node}/last_reported_status"
