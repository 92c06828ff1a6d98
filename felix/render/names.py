"""Names of chains and sets within the kernel's limits, and the hashes that mark rules as ours.

Source: reference felix.md 3.2, 3.3, 4.4.
"""

import base64
import hashlib
import re
from collections.abc import Iterable

from felix.calc.model import Direction, PolicyId
from resources.names import IfName, ProfileName

CHAIN_MAX = 28
SET_MAX = 31
TAG_LENGTH = 16

FROM_WORKLOAD = "cali-fw-"
TO_WORKLOAD = "cali-tw-"
FROM_HOST = "cali-fh-"
TO_HOST = "cali-th-"
FORWARD_FROM_HOST = "cali-fhfw-"
FORWARD_TO_HOST = "cali-thfw-"
FAILSAFE = {Direction.INGRESS: "cali-failsafe-in", Direction.EGRESS: "cali-failsafe-out"}
POLICY_PREFIX = {Direction.INGRESS: "cali-pi-", Direction.EGRESS: "cali-po-"}
GROUP_PREFIX = {Direction.INGRESS: "cali-gi-", Direction.EGRESS: "cali-go-"}
PROFILE_PREFIX = {Direction.INGRESS: "cali-pri-", Direction.EGRESS: "cali-pro-"}
SET_PREFIX = {4: "cali40", 6: "cali60"}

ALL_HOSTS = "all-hosts-net"
ALL_VXLAN_HOSTS = "all-vxlan-net"
ALL_POOLS = "all-ipam-pools"
MASQUERADED_POOLS = "masq-ipam-pools"

_KIND_LETTERS = {"GlobalNetworkPolicy": "gnp", "NetworkPolicy": "np"}
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]*\Z")


def bounded_name(prefix: str, suffix: str, limit: int = CHAIN_MAX) -> str:
    """Return ``prefix + suffix``, with the suffix hashed if the whole is too long or could be taken for a hash.

    A suffix with characters that mean something in a rule file is hashed too, so that no name in the store can write
    rules. Source: reference felix.md 3.2.
    """
    suffix = suffix or "_"
    length = len(prefix) + len(suffix)
    fits = length < limit or (length == limit and not suffix.startswith("_"))
    if fits and _PLAIN.match(suffix):
        return prefix + suffix
    digest = hashlib.sha256(suffix.encode("utf-8", "surrogatepass")).digest()
    return f"{prefix}_{base64.urlsafe_b64encode(digest).decode()[: limit - 1 - len(prefix)]}"


def endpoint_chain(prefix: str, interface: IfName) -> str:
    """Return the chain of an endpoint's interface; `prefix` is FROM_WORKLOAD, TO_HOST and the like."""
    return bounded_name(prefix, interface)


def policy_path(policy: PolicyId) -> str:
    """Return ``gnp/name`` or ``np/namespace/name``."""
    parts = [_KIND_LETTERS[policy.kind], policy.namespace, policy.name]
    return "/".join(part for part in parts if part)


def policy_chain(policy: PolicyId, direction: Direction) -> str:
    return bounded_name(POLICY_PREFIX[direction], policy_path(policy))


def profile_chain(profile: ProfileName, direction: Direction) -> str:
    return bounded_name(PROFILE_PREFIX[direction], profile)


def set_name(version: int, set_id: str) -> str:
    """Return the kernel name of a set of one family: a set id of ours (``s:...``) or a fixed name."""
    return (SET_PREFIX[version] + set_id)[:SET_MAX]


def rule_tags(chain: str, rules: Iterable[str]) -> tuple[str, ...]:
    """Return the hash of each rule of a chain; each covers its text, its place, and all rules before it.

    Rules are the text after ``-A <chain>`` in the form in which it is written, without the hash comment itself.
    Source: reference felix.md 3.3.
    """
    state = hashlib.sha224(chain.encode()).digest()
    tags = []
    for rule in rules:
        text = f"-A {chain} HASH {rule}" if rule else f"-A {chain} HASH"
        state = hashlib.sha224(state + text.encode()).digest()
        tags.append(base64.urlsafe_b64encode(state).decode()[:TAG_LENGTH])
    return tuple(tags)
