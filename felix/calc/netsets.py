"""Network sets: lists of networks that selectors pick by label, as they pick endpoints (reference felix.md 4.4)."""

import ipaddress
from collections.abc import Mapping, Sequence

from felix.calc.endpoints import Member, own_labels
from felix.calc.ipsets import MemberSets, net_members
from felix.calc.reading import Reader, expected
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Metadata, Resource
from resources.kinds.globalnetworkset import GlobalNetworkSet
from resources.kinds.networkset import NetworkSet

Entry = tuple[int, tuple[str, ...]]
"""Address family and members of a hash:net set; family 0: it cannot be read."""
UNREADABLE: Entry = (0, ())


def read_entries(nets: Sequence[str], known: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return what each text stands for; only those that are not `known` are read."""
    return {text: known.get(text) or _read_entry(text) for text in nets}


def _read_entry(text: str) -> Entry:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return UNREADABLE
    return network.version, net_members(network)


def network_set(metadata: Metadata, namespace: str, entries: Mapping[str, Entry]) -> tuple[Member, tuple[str, ...]]:
    """Return what a network set contributes to sets, and what is wrong with it.

    An entry that cannot be read is left out, and the set is in doubt: what it would have closed stays closed (see
    `felix.calc.rules.without_doubt`).
    """
    unreadable = [text for text, entry in entries.items() if entry is UNREADABLE]
    member = Member(
        labels=own_labels(metadata.labels, namespace),
        profiles=(),
        ipv4=_of_version(4, entries),
        ipv6=_of_version(6, entries),
        ports=(),
        doubtful=bool(unreadable),
    )
    effect = "rules that this would open deny instead"
    return member, tuple(f"{text!r} in nets is no network: {effect}" for text in unreadable)


def _of_version(version: int, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for family, members in entries.values() if family == version for text in members))


class NetworkSets:
    """Reads network sets; they are members of the sets that pick them."""

    def __init__(self, members: MemberSets) -> None:
        self._members = members
        self._entries: dict[ResourceKey, Mapping[str, Entry]] = {}
        self.readers: Mapping[str, Reader] = {"globalnetworksets": self._read, "networksets": self._read}

    def _read(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if value is None:
            self._entries.pop(key, None)
            self._members.set_endpoint(key, None)
            return ()
        found = expected(NetworkSet, value) if key.namespace else expected(GlobalNetworkSet, value)
        entries = self._entries[key] = read_entries(found.spec.nets, self._entries.get(key, {}))
        member, problems = network_set(found.metadata, key.namespace, entries)
        self._members.set_endpoint(key, member)
        return problems
