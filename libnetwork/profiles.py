"""The profile of a Docker network: its containers reach each other and everything outside, nobody else reaches them.

It is named after the network (reference libnetwork.md 6.3, resources.md 4.2), made with the network's first endpoint,
and removed with the network if nobody changed it. Which networks it was made for stands in an annotation: hosts without
a cluster store have one network of the name each, and one profile together.
"""

import hashlib
import re
from collections.abc import Iterable

import structlog
from msgspec.structs import replace

from libnetwork.deadline import Deadline
from libnetwork.records import EndpointRecords
from libnetwork.timed_store import Datastore
from resources.errors import AlreadyExists, DoesNotExist, UpdateConflict
from resources.kinds.base import Metadata
from resources.kinds.profile import KIND, Profile, ProfileSpec
from resources.kinds.rule import EntityRule, Rule
from resources.names import LABEL_NAME_REGEX, NAME_REGEX

NETWORKS = "docker.projectcalico.org/networks"
"""Annotation: the ids of the networks, sorted, with commas between them. Absent: the profile is not ours."""
_NAME_MAX = 63
"""A profile's name is a label's key as well."""
_TAKEN = frozenset({"projectcalico-default-allow"})
"""A profile that every store has, and that allows everything (reference resources.md 2.8)."""

log = structlog.get_logger()


def profile_name(network: str) -> str:
    """Return what the profile of a Docker network is called.

    The network's own name where it can be a resource's name and a label's key, else one made from it and a hash of it.
    """
    name = network.lower().replace("/", ".")
    name = re.sub(r"[^-.a-z0-9]+", "-", name)
    name = re.sub(r"[-.]*\.[-.]*", ".", name).strip(".-")
    if name == network and len(name) <= _NAME_MAX and name not in _TAKEN:
        return name
    digest = hashlib.sha1(network.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()[:8]
    stem = name[: _NAME_MAX - len(digest) - 1].strip(".-") or "network"
    made = f"{stem}-{digest}"
    assert NAME_REGEX.match(made)
    assert LABEL_NAME_REGEX.match(made)
    return made


def profile_spec(name: str) -> ProfileSpec:
    """Return the rules of a network's profile."""
    return ProfileSpec(
        ingress=[Rule(action="Allow", source=EntityRule(selector=f"has({name})"))],
        egress=[Rule(action="Allow")],
        labels_to_apply={name: ""},
    )


class NetworkProfiles:
    """Makes and removes the profiles of networks. Thread-safe."""

    def __init__(self, datastore: Datastore, endpoints: EndpointRecords) -> None:
        self._datastore, self._endpoints = datastore, endpoints

    def ensure(self, network: str, network_id: str, deadline: Deadline) -> str:
        """Make sure that the network's profile exists; return its name. One that is there is not changed."""
        name = profile_name(network)
        while True:
            try:
                found = self._datastore.until(deadline).get(KIND, name)
            except DoesNotExist:
                metadata = Metadata(name=name, annotations={NETWORKS: network_id})
                wanted = Profile(metadata=metadata, spec=profile_spec(name))
                try:
                    self._datastore.until(deadline).create(KIND, wanted)
                except AlreadyExists:
                    continue
                log.info("profile.created", profile=name, network=network)
                return name
            ids = _network_ids(found)
            if not ids or network_id in ids or self._note(found, ids | {network_id}, deadline):
                return name

    def remove(self, network_id: str, deadline: Deadline) -> None:
        """Remove the profile that was made for a network, unless others use it or somebody changed it."""
        for profile in self._datastore.until(deadline).readable(KIND):
            found: Profile | None = profile
            while found is not None and network_id in _network_ids(found) and not self._leave(
                found, network_id, deadline
            ):
                found = self._find(profile.metadata.name, deadline)

    def _leave(self, profile: Profile, network_id: str, deadline: Deadline) -> bool:
        """Take a network from its profile, and the profile away with the last one. False: somebody was faster."""
        name = profile.metadata.name
        others = _network_ids(profile) - {network_id}
        if others:
            return self._note(profile, others, deadline)
        if profile.spec != profile_spec(name):
            log.info("profile.kept", profile=name, reason="somebody changed it")
            return self._note(profile, others, deadline)
        if self._endpoints.with_profile(name, deadline):
            log.info("profile.kept", profile=name, reason="endpoints use it")
            return True
        try:
            version = profile.metadata.resource_version
            self._datastore.until(deadline).delete(KIND, name, resource_version=version)
        except UpdateConflict:
            return False
        except DoesNotExist:
            return True
        log.info("profile.removed", profile=name)
        return True

    def _note(self, profile: Profile, ids: Iterable[str], deadline: Deadline) -> bool:
        annotations = {key: text for key, text in profile.metadata.annotations.items() if key != NETWORKS}
        if text := ",".join(sorted(ids)):
            annotations[NETWORKS] = text
        changed = replace(profile, metadata=replace(profile.metadata, annotations=annotations))
        try:
            self._datastore.until(deadline).update(KIND, changed)
        except (UpdateConflict, DoesNotExist):
            return False
        return True

    def _find(self, name: str, deadline: Deadline) -> Profile | None:
        try:
            return self._datastore.until(deadline).get(KIND, name)
        except DoesNotExist:
            return None


def _network_ids(profile: Profile) -> frozenset[str]:
    return frozenset(filter(None, profile.metadata.annotations.get(NETWORKS, "").split(",")))
