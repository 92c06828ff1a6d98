"""Which next hops are in trouble, for how many prefixes: kept as prefixes are decided, told when it changes."""

from collections import Counter
from collections.abc import Collection, Mapping

import structlog

from bgpd.calc.imports import ImportRules
from bgpd.calc.nexthops import trouble
from resources.names import IPAddress, IPNetwork


class NextHops:
    """Next hops that prefixes were refused for, or are sent to by way of a router. Cost follows the change."""

    def __init__(self) -> None:
        self._of: dict[IPNetwork, frozenset[IPAddress]] = {}
        self._count: Counter[IPAddress] = Counter()
        self._told: dict[IPAddress, str] = {}
        self._log = structlog.get_logger().bind(part="routes")

    def note(self, prefix: IPNetwork, doubtful: Collection[IPAddress]) -> None:
        """Take it that these next hops of a prefix may be in trouble, and no others of it."""
        if not doubtful and prefix not in self._of:
            return
        before, now = self._of.pop(prefix, frozenset()), frozenset(doubtful)
        if now:
            self._of[prefix] = now
        if before == now:
            return
        self._count.subtract(before)
        self._count.update(now)
        for address in before - now:
            if not self._count[address]:
                del self._count[address]

    def tell(self, peers: Collection[IPAddress], rules: ImportRules) -> None:
        """Log what came, changed and went since the last call."""
        found = {address: text for address in self._count if (text := trouble(address, peers, rules)) is not None}
        for address, text in found.items():
            if self._told.get(address) != text:
                self._log.warning("next_hop.trouble", next_hop=str(address), what=text, routes=self._count[address])
        for address in self._told.keys() - found.keys():
            self._log.info("next_hop.good", next_hop=str(address))
        self._told = found

    @property
    def troubles(self) -> Mapping[IPAddress, tuple[str, int]]:
        """What is the matter with each, and for how many prefixes, as of the last `tell`."""
        return {address: (text, self._count[address]) for address, text in self._told.items()}
