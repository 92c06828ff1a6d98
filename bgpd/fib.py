"""Effector: the routes of bgpd in the kernel's main table (reference bgp.md 4.8, 4.4).

Ours are those of protocol 81. A route of anybody else at a prefix of ours stays, and is reported as a conflict. Routes
of ours that an earlier bgpd wrote are *inherited*: kept until they are wanted again, decided against, or swept.

Felix has the routes of pools with VXLAN. When a pool changes sides felix writes over bgpd's routes, bgpd waits until
felix's are gone, and who gives a route up removes only its own; bgpd does so late, so that there is no hole (adr/0038).
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from kernel.errors import AlreadyThere, DataplaneError, OutcomeUnknown
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, Route, RouteKey
from kernel.routes import FoundRoutes, Owns
from resources.names import IPNetwork
from resources.runtime.delta import Delta

RETRY_SECONDS = 2.0
HANDOVER_SECONDS = 5.0
"""How long a route of ours may stand in for felix's, which it cannot write before all hosts have tunnel addresses."""
REPAIRS_PER_SECOND = 10
"""Of one route: somebody who deletes it in a loop is not joined in a race."""


class RouteKernel(Protocol):
    """What this effector needs of kernel.routes."""

    def read(self, owns: Owns) -> FoundRoutes: ...
    def add(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]: ...
    def replace(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]: ...
    def delete(self, routes: Mapping[RouteKey, Route]) -> dict[RouteKey, DataplaneError]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one apply did."""

    added: int = 0
    replaced: int = 0
    removed: int = 0
    failed: Mapping[RouteKey, DataplaneError] | None = None

    @property
    def writes(self) -> int:
        return self.added + self.replaced + self.removed


def owns(_: RouteKey, route: Route) -> bool:
    """Whether a route is bgpd's."""
    return route.protocol == PROTOCOL_BGPD


