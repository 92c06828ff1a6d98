"""What is served on each interface of this host: who has it, and which policies and profiles are asked about it.

One mechanism for workloads and for host endpoints. An endpoint's record claims interfaces (`claims`); at a flush those
in question are settled, who has one is tried by the policies' selectors, and what applies is concluded.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from felix.calc.book import Asked, Book
from felix.calc.claims import Claims, note
from felix.calc.labels import LabelIndex, Labels
from felix.calc.model import NO_TURNOVER, PolicyId, Turnover
from felix.calc.parameters import Parameters
from felix.calc.policies import PolicyRecord
from felix.calc.problems import Problems
from resources.datastore.keys import ResourceKey
from resources.names import IfName, ProfileName


class Labelled(Protocol):
    """An endpoint's record: what claims take (see `claims.Claim`), and what policies and profiles go by."""

    @property
    def interface(self) -> IfName | None: ...
    @property
    def labels(self) -> Labels: ...
    @property
    def profiles(self) -> tuple[ProfileName, ...]: ...


class Policed(Protocol):
    """What is concluded about an interface: it asks policies, and profiles last."""

    @property
    def policies(self) -> Collection[PolicyId]: ...
    @property
    def profiles(self) -> tuple[ProfileName, ...]: ...


R = TypeVar("R", bound=Labelled)
E = TypeVar("E", bound=Policed)

_TOPICS_OF_SERVED = ("profiles", "unasked")
_TOPICS = ("interface", *_TOPICS_OF_SERVED)


class RuleUse:
    """Which interfaces ask which policies and profiles."""

    def __init__(self) -> None:
        self._users: dict[Asked, set[IfName]] = {}
        self._flipped: set[Asked] = set()

    def __contains__(self, who: Asked) -> bool:
        return who in self._users

    def users(self, who: Asked) -> Iterable[IfName]:
        return self._users.get(who, ())

    def replace(self, user: IfName, before: Policed | None, now: Policed | None) -> None:
        """Note what an interface asks now, and what it asked before."""
        old: set[Asked] = {*before.profiles, *before.policies} if before else set()
        new: set[Asked] = {*now.profiles, *now.policies} if now else set()
        self._flipped |= {who for who in new - old if who not in self._users}
        for who in old ^ new:
            note(self._users, who, user, there=who in new)
        self._flipped |= {who for who in old - new if who not in self._users}

    def take_flipped(self) -> set[Asked]:
        """Return what began to be asked or ceased to be since the last time."""
        flipped, self._flipped = self._flipped, set()
        return flipped


