"""Small changes of legacy tables in process, by python-iptables; nothing else imports it (reference felix.md 7.6).

What the library does badly is not used: autocommit (quadratic, and shows half-written chains), its check of a whole
rule (it redirects the process's standard output), its search for a chain in all tables (it makes them all), its memory
for the C code of extensions (it is freed before it is used). A rule whose words are not understood here, and whatever
else goes wrong, is left to the restore program, whose words the log then has.

The caller holds the xtables lock.
"""

import ctypes
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import iptc

from kernel.xtables import TableChange, TableKey

_TRIES: Final = 6
_FIRST_PAUSE_SECONDS: Final = 0.001
_STALE: Final = "Resource temporarily unavailable"
_PROTOCOLS: Final[Mapping[str, int]] = {
    "icmp": 1, "igmp": 2, "ipip": 4, "ipencap": 4, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58,
    "ipv6-icmp": 58, "sctp": 132, "udplite": 136,
}  # fmt: skip
_IP6T_F_PROTO: Final = 1
"""The rule asks for a protocol. Source: linux, ip6_tables.h."""
_ENTRY_OPTIONS: Final[Mapping[str, str]] = {
    "-s": "src", "--source": "src", "-d": "dst", "--destination": "dst", "-i": "in_interface",
    "--in-interface": "in_interface", "-o": "out_interface", "--out-interface": "out_interface",
}  # fmt: skip


_NEED_A_VALUE: Final = {"-m", "--match", "-j", "--jump", "-g", "--goto", "-p", "--protocol", *_ENTRY_OPTIONS}
_LENT: Final[dict[tuple[int, bytes], Any]] = {}
"""Memory for the C code of extensions, by address family and name."""


class NotUnderstood(Exception):
    """A rule has words that this module does not know how to hand to the library."""


@dataclass(frozen=True, slots=True)
class Word:
    text: str
    quoted: bool = False

    @property
    def is_option(self) -> bool:
        return not self.quoted and len(self.text) > 1 and self.text[0] == "-" and not self.text[1].isdigit()


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a rule with what belongs to it: ``! --match-set name src``."""

    name: str
    values: tuple[str, ...]
    negated: bool


class IptcWriter:
    """SmallWriter on python-iptables, for the network namespace of the calling thread."""

    def write(self, key: TableKey, change: TableChange) -> bool:
        return self._commit(key, lambda table: _change(table, key, change))

    def remove(self, key: TableKey, chains: Sequence[str]) -> bool:
        def remove(table: Any) -> None:
            for chain in chains:
                table.delete_chain(chain)

        return self._commit(key, remove)

    def _commit(self, key: TableKey, change: Callable[[Any], None]) -> bool:
        if key.table == "nat":
            return False  # the C code for SNAT and MASQUERADE serves, in one process, only the family that came first
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_TRIES):
            table = None
            try:
                table = _table(key)
                table.refresh()
                change(table)
                table.commit()
            except (iptc.IPTCError, iptc.XTablesError, NotUnderstood, ValueError, TypeError, AttributeError) as error:
                if _STALE not in str(error):
                    return False
                time.sleep(pause)  # somebody without the lock committed in between
                pause *= 2
            else:
                return True
            finally:
                if table is not None:
                    table.close()  # what was not committed is forgotten
        return False


def _table(key: TableKey) -> Any:
    """Return the library's table; it has one object per name in the whole process."""
    return (iptc.Table6 if key.version == 6 else iptc.Table)(key.table, autocommit=False)


def _change(table: Any, key: TableKey, change: TableChange) -> None:
    """Make the change in memory. Chains come first: a jump to a chain that is not there is refused at once."""
    for chain in (*change.chains, *change.remove_chains):
        if table.is_chain(chain):
            table.flush_entries(chain)
        else:
            table.create_chain(chain)
    for chain, rules in change.chains.items():
        for text in rules:
            table.append_entry(chain, rule_of(table, key, text).rule)
    for chain, text in change.delete:
        rule = rule_of(table, key, text)
        table.delete_entry(chain, rule.rule, rule.mask)
    for chain, rules in change.insert.items():
        for text in reversed(rules):
            table.insert_entry(chain, rule_of(table, key, text).rule, 0)
    for chain, rules in change.append.items():
        for text in rules:
            table.append_entry(chain, rule_of(table, key, text).rule)


