"""What ExaBGP is to run with, what it was started with, and how the two are compared."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bgpd.messages import Neighbour
from resources.names import IPAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What ExaBGP is to run with. `visible` is what ``show neighbor json`` must say then, by the peer's address."""

    configuration: str
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    visible: Mapping[IPAddress, tuple[object, ...]] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        return digest(self.configuration)

    @property
    def environment_digest(self) -> str:
        return digest("\n".join(f"{key}={value}" for key, value in sorted(self.environment.items())))


@dataclass(frozen=True, slots=True)
class Found:
    """An ExaBGP that an earlier bgpd left running, and digests of what it runs with."""

    pid: int
    configuration: str
    environment: str


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sections(configuration: str) -> frozenset[str]:
    """Return the parts of a configuration that ExaBGP takes or refuses each by itself: a session each, and the rest."""
    return frozenset(re.split(r"^(?=neighbor )", configuration, flags=re.MULTILINE))


def visible(row: Neighbour) -> tuple[object, ...]:
    """Return what of a session's settings ExaBGP shows, to be compared with a plan's."""
    return row.local, row.local_as, row.peer_as, row.hold_seconds
