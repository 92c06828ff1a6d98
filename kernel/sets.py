"""IP sets, through ``ipset restore`` and ``ipset save``: one process for a batch, whatever its size.

A batch is not atomic: the kernel works through its lines one by one, and the program stops at the first that is refused
(reference felix.md 4.5). So every line here may be repeated (``-exist``), members are added before others are removed,
and after a refusal the batch is run again without the set it was about.
"""

import errno
import itertools
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kernel.errors import (
    AlreadyThere,
    Busy,
    DataplaneError,
    InvalidArgument,
    NoRoom,
    NoSuchEntry,
    NotPermitted,
    NotSupported,
)
from kernel.programs import Outcome, run
from resources.names import IPAddress, IPNetwork

TEMPORARY_PREFIXES: Final = ("cali4t", "cali6t")
"""Names of sets that live only during a rewrite; one that is found was left by a kill and may be destroyed."""
NAME_MAX: Final = 31
MAXELEM: Final = 1048576


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSpec:
    """What a set is made with."""

    name: str
    """31 bytes at most."""
    type: str
    """``hash:net``, ``hash:ip,port`` ..."""
    version: int
    """4 or 6."""
    maxelem: int = MAXELEM
    """Members at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSet:
    """A set and all that is in it, members in ipset's own text (see `net_member`, `port_member`)."""

    spec: SetSpec
    members: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDelta:
    """Members to come and to go. The set is made if it is not there."""

    spec: SetSpec
    add: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()


class SetKernel(Protocol):
    """The sets of one network namespace. The writes try every set and return those that failed, by name.

    What a failed set then holds is not known: read it back.
    """

    def read(self, prefixes: tuple[str, ...]) -> dict[str, KernelSet]:
        """Return the sets whose names begin with one of `prefixes`."""

    def apply(self, deltas: Sequence[SetDelta]) -> dict[str, DataplaneError]:
        """Make missing sets, add members, then remove members. What is done already is no failure.

        A set that is there with another type or size is AlreadyThere (see `rewrite`); a full one is NoRoom.
        """

    def rewrite(self, sets: Sequence[KernelSet]) -> dict[str, DataplaneError]:
        """Give sets exactly these members, and another maxelem if asked, at one stroke each (filled aside, swapped)."""

    def destroy(self, names: Collection[str]) -> dict[str, DataplaneError]:
        """Destroy sets; one that a rule still names is Busy. Absent is done."""


def net_member(network: IPNetwork) -> str:
    """Return a member of a ``hash:net`` set as ipset prints it: no length on a single address."""
    text = _address_text(network.network_address)
    return text if network.prefixlen == network.max_prefixlen else f"{text}/{network.prefixlen}"


def port_member(address: IPAddress, protocol: str, port: int) -> str:
    """Return a member of a ``hash:ip,port`` set as ipset prints it; `protocol` is tcp, udp or sctp."""
    return f"{_address_text(address)},{protocol}:{port}"


def _address_text(address: IPAddress) -> str:
    # the C library's text, not Python's: ::1.2.3.4, not ::102:304
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)


def parse_save(text: str, prefixes: tuple[str, ...]) -> dict[str, KernelSet]:
    """Parse what ``ipset save`` printed, keeping the sets whose names begin with one of `prefixes`."""
    specs: dict[str, SetSpec] = {}
    members: dict[str, list[str]] = {}
    for line in text.splitlines():
        verb, _, rest = line.partition(" ")
        name, _, rest = rest.partition(" ")
        if not name.startswith(prefixes):
            continue
        if verb == "add":
            members[name].append(rest)
        elif verb == "create":
            specs[name] = _parse_create(name, rest)
            members[name] = []
    return {name: KernelSet(spec=spec, members=frozenset(members[name])) for name, spec in specs.items()}


def _parse_create(name: str, rest: str) -> SetSpec:
    kind, *words = rest.split()
    options = dict(itertools.pairwise(words))
    return SetSpec(
        name=name,
        type=kind,
        version=6 if options.get("family") == "inet6" else 4,
        maxelem=int(options.get("maxelem", MAXELEM)),
    )