class Serving(ABC, Generic[R, E]):
    """The endpoints of one kind that this host serves, by interface."""

    def __init__(self, claims: Claims[R], book: Book, problems: Problems) -> None:
        self._claims = claims
        self._book = book
        self._problems = problems
        self._index: LabelIndex[ResourceKey, PolicyId] = LabelIndex(self._picks, self._picks)
        self._prefixes: tuple[str, ...] = ()
        self._unsettled: set[IfName] = set()
        self._dirty: set[IfName] = set()
        self._told: dict[IfName, E] = {}
        self.use = RuleUse()
        """By what was concluded last."""
        self.turnover = NO_TURNOVER
        """What came and went, the last time."""

    @property
    def evaluations(self) -> int:
        return self._index.evaluations

    @property
    def told(self) -> dict[IfName, E]:
        """All that was concluded, as of the last time."""
        return dict(self._told)

    def put(self, key: ResourceKey, record: R | None) -> None:
        """Add, change or (None) forget an endpoint of this host."""
        if record is None and key not in self._claims:
            return
        self._unsettled |= self._claims.put(key, record)
        if record is None:
            self._index.remove_item(key)
            self._withdraw(key, _TOPICS)

    def set_policy(self, policy: PolicyId, record: PolicyRecord | None, *, bearing: bool) -> None:
        """Take a policy as it is now. `bearing`: the lists of policies that it is in may be others."""
        if bearing:
            self.touch_policy(policy)
        if record is not None and self._is_asked(record):
            self._index.set_selector(policy, record.selector)
        else:
            self._index.remove_selector(policy)

    def touch_policy(self, policy: PolicyId) -> None:
        """Take note that the lists of policies that it is in may be others."""
        for key in self._index.items_of(policy):
            self._picks(policy, key)

    def set_profile(self, profile: ProfileName, labels: Labels, *, appears: bool) -> None:
        """Take the labels that a profile hands down now. `appears`: it begins or ends to exist."""
        self._index.set_parent(profile, labels)
        if appears:
            self._dirty.update(self.use.users(profile))

    def conclude(self, parameters: Parameters) -> dict[IfName, E | None]:
        """Return what is served on each interface for which that differs from the last time; None: nothing."""
        self._settle(parameters.interface_prefixes)
        changes: dict[IfName, E | None] = {}
        self.turnover = NO_TURNOVER
        for interface in self._dirty:
            endpoint, told = self._concluded(interface), self._told.get(interface)
            if endpoint == told:
                continue
            changes[interface] = endpoint
            self.turnover |= _turnover(told, endpoint)
            self.use.replace(interface, told, endpoint)
            if endpoint is None:
                del self._told[interface]
            else:
                self._told[interface] = endpoint
        self._dirty.clear()
        return changes

    def _settle(self, prefixes: tuple[str, ...]) -> None:
        """Decide who has each interface that is in question, and ask the policies about its labels."""
        if prefixes != self._prefixes:
            self._prefixes = prefixes
            self._unsettled |= self._claims.interfaces()
        touched = [
            key
            for interface in self._unsettled
            for key in (self._claims.served(interface), self._claims.settle(interface, prefixes))
            if key is not None
        ]
        self._dirty |= self._unsettled
        self._unsettled.clear()
        for key in dict.fromkeys(touched):
            if self._claims.is_served(key):
                record = self._claims.record(key)
                self._index.set_item(key, record.labels, record.profiles)
            else:
                self._index.remove_item(key)
                self._withdraw(key, _TOPICS_OF_SERVED)
        for key, texts in self._claims.take_explanations(prefixes).items():
            self._problems.note(key, "interface", texts)

    def _concluded(self, interface: IfName) -> E | None:
        key = self._claims.served(interface)
        if key is None:
            return None
        record = self._claims.record(key)
        missing = [name for name in record.profiles if name not in self._book.profiles]
        effect = "does not exist: until it does it denies everything"
        self._problems.note(key, "profiles", (f"profile {name} {effect}" for name in missing))
        asked = [self._book.policies[policy] for policy in self._index.selectors_of(key)]
        endpoint, unasked = self._conclude(interface, key, record, asked)
        self._problems.note(key, "unasked", unasked)
        return endpoint

    def _withdraw(self, key: ResourceKey, topics: Iterable[str]) -> None:
        for topic in topics:
            self._problems.note(key, topic, ())

    def _picks(self, _: PolicyId, key: ResourceKey) -> None:
        """A policy begins or ends to pick an endpoint, or to be asked in another place."""
        self._dirty.update(self._claims.serves(key))

    @abstractmethod
    def _is_asked(self, policy: PolicyRecord) -> bool:
        """Tell whether endpoints of this kind ask policies of this kind, if they are picked."""

    @abstractmethod
    def _conclude(
        self, interface: IfName, key: ResourceKey, record: R, policies: Sequence[PolicyRecord]
    ) -> tuple[E, Sequence[str]]:
        """Return what applies to an endpoint that is served, and which of the policies that pick it do not, and why."""


def _turnover(before: object | None, now: object | None) -> Turnover:
    if before is None:
        return Turnover.COMES
    return Turnover.GOES if now is None else Turnover.CHANGES
