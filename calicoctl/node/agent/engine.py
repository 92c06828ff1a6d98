"""The owner of the agent's state: folds what the store says, and settles the tunnels when something has changed.

All reading for decisions is fresh; the watch only says when to look.
"""

import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from calicoctl.node.agent.keeper import Kept
from calicoctl.node.agent.tunnels import KINDS, Sources, TunnelKind, sources
from ipam.tidy import NO_MARKS, Marks, Tidied
from resources.codec import BadRecord
from resources.datastore.keys import kind_prefix
from resources.datastore.sync import Change, Changes, InSync, OutOfSync, SyncMessage
from resources.errors import CalicoError
from resources.kinds import node as node_kind
from resources.kinds import pool as pool_kind
from resources.kinds.node import Node
from resources.kinds.pool import IPPool
from resources.names import NodeName
from resources.runtime.backoff import Backoff
from resources.typed_sync import TypedReader

WAITS_FOR_STORE = "the datastore"
WAITS_FOR_TUNNELS = "a first look at the tunnel addresses"
WAITS_FOR = (WAITS_FOR_STORE, WAITS_FOR_TUNNELS)

_READER = TypedReader([node_kind.KIND, pool_kind.KIND])


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody wants the daemon's whole state; the owner puts it into `reply`."""

    reply: "queue.SimpleQueue[object]"


Message = SyncMessage | Ask


class TunnelKeeper(Protocol):
    """What this needs of `keeper.Keeper`."""

    def settle(self, kind: TunnelKind, wanted: Sources) -> Kept: ...


class Tidier(Protocol):
    """What this needs of `ipam.allocator.Allocator`."""

    def tidy(self, before: Marks = NO_MARKS) -> Tidied: ...


class Readiness(Protocol):
    """What this needs of resources.runtime.health."""

    def done(self, thing: str) -> None: ...


