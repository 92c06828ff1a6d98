"""The counters of a host's rules as the kernel would tell them, out of walks through the rendered rules."""

from collections.abc import Mapping

from fakes.packets import Machine
from felix.desired import Desired
from kernel.xtables_counters import Counted, RuleCount

PACKET_BYTES = 60


def counters_of(desired: Desired, machines: Mapping[int, Machine]) -> dict[int, Counted]:
    """Return all counters by address family; every packet has `PACKET_BYTES` bytes."""
    found: dict[int, dict[str, dict[str, tuple[RuleCount, ...]]]] = {version: {} for version in machines}
    for key, chain in desired.chains.items():
        if key.version in machines:
            counted = machines[key.version].counted
            found[key.version].setdefault(key.table, {})[key.chain] = tuple(
                RuleCount(tag, packets := counted[key.table, key.chain, place], packets * PACKET_BYTES)
                for place, tag in enumerate(chain.tags)
            )
    return dict(found)
