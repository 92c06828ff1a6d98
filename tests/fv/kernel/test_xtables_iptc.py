"""What python-iptables writes is what iptables-legacy-restore writes, for every rule that felix can render but those of
the table nat and NOTRACK, which are left to the restore program."""

import ipaddress
import resource
from collections.abc import Hashable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bed import Namespace
from bed.claim import Claim
from bed.probes import Listener, ping, udp_exchange
from felix.render.chains import (
    ClearMark,
    Condition,
    End,
    Goto,
    HasIcmpType,
    HasProtocol,
    InInterface,
    InNet,
    InPorts,
    InSet,
    InState,
    IsLocal,
    Jump,
    Log,
    MarkIs,
    OutInterface,
    PacketLog,
    Rule,
    SetMark,
    SourceNotRoutedBack,
    Target,
    Verdict,
)
from felix.render.iptables import render_chain
from kernel.errors import TableRefused
from kernel.xtables import TableChange, TableKey, compose
from kernel.xtables_iptc import IptcWriter
from kernel.xtables_legacy import LegacyTables
from kernel.xtables_lock import XtablesLock

BITS = [0x10000, 0x20000, 0x40000, 0x80000]
NETS = {4: ["10.0.0.0/8", "192.0.2.7/32", "128.0.0.0/1"], 6: ["fd00::/8", "2001:db8::1/128", "8000::/1"]}
SETS = {4: ("cali40s", "cali40p"), 6: ("cali60s", "cali60p")}
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)
PORTS = st.tuples(st.integers(0, 65535), st.integers(0, 65535)).map(lambda pair: (min(pair), max(pair)))
ENDS, BOOLEANS = st.sampled_from(End), st.booleans()


@st.composite
def conditions(draw: st.DrawFn, version: int, table: str) -> tuple[Condition, ...]:
    plain, with_port = SETS[version]
    names = st.sampled_from(["cali+", "cali0123456789", "eth0", "tap_-.3", "tunl0"])
    nets = st.sampled_from([ipaddress.ip_network(net) for net in NETS[version]])
    kinds: list[st.SearchStrategy[Condition]] = [
        st.builds(InNet, ENDS, nets, BOOLEANS),
        st.builds(InSet, ENDS, st.just(plain), BOOLEANS),
        st.builds(lambda end, no: InSet(end, with_port, no, port=True), ENDS, BOOLEANS),
        st.builds(MarkIs, st.sampled_from([0, *BITS]), st.sampled_from(BITS), BOOLEANS),
        st.builds(InState, st.sampled_from(["RELATED,ESTABLISHED", "INVALID", "DNAT"]), BOOLEANS),
        st.builds(IsLocal, ENDS, BOOLEANS),
    ]
    if table == "raw":
        kinds.append(st.just(SourceNotRoutedBack()))
    drawn: list[Condition] = []
    if draw(BOOLEANS):
        drawn.append((InInterface if table == "raw" else OutInterface)(draw(names)))
    drawn += draw(_protocol(version))
    # no option of the rule itself may come twice
    return (*drawn, *draw(st.lists(st.one_of(kinds), max_size=5, unique_by=_place)))


def _place(condition: Condition) -> Hashable:
    return (InNet, condition.end) if isinstance(condition, InNet) else condition


@st.composite
def _protocol(draw: st.DrawFn, version: int) -> list[Condition]:
    icmp = HasProtocol("icmp" if version == 4 else "icmpv6")
    kind = draw(st.sampled_from(["none", "any", "ports", "icmp"]))
    if kind == "any":
        numbers = st.integers(1, 255).map(str)
        names = st.sampled_from(["tcp", "udp", "sctp", "udplite", "icmp", "icmpv6"])
        return [HasProtocol(draw(st.one_of(numbers, names)), draw(BOOLEANS))]
    if kind == "ports":
        slots = st.lists(PORTS, min_size=1, max_size=7).map(tuple)
        ports = st.lists(st.builds(InPorts, ENDS, slots, BOOLEANS), min_size=1, max_size=2)
        return [HasProtocol(draw(st.sampled_from(["tcp", "udp", "sctp", "6", "17"]))), *draw(ports)]
    if kind == "icmp":
        code = st.one_of(st.none(), st.integers(0, 255))
        return [icmp, HasIcmpType(version, draw(st.integers(0, 254)), draw(code), draw(BOOLEANS))]
    return []


def any_target(version: int, table: str) -> st.SearchStrategy[Target]:
    verdicts = [Verdict.ACCEPT, Verdict.DROP, Verdict.RETURN] + [Verdict.REJECT] * (table == "filter")
    kinds: list[st.SearchStrategy[Target]] = [
        st.sampled_from(verdicts),
        st.sampled_from([Jump("cali-y"), Goto("cali-y")]),
        st.builds(ClearMark, st.sampled_from(BITS)),
        st.builds(SetMark, st.sampled_from(BITS), st.sampled_from(BITS)),
        st.builds(Log, st.text("abc-/ :", min_size=1, max_size=40)),
        st.builds(PacketLog, st.integers(1, 65535), st.text("ABCdef|/.-0", min_size=1, max_size=60)),
    ]
    return st.one_of(kinds)


@st.composite
def rules(draw: st.DrawFn, version: int, table: str) -> Rule:
    return Rule(
        draw(conditions(version, table)), draw(any_target(version, table)), tuple(draw(st.lists(TEXTS, max_size=2)))
    )


