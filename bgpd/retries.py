"""Which peers that are down are tried, and with which of those that answer ExaBGP begins anew. No I/O.

ExaBGP waits longer and longer between its own tries. A peer that is seen to be back is taken out of its file and put
back: then it connects at once. Times are monotonic seconds.
"""

from collections.abc import Iterable, Mapping

from bgpd.neighbor import Neighbor
from resources.names import IPAddress

PROBE_EVERY_SECONDS = 2.0
PROBE_AFTER_SECONDS = 6.0
"""Before, ExaBGP itself tries often enough."""
PROBE_SOON_SECONDS = 0.2
COMING_SECONDS, COMING_MAX_SECONDS = 3.0, 30.0
"""While sessions come up one after the other, the others are not far; for so long that is believed."""
PAUSE_SECONDS = (15.0, 30.0, 60.0, 120.0)
"""Before a peer that answers is retried once more, by how often it was without coming up."""
REST = 4.0
"""A host that took some time for a retry does nothing of the kind for so many times longer: on one that is slow because
it has too much to do, retries must not be what it does."""


class Retries:
    """The peers that are being retried, and when which others may be."""

    def __init__(self) -> None:
        self.under_way: frozenset[IPAddress] = frozenset()
        """Those that ExaBGP is to drop, to take them up again."""
        self._tries: dict[IPAddress, tuple[int, float]] = {}
        """How often a peer that is down was retried, and when last."""
        self._began_at: float | None = None
        self._rest_until = 0.0
        self._came_up_at = -COMING_SECONDS
        self._probe_at = 0.0

    # --- whom to try --------------------------------------------------------------------------------------------------

    def to_probe(self, neighbors: Mapping[IPAddress, Neighbor], now: float) -> list[Neighbor]:
        """Return the peers that are to be tried now, if it is time for any."""
        if now < self._due_at:
            return []
        self._probe_at = now + PROBE_EVERY_SECONDS
        return self._silent(neighbors, now, self._patience(now))

    def due(self, neighbors: Mapping[IPAddress, Neighbor], now: float) -> float | None:
        """Return when `to_probe` may have something to say, or None."""
        return self._due_at if self._silent(neighbors, now, 0.0) else None

    def probe_soon(self, now: float) -> None:
        """Try the peers that are down: an interface or address came."""
        self._probe_at = min(self._probe_at, now + PROBE_SOON_SECONDS)

    @property
    def _due_at(self) -> float:
        return max(self._probe_at, self._rest_until)

    def _patience(self, now: float) -> float:
        """Return for how long a peer must have been down to be tried."""
        return COMING_MAX_SECONDS if now - self._came_up_at < COMING_SECONDS else PROBE_AFTER_SECONDS

    def _silent(self, neighbors: Mapping[IPAddress, Neighbor], now: float, after: float) -> list[Neighbor]:
        return [
            neighbor
            for neighbor in neighbors.values()
            if not neighbor.is_up
            and not neighbor.spec.passive
            # ExaBGP over there would drop it for the connection that asks
            and not neighbor.is_connecting(now)
            and now - neighbor.down_at >= after
            and self._may_retry(neighbor.spec.address, now)
        ]

    def _may_retry(self, peer: IPAddress, now: float) -> bool:
        if peer not in self._tries:
            return True
        count, at = self._tries[peer]
        return now - at >= PAUSE_SECONDS[min(count, len(PAUSE_SECONDS)) - 1]

    # --- a retry ------------------------------------------------------------------------------------------------------

    def begin(
        self, answering: Iterable[IPAddress], neighbors: Mapping[IPAddress, Neighbor], now: float
    ) -> frozenset[IPAddress]:
        """Retry those that answer and are still silent; return them."""
        silent = {neighbor.spec.address for neighbor in self._silent(neighbors, now, self._patience(now))}
        self.under_way = frozenset(silent.intersection(answering))
        if self.under_way:
            self._began_at = now
            for address in self.under_way:
                self._tries[address] = self._tries.get(address, (0, now))[0] + 1, now
        return self.under_way

    def dropped(self) -> frozenset[IPAddress]:
        """Take it that ExaBGP has dropped the peers that are retried; return them, to be taken up again."""
        dropped, self.under_way = self.under_way, frozenset()
        return dropped

    def finish(self, now: float) -> None:
        """Take it that a retry is over, and took until now."""
        if self._began_at is not None:
            self._rest_until, self._began_at = now + REST * (now - self._began_at), None

    def abandon(self) -> None:
        """Take it that there is no ExaBGP any more that could retry."""
        self.under_way, self._began_at = frozenset(), None

    def note_up(self, peer: IPAddress, now: float) -> None:
        """Take it that a peer came up."""
        self._tries.pop(peer, None)
        self._came_up_at = now

    def spare(self, peer: IPAddress, now: float) -> bool:
        """Do not retry a peer that has come by itself after all; return whether it was to be."""
        if peer not in self.under_way:
            return False
        self.under_way -= {peer}
        if not self.under_way:
            self.finish(now)
        return True

    def forget(self, peer: IPAddress) -> None:
        self._tries.pop(peer, None)
