"""IP sets in memory. Obeys `fakes.set_contract`."""

import errno
import ipaddress
from collections.abc import Callable, Collection, Sequence

from kernel.errors import AlreadyThere, Busy, DataplaneError, InvalidArgument, NoRoom
from kernel.sets import NAME_MAX, KernelSet, SetDelta, SetSpec


class FakeSets:
    """SetKernel. `refuse` names sets on which every write fails, `users` tell which names rules hold; `log` keeps the
    writes, one line per set ("apply cali40x +1 -0")."""

    def __init__(self) -> None:
        self.refuse: set[str] = set()
        self.users: list[Callable[[], set[str]]] = []
        self.unreadable: DataplaneError | None = None
        self.log: list[str] = []
        self._specs: dict[str, SetSpec] = {}
        self._members: dict[str, set[str]] = {}

    @property
    def members(self) -> dict[str, frozenset[str]]:
        """Members by set name."""
        return {name: frozenset(members) for name, members in self._members.items()}

    def put(self, spec: SetSpec, *members: str) -> None:
        """Make a set as another program would."""
        self._specs[spec.name] = spec
        self._members[spec.name] = set(members)

    def lose(self, name: str) -> None:
        """Destroy a set as another program would."""
        del self._specs[name], self._members[name]

    def read(self, prefixes: tuple[str, ...]) -> dict[str, KernelSet]:
        if self.unreadable is not None:
            raise self.unreadable
        return {
            name: KernelSet(spec=spec, members=frozenset(self._members[name]))
            for name, spec in self._specs.items()
            if name.startswith(prefixes)
        }

    def apply(self, deltas: Sequence[SetDelta]) -> dict[str, DataplaneError]:
        failed: dict[str, DataplaneError] = {}
        for delta in deltas:
            name = delta.spec.name
            self.log.append(f"apply {name} +{len(delta.add)} -{len(delta.remove)}")
            try:
                self._check(delta.spec)
                if self._specs.setdefault(name, delta.spec) != delta.spec:
                    raise AlreadyThere(f"cannot change set {name}: it has another form", errno=errno.EEXIST)
                members = self._members.setdefault(name, set())
                for member in sorted(delta.add):
                    self._add(delta.spec, members, member)
                members -= delta.remove
            except DataplaneError as exc:
                failed[name] = exc
        return failed

    def rewrite(self, sets: Sequence[KernelSet]) -> dict[str, DataplaneError]:
        failed: dict[str, DataplaneError] = {}
        for wanted in sets:
            name = wanted.spec.name
            self.log.append(f"rewrite {name} {len(wanted.members)}")
            try:
                self._check(wanted.spec)
                fresh: set[str] = set()
                for member in sorted(wanted.members):
                    self._add(wanted.spec, fresh, member)
                old = self._specs.get(name)
                if old is not None and (old.type, old.version) != (wanted.spec.type, wanted.spec.version):
                    raise InvalidArgument(f"cannot rewrite set {name}: the type does not match", errno=errno.EINVAL)
                self._specs[name], self._members[name] = wanted.spec, fresh
            except DataplaneError as exc:
                failed[name] = exc
        return failed

    def destroy(self, names: Collection[str]) -> dict[str, DataplaneError]:
        failed: dict[str, DataplaneError] = {}
        for name in sorted(names):
            self.log.append(f"destroy {name}")
            if name in self.refuse:
                failed[name] = InvalidArgument(f"cannot destroy set {name}: refused", errno=errno.EINVAL)
            elif any(name in users() for users in self.users):
                failed[name] = Busy(f"cannot destroy set {name}: it is in use", errno=errno.EBUSY)
            else:
                self._specs.pop(name, None)
                self._members.pop(name, None)
        return failed

    def _check(self, spec: SetSpec) -> None:
        if spec.name in self.refuse or len(spec.name) > NAME_MAX:
            raise InvalidArgument(f"cannot write set {spec.name}", errno=errno.EINVAL)

    def _add(self, spec: SetSpec, members: set[str], member: str) -> None:
        network = ipaddress.ip_network(member.partition(",")[0], strict=False)
        if network.version != spec.version or network.prefixlen == 0:
            raise InvalidArgument(f"cannot change set {spec.name}: bad member {member}", errno=errno.EINVAL)
        if member not in members and len(members) >= spec.maxelem:
            raise NoRoom(f"cannot change set {spec.name}: it is full", errno=errno.ENOSPC)
        members.add(member)