class Engine:
    """Handles batches of messages of one thread; see `resources.runtime.loop`."""

    def __init__(
        self,
        node: NodeName,
        keeper: TunnelKeeper,
        tidier: Tidier,
        readiness: Readiness,
        *,
        audit_seconds: float,
        tidy_seconds: float,
        clock: Callable[[], float],
        backoff: Backoff | None = None,
    ) -> None:
        self._node, self._keeper, self._tidier, self._readiness = node, keeper, tidier, readiness
        self._audit_seconds, self._tidy_seconds, self._clock = audit_seconds, tidy_seconds, clock
        self._backoff = backoff or Backoff(0.5, 30.0)
        self._pools: dict[str, IPPool] = {}
        self._record: Node | None = None
        self._bad: dict[str, str] = {}
        self._in_sync = False
        self._due: float | None = None
        """When to look again; None: when the store says something."""
        self._tidy_at: float | None = None
        self._marks = NO_MARKS
        self._given_up = 0
        self._kept: dict[str, Kept] = {}
        self._told: dict[str, str] = {}
        self._log = structlog.get_logger().bind(part="tunnels")

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What of the store to follow: the pools, and this node's record (with those whose names begin alike)."""
        return kind_prefix(pool_kind.KIND.plural), kind_prefix(node_kind.KIND.plural) + self._node

    def handle(self, batch: Sequence[Message]) -> float | None:
        """Take messages, look at the tunnels if that is due; return the seconds until the next look, or None."""
        asked: list[Ask] = []
        for message in batch:
            match message:
                case Changes(changes):
                    if self._take(changes):
                        self._due = self._clock()
                case InSync():
                    self._in_sync = True
                    self._due = self._clock()
                    self._tidy_at = self._tidy_at or self._clock()
                    self._readiness.done(WAITS_FOR_STORE)
                    self._log.info("datastore.in_sync", pools=len(self._pools))
                case OutOfSync(reason):
                    self._in_sync = False
                    self._log.warning("datastore.out_of_sync", reason=reason, kept="what is recorded")
                case Ask():
                    asked.append(message)
        if self._in_sync and self._due is not None and self._clock() >= self._due:
            self._look()
        if self._in_sync and self._tidy_at is not None and self._clock() >= self._tidy_at:
            self._tidy()
        for ask in asked:
            ask.reply.put(self.state())
        return self._wait()

    def _wait(self) -> float | None:
        times = [at for at in (self._due, self._tidy_at) if at is not None]
        return max(0.0, min(times) - self._clock()) if self._in_sync and times else None

    # --- what the store says -----------------------------------------------------------------------------------------

    def _take(self, changes: Sequence[Change]) -> bool:
        """Fold changes; return whether one of them matters."""
        matters = False
        for typed in _READER.read_all(changes):
            name = typed.key.name
            if typed.key.plural == node_kind.KIND.plural:
                if name != self._node:
                    continue
                self._record = typed.value if isinstance(typed.value, Node) else None
            elif isinstance(typed.value, IPPool):
                self._pools[name] = typed.value
            else:
                self._pools.pop(name, None)
            self._note_bad(f"{typed.key.plural}/{name}", typed.bad)
            matters = True
        return matters

    def _note_bad(self, key: str, bad: BadRecord | None) -> None:
        if bad is None:
            self._bad.pop(key, None)
        elif self._bad.get(key) != str(bad):
            self._bad[key] = str(bad)
            self._log.error("record.skipped", key=key, reason=str(bad))

    # --- the look ----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Settle every tunnel; one that fails does not keep the others waiting."""
        failed = False
        for kind in KINDS:
            try:
                kept = self._settle(kind)
            except CalicoError as error:
                failed = True
                kept = Kept(None, f"{error}" + (f" ({error.hint})" if error.hint else ""))
            self._kept[kind.name] = kept
            self._tell(kind, kept.trouble)
        self._readiness.done(WAITS_FOR_TUNNELS)
        if failed:
            self._due = self._clock() + self._backoff.next()
        else:
            self._backoff.reset()
            self._due = self._clock() + self._audit_seconds

    def _tidy(self) -> None:
        """Give up blocks that this node has not needed since the last time."""
        self._tidy_at = self._clock() + self._tidy_seconds
        try:
            done = self._tidier.tidy(self._marks)
        except CalicoError as error:
            self._log.warning("blocks.not_tidied", error=str(error), retry_seconds=self._tidy_seconds)
            return
        self._marks = done.marks
        self._given_up += len(done.given_up)
        if done.given_up:
            reason = "they were empty, or not this node's, twice in a row"
            self._log.info("blocks.given_up", blocks=" ".join(map(str, done.given_up)), reason=reason)

    def _settle(self, kind: TunnelKind) -> Kept:
        wanted = self._sources(kind)
        if self._record is None:
            missing = f"this node has no readable record: {self._bad.get('nodes/' + self._node, 'it does not exist')}"
            return Kept(None, f"{missing} ('calicoctl node run' registers it)" if wanted.is_wanted else "")
        return self._keeper.settle(kind, wanted)

    def _sources(self, kind: TunnelKind) -> Sources:
        return sources(kind, self._pools.values(), self._record.metadata.labels if self._record else {})

    def _tell(self, kind: TunnelKind, trouble: str) -> None:
        before = self._told.get(kind.name, "")
        if trouble == before:
            return
        self._told[kind.name] = trouble
        if trouble:
            self._log.error("tunnel.without_address", tunnel=kind.name, reason=trouble, retry="soon")
        else:
            self._log.info("tunnel.trouble_over", tunnel=kind.name)

    def state(self) -> dict[str, object]:
        """Return everything, for people and for `calicoctl`."""
        return {
            "node": self._node,
            "in_sync": self._in_sync,
            "tunnels": {
                kind.name: {
                    "address": str(kept.address) if kept.address is not None else None,
                    "pools": [str(network) for network in self._sources(kind).usable],
                    "trouble": kept.trouble,
                }
                for kind in KINDS
                if (kept := self._kept.get(kind.name)) is not None
            },
            "blocks_given_up": self._given_up,
            "unusable": [{"what": what, "reason": reason} for what, reason in sorted(self._bad.items())],
        }