def rule_of(table: Any, key: TableKey, text: str) -> Any:
    """Return the library's rule for what follows ``-A CHAIN ``, in our words or in those of iptables-save.

    Raises:
        NotUnderstood: it has words of which this cannot be said surely.
    """
    rule = (_Rule6 if key.version == 6 else _Rule)()
    rule.home = table
    extension = None
    for option in options(text):
        value = " ".join(option.values)
        if not value and option.name in _NEED_A_VALUE:
            raise NotUnderstood(f"{option.name} without a value in {text!r}")
        if option.name in ("-m", "--match"):
            _finish(extension)
            extension = _lend_memory(rule.create_match(value))
        elif option.name in ("-j", "--jump", "-g", "--goto"):
            _finish(extension)
            extension = _target(rule, value, goto=option.name in ("-g", "--goto"))
        elif option.name in ("-p", "--protocol"):
            rule.protocol = _not(option) + _protocol(value)
            if key.version == 6:
                # the library takes this off where the protocol is negated, and such a rule matches every packet
                rule.entry.ipv6.flags |= _IP6T_F_PROTO
        elif option.name in _ENTRY_OPTIONS:
            setattr(rule, _ENTRY_OPTIONS[option.name], _not(option) + value)
        elif option.name.startswith("--") and extension is not None:
            _set(extension, option)
        else:
            raise NotUnderstood(f"{option.name} in {text!r}")
    _finish(extension)
    if rule.target is None:
        raise NotUnderstood(f"no target in {text!r}")
    return rule


class _Rule(iptc.Rule):  # type: ignore[misc]  # the library has no types
    """A rule that looks for the chain it jumps to in its own table only."""

    home: Any = None

    @property
    def tables(self) -> list[Any]:
        return [self.home]


class _Rule6(iptc.Rule6):  # type: ignore[misc]
    home: Any = None

    @property
    def tables(self) -> list[Any]:
        return [self.home]


def _target(rule: Any, name: str, *, goto: bool) -> Any:
    if name == "NOTRACK":
        raise NotUnderstood("the library stores NOTRACK as a CT without its only effect")
    return _lend_memory(rule.create_target(name, goto=goto))


def _lend_memory(extension: Any) -> Any:
    """Give the C code of an extension scratch memory that stays; what the library gives it is freed at once."""
    module = extension._module
    if size := getattr(module, "udata_size", 0):
        memory = _LENT.setdefault((module.family, module.name), (ctypes.c_ubyte * size)())
        ctypes.memset(memory, 0, size)
        module.udata = ctypes.cast(memory, ctypes.c_void_p)
    return extension


def _finish(extension: Any) -> None:
    """Let the C code of an extension look over its options, which may complete what it stores.

    It is about the extension that was made last: there is one state for each kind of them.
    """
    if extension is not None:
        extension._final_check()


def _not(option: Option) -> str:
    return "!" if option.negated else ""


def _protocol(name: str) -> str:
    if name.isdigit():
        return name
    if name not in _PROTOCOLS:
        raise NotUnderstood(f"protocol {name}")
    return str(_PROTOCOLS[name])


def _set(extension: Any, option: Option) -> None:
    if any(not value or value.startswith("!") for value in option.values):
        raise NotUnderstood(f"{option.name} with {option.values}")  # taken for no value, for a negation
    name = option.name.removeprefix("--")
    if len(option.values) > 1:
        extension.set_parameter(name, ["!"] * option.negated + list(option.values))
    else:
        extension.set_parameter(name, _not(option) + "".join(option.values))


def options(text: str) -> Iterator[Option]:
    """Yield the options of a rule in order.

    Raises:
        NotUnderstood: a value comes before any option, or a ! belongs to nothing.
    """
    name, negated, next_negated = "", False, False
    values: list[str] = []
    for word in words(text):
        if word.text == "!" and not word.quoted:
            next_negated = True
        elif word.is_option:
            if name:
                yield Option(name, tuple(values), negated)
            name, values, negated, next_negated = word.text, [], next_negated, False
        elif not name or next_negated:
            raise NotUnderstood(f"{word.text!r} in {text!r}")
        else:
            values.append(word.text)
    if not name or next_negated:
        raise NotUnderstood(repr(text))
    yield Option(name, tuple(values), negated)


def words(text: str) -> Iterator[Word]:
    """Split a rule as iptables-restore does: quotes around, and a backslash before a quote inside them.

    Raises:
        NotUnderstood: a quote is not closed.
    """
    for found in _WORD.finditer(text):
        if found["open"] is not None:
            raise NotUnderstood(f"unclosed quote in {text!r}")
        if found["quoted"] is not None:
            yield Word(_ESCAPED.sub(r"\1", found["quoted"]), quoted=True)
        else:
            yield Word(found["bare"])


_WORD: Final = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"(?=\s|$)|(?P<open>")|(?P<bare>[^\s"]+)')
_ESCAPED: Final = re.compile(r"\\(.)")
