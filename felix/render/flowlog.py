"""Which log group and prefix stand for what ended a packet's way, for a flow log (off by default).

A prefix is made of letters for the action (A, D, P), what decided (P policy, R profile) and the direction (I, E), then
the rule's place in its list from 0, then the tier and the policy, or the profile:

    API0|default|gnp/allow-web      rule 1 of the policy's ingress rules allowed it
    DRE2|net-a                      rule 3 of the profile's egress rules denied it
    DPI|default                     no policy of the tier decided, and its default is to deny (P: to pass)
    DRI                             no profile decided

The letters, the place and the groups are those of the original Calico. The kernel keeps 63 characters: a longer prefix
ends in a hash of its whole, and so does one with a character that could mean something in a rule file. Who needs to
know what it stands for asks felix for ``/flowlog-prefixes``.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from felix.calc.model import Action, Direction, PolicyId, Rules
from felix.render.chains import PacketLog
from felix.render.names import policy_chain, policy_path, profile_chain
from resources.names import ProfileName

GROUP = {Direction.INGRESS: 1, Direction.EGRESS: 2}
PREFIX_MAX = 63
_HASH_LENGTH = 22
"""Characters; 132 bits."""
_ACTIONS = {Action.ALLOW: "A", Action.DENY: "D", Action.PASS: "P"}
_DIRECTIONS = {Direction.INGRESS: "I", Direction.EGRESS: "E"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_./|+-]")


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose rules a chain has, in one direction: a policy's or (with an empty tier) a profile's."""

    direction: Direction
    who: PolicyId | ProfileName
    tier: str = ""

    @property
    def path(self) -> str:
        """What the prefix says after its first bar."""
        return f"{self.tier}|{policy_path(self.who)}" if isinstance(self.who, PolicyId) else self.who


def chain_owners(
    policies: Mapping[PolicyId, Rules | None], profiles: Iterable[ProfileName]
) -> dict[str, Owner]:
    """Return whose rules each chain of a policy or profile has, by the chain's name."""
    found = {}
    for direction in Direction:
        for policy, rules in policies.items():
            found[policy_chain(policy, direction)] = Owner(direction, policy, rules.tier if rules else "")
        for profile in profiles:
            found[profile_chain(profile, direction)] = Owner(direction, profile)
    return found


def rule_log(owner: Owner, action: Action, number: int) -> PacketLog:
    """Return what logs that the owner's rule `number` (from 1; 0: one that stands for all) decided."""
    kind = "P" if isinstance(owner.who, PolicyId) else "R"
    place = str(number - 1) if number else ""
    return _log(owner.direction, f"{_ACTIONS[action]}{kind}{_DIRECTIONS[owner.direction]}{place}|{owner.path}")


def end_of_tier_log(tier: str, default_action: Action, direction: Direction) -> PacketLog:
    """Return what logs that no policy of the tier decided."""
    return _log(direction, f"{_ACTIONS[default_action]}P{_DIRECTIONS[direction]}|{tier}")


def no_profile_log(direction: Direction) -> PacketLog:
    """Return what logs that no profile decided."""
    return _log(direction, f"DR{_DIRECTIONS[direction]}")


def _log(direction: Direction, prefix: str) -> PacketLog:
    return PacketLog(GROUP[direction], _bounded(prefix))


def _bounded(prefix: str) -> str:
    """Return the prefix, or its beginning and a hash; only a hashed one has the full length, so none can be forged."""
    safe = _UNSAFE.sub("_", prefix)
    if safe == prefix and len(prefix) < PREFIX_MAX:
        return prefix
    digest = hashlib.sha224(prefix.encode("utf-8", "surrogatepass")).digest()
    tail = base64.urlsafe_b64encode(digest).decode()[:_HASH_LENGTH]
    return f"{safe[: PREFIX_MAX - 1 - _HASH_LENGTH].ljust(PREFIX_MAX - 1 - _HASH_LENGTH, '_')}_{tail}"