class Fib:
    """Makes the kernel have what `want` says, and nothing else of ours once `sweep` was called."""

    def __init__(self, kernel: RouteKernel) -> None:
        self._kernel = kernel
        self._delta: Delta[RouteKey, Route] = Delta(order=attrgetter("order"))
        self._foreign: dict[RouteKey, tuple[Route, ...]] = {}
        self._handed: dict[RouteKey, float | None] = {}
        """Routes of ours that felix is to take over, and until when they stay if it does not."""
        self._is_read = False
        self.inherited: set[RouteKey] = set()
        self.failed: dict[RouteKey, DataplaneError] = {}
        self._retry_at: float | None = None
        self._repairs: dict[RouteKey, deque[float]] = {}
        self._held: dict[RouteKey, float] = {}
        self.repairs = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        """Routes written so far, by operation ("add", "replace", "delete") and result ("ok", "failed")."""

    # --- what is wanted ----------------------------------------------------------------------------------------------

    def want(self, prefix: IPNetwork, route: Route | None, *, metric: int = 0) -> None:
        """Have `route` at `prefix` from the next apply on; None: nothing of ours. Another metric is another route."""
        key = RouteKey(prefix, metric)
        self.inherited.discard(key)
        self._handed.pop(key, None)
        if route is None:
            self._delta.unwant(key)
            self.failed.pop(key, None)
        elif self._delta.desired.get(key) != route:
            self._delta.want(key, route)

    def hand_over(self, prefix: IPNetwork) -> None:
        """Have nothing of ours at `prefix` any more, as felix has a route there or soon will; what is there may stay
        in its place for a while."""
        key = RouteKey(prefix)
        since = self._handed.get(key)
        self.want(prefix, None)
        if key in self._delta.actual:
            self._handed[key] = since

    def felix_wrote(self, key: RouteKey, route: Route) -> None:
        """Take it that felix has a route at a place that may be one of ours."""
        if key in self._delta.actual or key in self._delta.desired:
            self._foreign[key] = (route,)
            self._delta.gone(key)
            self._handed.pop(key, None)
            self.inherited.discard(key)

    def felix_left(self, key: RouteKey) -> None:
        """Take it that felix gave a place up: what is wanted there is written at the next apply."""
        if is_felixs(self._foreign.get(key, ())):
            self._foreign.pop(key, None)
            self.failed.pop(key, None)

    def sweep(self) -> int:
        """Give up what is still inherited; return how much that was."""
        swept = len(self.inherited)
        self.inherited.clear()
        return swept

    @property
    def desired(self) -> Mapping[RouteKey, Route]:
        return self._delta.desired

    @property
    def actual(self) -> Mapping[RouteKey, Route]:
        return self._delta.actual

    @property
    def foreign(self) -> Mapping[RouteKey, tuple[Route, ...]]:
        """The routes of others, as last read."""
        return self._foreign

    @property
    def conflicts(self) -> dict[RouteKey, tuple[Route, ...]]:
        """Routes of others where we want one."""
        return {key: self._foreign[key] for key in sorted(self._delta.desired.keys() & self._foreign.keys(), key=str)}

    def conflicting(self, key: RouteKey) -> Route | None:
        """Return the route of somebody else at a place where we want one."""
        theirs = self._foreign.get(key) if key in self._delta.desired else None
        return theirs[0] if theirs else None

    @property
    def is_settled(self) -> bool:
        """Whether the kernel has all that is wanted, conflicts aside."""
        return self._is_read and all(key in self._foreign for key, _ in self._delta.missing())

    # --- the kernel --------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read the table. The first time, what is ours in it is inherited.

        Raises:
            DataplaneError: it cannot be read; nothing has changed.
        """
        found = self._kernel.read(owns)
        self._foreign = dict(found.foreign)
        if not self._is_read:
            self.inherited |= found.ours.keys() - self._delta.desired.keys()
        self.inherited &= found.ours.keys()
        self._delta.saw_all(found.ours)
        self._is_read = True
        self._retry_at = None
        self.failed = {key: error for key, error in self.failed.items() if not _is_puzzling(error)}

    def lost(self, key: RouteKey, now: float) -> None:
        """Take it that somebody else deleted a route of ours."""
        self._delta.gone(key)
        self.inherited.discard(key)
        if key not in self._delta.desired:
            return
        self.repairs += 1
        times = self._repairs.setdefault(key, deque(maxlen=REPAIRS_PER_SECOND))
        if len(times) == REPAIRS_PER_SECOND and now - times[0] < 1.0:
            self._held[key] = times[0] + 1.0
        times.append(now)

    def saw(self, key: RouteKey, route: Route) -> None:
        """Take it that somebody else wrote a route under our protocol."""
        self._delta.saw(key, route)

    def due(self, now: float) -> float | None:
        """Return the seconds until an apply is due without anything having changed, or None."""
        times = [*self._held.values(), *([self._retry_at] if self._retry_at is not None else [])]
        times += [until for until in self._handed.values() if until is not None]
        return max(0.0, min(times) - now) if times else None

    def apply(self, now: float) -> Applied:
        """Write the difference: additions and replacements first, removals last. Nothing happens before `read`."""
        if not self._is_read or not (self._delta or self._retry_at is not None):
            return Applied()
        self._held = {key: until for key, until in self._held.items() if until > now}
        self._handed = {
            key: until
            for key, given in self._handed.items()
            if (until := now + HANDOVER_SECONDS if given is None else given) > now
        }
        waits = self._retry_at is not None and now < self._retry_at
        new: dict[RouteKey, Route] = {}
        changed: dict[RouteKey, Route] = {}
        for key, route in self._delta.missing():
            if key in self._foreign or key in self._held or (waits and key in self.failed):
                continue
            (changed if key in self._delta.actual else new)[key] = route
        doomed = {
            key: self._delta.actual[key]
            for key in self._delta.stale()
            if key not in self.inherited and key not in self._handed and not (waits and key in self.failed)
        }
        failed = self._write(new, changed, doomed)
        self._after((*new, *changed, *doomed), failed, now)
        return Applied(
            added=len(new) - len(failed.keys() & new.keys()),
            replaced=len(changed) - len(failed.keys() & changed.keys()),
            removed=len(doomed) - len(failed.keys() & doomed.keys()),
            failed=failed,
        )

    def _write(
        self, new: Mapping[RouteKey, Route], changed: Mapping[RouteKey, Route], doomed: Mapping[RouteKey, Route]
    ) -> dict[RouteKey, DataplaneError]:
        failed: dict[RouteKey, DataplaneError] = {}
        if new:
            failed |= self._count("add", new, self._kernel.add(new))
        if changed:
            failed |= self._count("replace", changed, self._kernel.replace(changed))
        for key, route in (*new.items(), *changed.items()):
            if key not in failed:
                self._delta.saw(key, route)
        if doomed:
            failed |= self._count("delete", doomed, self._kernel.delete(doomed))
        for key in doomed:
            if key not in failed:
                self._delta.gone(key)
        return failed

    def _count(
        self, operation: str, routes: Mapping[RouteKey, Route], failed: dict[RouteKey, DataplaneError]
    ) -> dict[RouteKey, DataplaneError]:
        self.counts[operation, "ok"] += len(routes) - len(failed)
        if failed:
            self.counts[operation, "failed"] += len(failed)
        return failed

    def _after(self, tried: Iterable[RouteKey], failed: Mapping[RouteKey, DataplaneError], now: float) -> None:
        if self.failed or failed:
            for key in tried:
                self.failed.pop(key, None)
            self.failed = {
                key: error
                for key, error in (*self.failed.items(), *failed.items())
                if key in self._delta.desired or key in self._delta.actual
            }
        if not self.failed:
            self._retry_at = None
        elif failed or self._retry_at is None or now >= self._retry_at:
            self._retry_at = now + RETRY_SECONDS

    def needs_read(self) -> bool:
        """Whether the last writes met something that only a reading explains."""
        return any(map(_is_puzzling, self.failed.values()))


def is_felixs(routes: Iterable[Route]) -> bool:
    """Return whether all of the routes are felix's, which gives them up by itself."""
    return all(route.protocol == PROTOCOL_FELIX for route in routes)


def _is_puzzling(error: DataplaneError) -> bool:
    return isinstance(error, AlreadyThere | OutcomeUnknown)
