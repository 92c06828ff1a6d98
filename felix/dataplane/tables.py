"""Effector for the chains of one rule table (reference felix.md 3.10).

Chains are compared by the hash tags of their rules, position by position, and rewritten whole where they differ.
Rules of ours in kernel chains are kept first (or last); the rules of others are neither moved nor read. The table is
read back at the start, when somebody else changed rules, after a refusal and at the refresh interval; not before each
write.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from felix.desired import Chain, KernelChain
from felix.render.names import FROM_WORKLOAD, GROUP_PREFIX, POLICY_PREFIX, PROFILE_PREFIX, TO_WORKLOAD
from kernel.errors import DataplaneError, TableRefused
from kernel.xtables import OutsideRule, TableChange, TableKernel, TableKey, TableState

CONDEMNED = Chain(("-m comment --comment \"cali:condemned0000000\" -j DROP",), ("condemned0000000",))
"""What stands in for a chain that the kernel refuses: nothing passes, and the rest of the table still gets written."""

CLOSED = Chain(("-m comment --comment \"cali:closed0000000000\" --jump DROP",), ("closed0000000000",))
"""What stands before the rules of a chain while sets that they name change: nothing passes that comes to them."""

NAMING_SETS = (*POLICY_PREFIX.values(), *PROFILE_PREFIX.values())
"""Chains whose rules may name a set with members that follow labels begin so."""

CONDEMNABLE = (FROM_WORKLOAD, TO_WORKLOAD, *GROUP_PREFIX.values(), *NAMING_SETS)
"""Chains of one endpoint, group, policy or profile begin so. Of the others a DROP would cut off the host, or
everybody."""

TRIES = 10


NAMES_TOLD = 5


@dataclass(frozen=True, slots=True)
class Drift:
    """What others did to our rules of one table, or to a set of ours, found by reading it back."""

    found: str
    """For the log: "FORWARD: ours were not in place; chains gone: cali-a, cali-b"."""
    lost: bool
    """Rules of ours were missing or changed; not only in another place."""


class TableEffector:
    """Makes one table's chains of ours equal to the wanted ones."""

    def __init__(self, kernel: TableKernel, key: TableKey) -> None:
        self.key = key
        self._kernel = kernel
        self._desired: dict[str, Chain] = {}
        self._kernel_chains: dict[str, KernelChain] = {}
        self._actual: dict[str, tuple[str, ...]] = {}
        self._outside: Mapping[str, Sequence[OutsideRule]] = {}
        self._dirty: set[str] = set()
        self._condemned: dict[str, DataplaneError] = {}
        self._resync_due = True
        self._drift: Drift | None = None
        self._known = False
        self.written = 0
        """How many chains were written and deleted so far, kernel chains included."""
        self.closed = 0
        """How many chains were closed for a moment so far."""

    def resync(self) -> None:
        """Read the table back before the next apply, and try chains again that were refused."""
        self._resync_due = True
        self._condemned.clear()

    def take_drift(self) -> Drift | None:
        """Return what others did to our rules, as the last apply found and mended it; once."""
        drift, self._drift = self._drift, None
        return drift

    def want(self, chain: str, rules: Chain | None) -> None:
        if rules is None:
            self._desired.pop(chain, None)
        else:
            self._desired[chain] = rules
        self._condemned.pop(chain, None)
        self._dirty.add(chain)

    def want_in_kernel_chain(self, chain: str, rules: KernelChain | None) -> None:
        if rules is None:
            self._kernel_chains.pop(chain, None)
        else:
            self._kernel_chains[chain] = rules
        self._resync_due = True

    def close(self, chains: Iterable[str], *, unknown_too: bool) -> dict[str, DataplaneError]:
        """Let nothing pass that comes to chains of policies and profiles, until the next `apply`.

        In one transaction of its own. Flows that connection tracking knows do not come to such chains. Their counters
        stay.

        Args:
            chains: which; those that are not in the kernel cost nothing.
            unknown_too: those that are to be rewritten or to go, too: they may name anything.

        Raises:
            DataplaneError: the table cannot be read or written; nothing is closed.
        """
        if self._resync_due:
            self._read()
        unknown = (chain for chain in self._dirty if chain.startswith(NAMING_SETS)) if unknown_too else ()
        there = {chain: tags for chain in (*chains, *unknown) if (tags := self._actual.get(chain))}
        new = sorted(chain for chain, tags in there.items() if tags[: len(CLOSED.tags)] != CLOSED.tags)
        if not new:
            return {}
        try:
            self._kernel.write(self.key, TableChange(insert=dict.fromkeys(new, CLOSED.rules)))
        except DataplaneError:
            self._resync_due, self._known = True, False
            raise
        for chain in new:
            self._actual[chain] = (*CLOSED.tags, *there[chain])
        self._dirty.update(new)
        self.closed += len(new)
        return {}

    def apply(self) -> dict[str, DataplaneError]:
        """Write the difference as one transaction; return the chains that failed.

        After a refusal the table is read back and the difference written again: somebody may have changed it in
        between. A chain of one endpoint, group, policy or profile that is refused a second time is replaced by a DROP,
        so that it harms nobody else and lets nothing pass; so is each further one at once, however many there are.

        Raises:
            DataplaneError: the table cannot be read or written; it is to be tried again.
        """
        last: TableRefused | None = None
        suspect, condemning = "", False
        tries = TRIES
        while tries:
            tries -= 1
            if self._resync_due:
                self._read()
            change = self._change()
            if not change:
                return dict(self._condemned)
            try:
                stuck = self._kernel.write(self.key, change)
            except TableRefused as refusal:
                self._resync_due, last = True, refusal
                chain = refusal.chain or ""
                condemnable = chain in self._desired and chain not in self._condemned and chain.startswith(CONDEMNABLE)
                if condemnable and (chain == suspect or condemning):
                    self._condemned[chain] = refusal
                    condemning, tries = True, TRIES  # there is one less that can be refused
                suspect = chain
                continue
            except DataplaneError:
                self._resync_due, self._known = True, False  # what was written of it is not known
                raise
            self._settle(change, stuck)
            return self._condemned | stuck
        assert last is not None
        raise last

    def _read(self) -> None:
        state = self._kernel.read(self.key)
        if self._known:
            self._drift = self._compare(state) or self._drift
        self._known = True
        self._actual = {chain: self._one_of_both(chain, tags) for chain, tags in state.chains.items()}
        self._outside = state.outside
        self._dirty = {
            chain
            for chain in self._desired.keys() | self._actual.keys()
            if chain not in self._desired or not self._is_as_wanted(chain)
        }
        self._resync_due = False

    def _compare(self, state: TableState) -> Drift | None:
        """Return in which points the table is not as we left it, as far as that concerns us."""
        texts: list[str] = []
        lost = False
        for chain, wanted in sorted(self._kernel_chains.items()):
            before, now = self._outside.get(chain, ()), state.outside.get(chain, ())
            if not _in_place(before, wanted) or _in_place(now, wanted):
                continue
            ours = [rule.tag for rule in now if rule.is_ours]
            complete = ours == [*wanted.inserts.tags, *wanted.appends.tags]
            lost |= not complete
            texts.append(f"{chain}: ours were {'not in place' if complete else 'missing' if not ours else 'changed'}")
        gone = sorted(self._actual.keys() - state.chains.keys())
        changed = sorted(c for c, tags in state.chains.items() if c in self._actual and self._actual[c] != tags)
        added = sorted(chain for chain in state.chains.keys() - self._actual.keys() if chain not in self._desired)
        for what, chains in (("gone", gone), ("changed", changed), ("not of this felix", added)):
            if chains:
                more = f" and {len(chains) - NAMES_TOLD} more" if len(chains) > NAMES_TOLD else ""
                texts.append(f"chains {what}: {', '.join(chains[:NAMES_TOLD])}{more}")
        return Drift("; ".join(texts), lost or bool(gone or changed)) if texts else None

    def _one_of_both(self, chain: str, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Return the wanted tags where those that were read are the same: a host has tens of thousands."""
        wanted = self._desired.get(chain)
        return wanted.tags if wanted is not None and wanted.tags == tags else tags

    def _is_as_wanted(self, chain: str) -> bool:
        return self._actual.get(chain) == self._wanted(chain).tags

    def _wanted(self, chain: str) -> Chain:
        return CONDEMNED if chain in self._condemned else self._desired[chain]

    def _is_only_closed(self, chain: str) -> bool:
        """Return whether a chain is as it is to be, but for the rule that closes it."""
        return self._actual.get(chain) == (*CLOSED.tags, *self._wanted(chain).tags)

    def _change(self) -> TableChange:
        wanted_anew = [c for c in sorted(self._dirty) if c in self._desired and not self._is_as_wanted(c)]
        delete = [(chain, CLOSED.rules[0]) for chain in wanted_anew if self._is_only_closed(chain)]
        insert: dict[str, Sequence[str]] = {}
        append: dict[str, Sequence[str]] = {}
        for chain in sorted(self._outside.keys() | self._kernel_chains.keys()):
            wanted = self._kernel_chains.get(chain, KernelChain())
            rules = self._outside.get(chain, ())
            if _in_place(rules, wanted):
                continue
            delete += ((chain, rule.text) for rule in rules if rule.text is not None)
            if wanted.inserts.rules:
                insert[chain] = wanted.inserts.rules
            if wanted.appends.rules:
                append[chain] = wanted.appends.rules
        return TableChange(
            chains={chain: self._wanted(chain).rules for chain in wanted_anew if not self._is_only_closed(chain)},
            delete=delete,
            insert=insert,
            append=append,
            remove_chains=frozenset(c for c in self._dirty if c not in self._desired and c in self._actual),
        )

    def _settle(self, change: TableChange, stuck: Mapping[str, DataplaneError]) -> None:
        touched = {*change.insert, *change.append, *(chain for chain, _ in change.delete)}
        opened = touched & self._actual.keys()
        self.written += len(change.chains) + len(change.remove_chains - stuck.keys()) + len(touched)
        for chain in (*change.chains, *opened):
            self._actual[chain] = self._wanted(chain).tags
        for chain in change.remove_chains - stuck.keys():
            self._actual.pop(chain, None)
        for chain in stuck:
            self._actual[chain] = ()  # emptied, though it is still there
        if touched - opened:
            self._outside = {
                chain: _ours(wanted) for chain, wanted in self._kernel_chains.items()
            }  # ours are first and last now; what lies between is nobody's business until the next read
        self._dirty = set(stuck)


def _ours(wanted: KernelChain) -> tuple[OutsideRule, ...]:
    pairs = zip(
        (*wanted.inserts.tags, *wanted.appends.tags), (*wanted.inserts.rules, *wanted.appends.rules), strict=True
    )
    return tuple(OutsideRule(tag, rule) for tag, rule in pairs)


def _in_place(rules: Sequence[OutsideRule], wanted: KernelChain) -> bool:
    """Return whether ours are the first and the last ones of the chain, once each, and nowhere else."""
    first, last = wanted.inserts.tags, wanted.appends.tags
    ours = [rule.tag for rule in rules if rule.is_ours]
    if ours != [*first, *last]:
        return False
    head = [rule.tag for rule in rules[: len(first)]]
    tail = [rule.tag for rule in rules[len(rules) - len(last) :]]
    return head == list(first) and tail == list(last)


