"""Effector for IP sets: filled before the rules that ask for them, destroyed after (reference felix.md 1.5, 4.5).

Of a set that is there already only what closes is written before the rules, what opens after them: see
`felix.calc.model.members_order`. Where no order is safe, `closing` names the chains that are to be closed before.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from felix.calc.model import EARLY, Order
from felix.dataplane.tables import Drift
from felix.desired import ChainKey, IPSet, SetChange
from kernel.errors import Busy, DataplaneError
from kernel.sets import TEMPORARY_PREFIXES, KernelSet, SetDelta, SetKernel, SetSpec

PREFIXES = ("cali40", "cali60", *TEMPORARY_PREFIXES)
"""Sets whose names begin so are ours."""

DESTROYED_PER_ROUND = 50
"""One ``ipset restore`` of fifty destroys takes 3 ms (felix.md 4.5); the rest waits for the next apply."""

BUSY_ROUNDS = 20
"""A set that is still in use after so many rounds is named by somebody else's rule, most likely."""


@dataclass(slots=True)
class _Set:
    spec: SetSpec
    members: set[str] = field(default_factory=set)
    order: Order = EARLY
    closing: frozenset[ChainKey] = frozenset()


class SetEffector:
    """Makes the kernel's sets equal to the wanted ones, at the cost of the members that changed."""

    def __init__(self, kernel: SetKernel, *, maxelem: int) -> None:
        self._kernel = kernel
        self._maxelem = maxelem
        self._desired: dict[str, _Set] = {}
        self._actual: dict[str, _Set] = {}
        self._touched: dict[str, set[str] | None] = {}  # None: compare the whole set
        self._unwanted: dict[str, int] = {}  # and how often each was found in use
        self._resync_due = True
        self._in_doubt = True  # what is there may be another thing than `_actual`, by our own doing
        self._drift: dict[str, Drift] = {}
        self.written = 0
        """How many sets were made, changed and destroyed so far."""

    def resync(self) -> None:
        """Read all sets back before the next apply."""
        self._resync_due = True

    def want(self, changes: Mapping[str, IPSet | SetChange | None]) -> None:
        for name, change in changes.items():
            match change:
                case None:
                    self._desired.pop(name, None)
                    self._touched[name] = None
                    if name in self._actual:
                        self._unwanted[name] = 0
                case IPSet():
                    spec = SetSpec(name=name, type=change.type, version=change.version, maxelem=self._maxelem)
                    members = {_canonical(member) for member in change.members}
                    self._desired[name] = _Set(spec, members, change.order, change.closing)
                    self._unwanted.pop(name, None)
                    self._touched[name] = None
                case SetChange():
                    self._change(name, change)

    def _change(self, name: str, change: SetChange) -> None:
        wanted = self._desired[name]
        added = {_canonical(member) for member in change.added}
        removed = {_canonical(member) for member in change.removed}
        wanted.members -= removed
        wanted.members |= added
        if name not in self._touched:
            wanted.closing = frozenset()
        # what waits since an apply that failed goes with the new change, and needs at least what it needed alone
        wanted.order, wanted.closing = change.order, wanted.closing | change.closing
        touched = self._touched.setdefault(name, set())
        if touched is not None:
            touched |= added | removed

    def refresh(self) -> dict[str, DataplaneError]:
        """Read all sets back, if that is due.

        Raises:
            DataplaneError: they cannot be read.
        """
        if self._resync_due:
            self._read()
        return {}

    def take_drift(self) -> dict[str, Drift]:
        """Return what others did to our sets, by name, since this was last asked for."""
        drift, self._drift = self._drift, {}
        return drift

    def closing(self, version: int) -> frozenset[ChainKey]:
        """Return the chains of one address family that are to be closed before `apply`."""
        asking = (name for name in self._touched if name in self._desired and self._desired[name].closing)
        return frozenset().union(*(self._desired[name].closing for name in self._changing(asking, version)))

    def is_changing(self, version: int) -> bool:
        """Return whether members of a set that is there come or go in the next apply."""
        return any(True for _ in self._changing(self._touched, version))

    def _changing(self, names: Iterable[str], version: int) -> Iterator[str]:
        for name in names:
            wanted, there = self._desired.get(name), self._actual.get(name)
            if wanted is None or there is None or wanted.spec.version != version:
                continue
            if any(self._difference(wanted, there, self._touched[name])):
                yield name

    def apply(self, without: Collection[int] = ()) -> dict[str, DataplaneError]:
        """Make missing sets and bring members up to date, but for those that come or go late; destroy nothing.

        Args:
            without: address families whose sets are to stay as they are for now.

        Returns what failed, by set.

        Raises:
            DataplaneError: the sets cannot be read.
        """
        self.refresh()
        deltas: list[SetDelta] = []
        rewrites: list[KernelSet] = []
        late: dict[str, set[str] | None] = {}
        for name in sorted(self._touched):
            if (wanted := self._desired.get(name)) is None:
                continue
            if wanted.spec.version in without:
                late[name] = self._touched[name]
                continue
            there = self._actual.get(name)
            if there is not None and there.spec != wanted.spec:
                rewrites.append(KernelSet(spec=wanted.spec, members=frozenset(wanted.members)))
                continue
            add, remove = self._difference(wanted, there, self._touched[name])
            order = wanted.order
            if there is not None and ((add and order.adds_late) or (remove and order.removes_late)):
                late[name] = self._touched[name]
                add = frozenset() if order.adds_late else add
                remove = frozenset() if order.removes_late else remove
            if there is None or add or remove:
                deltas.append(SetDelta(spec=wanted.spec, add=add, remove=remove))
        failed = self._write(deltas, alone_first=False)
        if rewrites:
            doubt, self._in_doubt = self._in_doubt, True
            failed |= self._kernel.rewrite(rewrites)
            self._in_doubt = doubt
        self._settle(deltas, rewrites, failed)
        self._touched = late | dict.fromkeys(failed)
        return failed

    def finish(self, version: int) -> dict[str, DataplaneError]:
        """Write the members of one address family that come and go late; return what failed, by set.

        To be called when the rules are written.
        """
        deltas: list[SetDelta] = []
        for name in sorted(self._touched):
            wanted, there = self._desired.get(name), self._actual.get(name)
            if wanted is None or there is None or wanted.spec.version != version or there.spec != wanted.spec:
                continue
            add, remove = self._difference(wanted, there, self._touched[name])
            if add or remove:
                deltas.append(SetDelta(spec=wanted.spec, add=add, remove=remove))
        if not deltas:
            return {}
        failed = self._write(deltas, alone_first=True)
        self._settle(deltas, [], failed)
        for delta in deltas:
            self._touched.pop(delta.spec.name)
        self._touched |= dict.fromkeys(failed)
        return failed

    def sweep(self) -> dict[str, DataplaneError]:
        """Destroy sets of ours that are not wanted; to be called when no rule names them any more.

        A set may be in use for a moment after the last rule that named it: the kernel lets go of rules later. Only one
        that stays so has failed.
        """
        # temporary sets first: they hold nothing that a rule may name; then those that were not in use the last time
        names = heapq.nsmallest(
            DESTROYED_PER_ROUND,
            self._unwanted,
            key=lambda name: (not name.startswith(TEMPORARY_PREFIXES), self._unwanted[name], name),
        )
        if not names:
            return {}
        failed = self._kernel.destroy(names)
        for name in names:
            if name not in failed:
                del self._actual[name], self._unwanted[name]
                self._touched.pop(name, None)
                self.written += 1
            elif isinstance(failed[name], Busy) and self._unwanted[name] < BUSY_ROUNDS:
                self._unwanted[name] += 1
                del failed[name]
        return failed

    @property
    def unswept(self) -> int:
        """How many sets of ours are there and not wanted."""
        return len(self._unwanted)

    def _read(self) -> None:
        read = self._kernel.read(PREFIXES)
        found = {name: _Set(held.spec, {_canonical(m) for m in held.members}) for name, held in read.items()}
        if not self._in_doubt:
            self._drift |= self._compare(found)
        self._actual, self._in_doubt = found, False
        self._touched = dict.fromkeys([*self._desired, *self._actual])
        self._unwanted = {name: self._unwanted.get(name, 0) for name in self._actual if name not in self._desired}
        self._resync_due = False

    def _compare(self, found: Mapping[str, _Set]) -> dict[str, Drift]:
        """Return how wanted sets differ from what we left behind."""
        drift = {}
        for name in self._desired.keys() & self._actual.keys():
            left, there = self._actual[name], found.get(name)
            if there is None or there.spec != left.spec:
                drift[name] = Drift("it was gone" if there is None else "it was a set of another kind", lost=True)
            elif there.members != left.members:
                counts = {"missing": len(left.members - there.members), "foreign": len(there.members - left.members)}
                texts = [f"{count} {what}" for what, count in counts.items() if count]
                drift[name] = Drift(f"members: {', '.join(texts)}", lost=True)
        return drift

    def _difference(
        self, wanted: _Set, there: _Set | None, touched: set[str] | None
    ) -> tuple[frozenset[str], frozenset[str]]:
        if there is None:
            return frozenset(wanted.members), frozenset()
        if touched is None:
            return frozenset(wanted.members - there.members), frozenset(there.members - wanted.members)
        add = frozenset(m for m in touched if m in wanted.members and m not in there.members)
        remove = frozenset(m for m in touched if m not in wanted.members and m in there.members)
        return add, remove

    def _write(self, deltas: list[SetDelta], *, alone_first: bool) -> dict[str, DataplaneError]:
        """Write in two batches, if there are some to be alone."""
        batches: tuple[list[SetDelta], list[SetDelta]] = ([], [])
        for delta in deltas:
            batches[self._desired[delta.spec.name].order.alone is not alone_first].append(delta)
        failed: dict[str, DataplaneError] = {}
        doubt, self._in_doubt = self._in_doubt, True
        for batch in filter(None, batches):
            failed |= self._kernel.apply(batch)
        self._in_doubt = doubt
        return failed

    def _settle(
        self, deltas: list[SetDelta], rewrites: list[KernelSet], failed: Mapping[str, DataplaneError]
    ) -> None:
        for delta in deltas:
            if delta.spec.name not in failed:
                held = self._actual.setdefault(delta.spec.name, _Set(delta.spec))
                held.members -= delta.remove
                held.members |= delta.add
                self.written += 1
        for rewritten in rewrites:
            if rewritten.spec.name not in failed:
                self._actual[rewritten.spec.name] = _Set(rewritten.spec, set(rewritten.members))
                self.written += 1
        self._resync_due = self._resync_due or bool(failed)
        self._in_doubt = self._in_doubt or bool(failed)


def _canonical(member: str) -> str:
    """Return a member as ipset prints it: a single address has no length."""
    if "," in member:
        return member
    address, _, length = member.partition("/")
    return address if length == ("128" if ":" in address else "32") else member