@dataclass
class Side:
    """A network namespace with the sets that rules name, and a restore program in it."""

    netns: Namespace
    restored: LegacyTables

    def saved(self, key: TableKey) -> list[str]:
        program = "ip6tables-legacy-save" if key.version == 6 else "iptables-legacy-save"
        lines = self.netns.run([program, "-t", key.table]).stdout.splitlines()
        return [line for line in lines if line.startswith("-A")]

    def empty(self, key: TableKey) -> None:
        program = "ip6tables-legacy" if key.version == 6 else "iptables-legacy"
        self.netns.run(f"{program} -w -t {key.table} -F; {program} -w -t {key.table} -X")


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Side, Side]]:
    claim, lock = Claim.new(), tmp_path_factory.mktemp("lock") / "xtables.lock"
    with Namespace(claim.prefix + "one") as one, Namespace(claim.prefix + "two") as two:
        made = []
        for netns in (one, two):
            for version, (plain, with_port) in SETS.items():
                family = f"family {'inet' if version == 4 else 'inet6'}"
                netns.run(f"ipset create {plain} hash:net {family}; ipset create {with_port} hash:ip,port {family}")
            with netns.entered():
                made.append(Side(netns, LegacyTables(XtablesLock(lock))))
        yield made[0], made[1]
        for side in made:
            side.restored.close()
    claim.sweep()


KERNEL_CHAIN = {"raw": "PREROUTING", "mangle": "PREROUTING", "filter": "FORWARD"}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("table", list(KERNEL_CHAIN))
@settings(max_examples=12)
@given(data=st.data())
def test_both_writers_give_the_same(sides: tuple[Side, Side], version: int, table: str, data: st.DataObject) -> None:
    by_restore, by_iptc = sides
    key = TableKey(version, table)
    for side in sides:
        side.empty(key)
    drawn = data.draw(st.lists(rules(version, table), min_size=1, max_size=6))
    texts = render_chain("cali-x", drawn).rules
    jump = render_chain(KERNEL_CHAIN[table], [Rule((), Jump("cali-x"))]).rules
    change = TableChange(chains={"cali-x": texts, "cali-y": []}, insert={KERNEL_CHAIN[table]: jump})
    with by_restore.netns.entered():
        try:
            by_restore.restored.write(key, change)
        except TableRefused as refused:
            pytest.fail(f"{refused}\n" + "\n".join(compose(key, change)))
    with by_iptc.netns.entered():
        assert IptcWriter().write(key, change), texts
    wanted = by_restore.saved(key)
    assert by_iptc.saved(key) == wanted
    # and each deletes what the other wrote, in the words of the save
    words = [line.split(" ", 2)[2] for line in wanted if line.startswith(f"-A {KERNEL_CHAIN[table]} ")]
    deletion = TableChange(delete=[(KERNEL_CHAIN[table], words[0])], remove_chains=frozenset({"cali-x", "cali-y"}))
    with by_restore.netns.entered():
        assert IptcWriter().write(key, deletion)
        assert IptcWriter().remove(key, ["cali-x", "cali-y"])
    with by_iptc.netns.entered():
        assert by_iptc.restored.write(key, deletion) == {}
    assert by_restore.saved(key) == by_iptc.saved(key) == []


def test_a_change_that_the_kernel_refuses_is_left_to_the_restore_program(sides: tuple[Side, Side]) -> None:
    """It says why; and nothing of it waits to be written with the next change."""
    side, key = sides[1], TableKey(4, "filter")
    side.empty(key)
    writer = IptcWriter()
    with side.netns.entered():
        assert not writer.write(key, TableChange(chains={"cali-x": ["--jump DROP", "--jump cali-nosuch"]}))
        assert not writer.write(key, TableChange(chains={"cali-x": ["-m set --match-set nosuch src --jump DROP"]}))
        assert not writer.write(key, TableChange(chains={"cali-x": ["--jump"]}))
        assert not writer.remove(key, ["cali-nosuch"])
        assert not writer.write(TableKey(4, "nat"), TableChange(chains={"cali-x": ["--jump RETURN"]}))
        assert not writer.write(TableKey(4, "raw"), TableChange(chains={"cali-x": ["--jump NOTRACK"]}))
        assert writer.write(key, TableChange(chains={"cali-z": ["-m comment --comment mine --jump RETURN"]}))
    assert side.saved(key) == ["-A cali-z -m comment --comment mine -j RETURN"]


def test_a_long_life_takes_no_more_memory(sides: tuple[Side, Side]) -> None:
    side, key, writer = sides[1], TableKey(4, "filter"), IptcWriter()
    rule = '-m comment --comment "0123456789" -p tcp -m multiport --dports 1,2 -m set --match-set cali40s src '
    change = TableChange(chains={"cali-x": [rule + '--jump NFLOG --nflog-group 1 --nflog-prefix "x"'] * 10})
    peaks = []
    with side.netns.entered():
        for _ in range(3):
            for _ in range(100):
                assert writer.write(key, change)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert peaks[2] - peaks[1] < 2048  # kilobytes


@pytest.mark.parametrize(("version", "address"), [(4, "127.0.0.1"), (6, "::1")])
def test_a_rule_for_all_but_one_protocol_spares_that_one(
    sides: tuple[Side, Side], version: int, address: str
) -> None:
    """The saved text is right even where the kernel's own flag is not, so packets have to tell."""
    side, key = sides[0], TableKey(version, "filter")
    side.empty(key)
    with side.netns.entered():
        assert IptcWriter().write(key, TableChange(insert={"OUTPUT": ["! -p udp --jump DROP"]}))
        with Listener(7005, protocol="udp", address=address):
            assert udp_exchange(address, 7005, timeout=1.0).ok
        assert not ping(address, timeout=0.2).ok
    side.empty(key)