class IpsetSets:
    """SetKernel on the ipset program, in the network namespace of the calling thread."""

    def read(self, prefixes: tuple[str, ...]) -> dict[str, KernelSet]:
        outcome = run(("ipset", "save"))
        if outcome.status:
            raise _error(outcome, "cannot read the IP sets")
        return parse_save(outcome.output, prefixes)

    def apply(self, deltas: Sequence[SetDelta]) -> dict[str, DataplaneError]:
        return self._restore({delta.spec.name: _delta_lines(delta) for delta in deltas}, "cannot change")

    def rewrite(self, sets: Sequence[KernelSet]) -> dict[str, DataplaneError]:
        outcome = run(("ipset", "list", "-name"))
        if outcome.status:
            error = _error(outcome, "cannot list the IP sets")
            return {wanted.spec.name: error for wanted in sets}
        present = set(outcome.output.split())
        batch: dict[str, list[str]] = {}
        for number, wanted in enumerate(sets):
            name, members = wanted.spec.name, sorted(wanted.members)
            if name not in present:
                batch[name] = [_create(wanted.spec, name), *(f"add {name} {member}" for member in members)]
                continue
            aside = f"cali{wanted.spec.version}t{number}"
            batch[name] = [
                f"destroy {aside}",
                _create(wanted.spec, aside),
                *(f"add {aside} {member}" for member in members),
                f"swap {name} {aside}",
                f"destroy {aside}",
            ]
        return self._restore(batch, "cannot rewrite")

    def destroy(self, names: Collection[str]) -> dict[str, DataplaneError]:
        return self._restore({name: [f"destroy {name}"] for name in sorted(names)}, "cannot destroy")

    def _restore(self, batch: Mapping[str, Sequence[str]], what: str) -> dict[str, DataplaneError]:
        """Run the lines of each set; return the sets with a line that was refused."""
        failed: dict[str, DataplaneError] = {}
        rest = {name: lines for name, lines in batch.items() if lines}
        while rest:
            feed = "\n".join(line for lines in rest.values() for line in lines)
            outcome = run(("ipset", "-exist", "restore"), feed=f"{feed}\nCOMMIT\n")
            if outcome.status == 0:
                break
            guilty = _set_at_line(rest, outcome)
            if guilty is None:
                return failed | {name: _error(outcome, f"{what} set {name}") for name in rest}
            failed[guilty] = _error(outcome, f"{what} set {guilty}")
            del rest[guilty]
        return failed


def _create(spec: SetSpec, name: str) -> str:
    family = "inet6" if spec.version == 6 else "inet"
    return f"create {name} {spec.type} family {family} maxelem {spec.maxelem}"


def _delta_lines(delta: SetDelta) -> list[str]:
    name = delta.spec.name
    # a member added by hand may carry an option ("10.0.0.0/8 nomatch"): adding it anew takes that off, and a deletion
    # names the member alone
    surplus = {member.split(" ")[0] for member in delta.remove} - delta.add
    return [
        _create(delta.spec, name),
        *(f"add {name} {member}" for member in sorted(delta.add)),
        *(f"del {name} {member}" for member in sorted(surplus)),
    ]


def _set_at_line(batch: Mapping[str, Sequence[str]], outcome: Outcome) -> str | None:
    found = re.search(r"Error in line (\d+)", outcome.complaint)
    if found is None:
        return None
    left = int(found[1])
    for name, lines in batch.items():
        if left <= len(lines):
            return name
        left -= len(lines)
    return None


_PREAMBLE = re.compile(r"^ipset [^:]*: (Error in line \d+: )?")

_WORDS: tuple[tuple[str, type[DataplaneError], int | None], ...] = (
    ("already exists", AlreadyThere, errno.EEXIST),
    ("in use by a kernel component", Busy, errno.EBUSY),
    ("given name does not exist", NoSuchEntry, errno.ENOENT),
    ("is full", NoRoom, errno.ENOSPC),
    ("Syntax error", InvalidArgument, errno.EINVAL),
    ("CIDR parameter", InvalidArgument, errno.EINVAL),
    ("cannot be swapped", InvalidArgument, errno.EINVAL),
    ("Operation not permitted", NotPermitted, errno.EPERM),
    ("Cannot open session to kernel", NotSupported, errno.EPROTONOSUPPORT),
    ("Kernel error received: Invalid argument", InvalidArgument, errno.EINVAL),
)


def _error(outcome: Outcome, what: str) -> DataplaneError:
    """Name the error by the words of ipset 7; its exit status is 1 for all of them."""
    for words, family, number in _WORDS:
        if words in outcome.complaint:
            reason = _PREAMBLE.sub("", outcome.complaint.strip().splitlines()[0])
            return family(f"{what}: {reason}", errno=number)
    return outcome.failure(what)
