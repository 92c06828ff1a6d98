"""The kernel's own rule tables keep the contract, through each back end."""

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bed import Namespace
from fakes.table_contract import FILTER, JUMP, Operator, TableContract, tagged, tags
from kernel.errors import TableIncompatible
from kernel.xtables import BackEnd, TableChange, TableKernel, TableKey
from kernel.xtables_iptc import IptcWriter
from kernel.xtables_legacy import LegacyTables
from kernel.xtables_lock import XtablesLock
from kernel.xtables_nft import NftTables


@dataclass
class RealOperator:
    netns: Namespace
    tables: TableKernel
    back_end: BackEnd
    lock: Path

    @property
    def env(self) -> dict[str, str]:
        """For programs: a lock of this test's own, as other tests run beside it."""
        return {"XTABLES_LOCKFILE": str(self.lock)}

    def program(self, key: TableKey = FILTER) -> str:
        return f"{'ip6tables' if key.version == 6 else 'iptables'}-{self.back_end}"

    def append(self, key: TableKey, chain: str, rule: str) -> None:
        self.netns.run([self.program(key), "-t", key.table, "-N", chain], check=False, env=self.env)
        self.netns.run(f"{self.program(key)} -t {key.table} -A {chain} {rule}", env=self.env)

    def rules(self, key: TableKey, chain: str) -> list[str]:
        return self.netns.run([self.program(key), "-t", key.table, "-S", chain], env=self.env).stdout.splitlines()[1:]

    def make_set(self, name: str) -> None:
        self.netns.run(["ipset", "create", name, "hash:net"])


@pytest.fixture(params=["nft", "legacy", "legacy by restore alone"])
def real(request: pytest.FixtureRequest, netns: Namespace, tmp_path: Path) -> Iterator[RealOperator]:
    back_end, lock = BackEnd(request.param.split()[0]), tmp_path / "xtables.lock"
    small = IptcWriter() if request.param == "legacy" else None
    with netns.entered():
        tables = NftTables() if back_end is BackEnd.NFT else LegacyTables(XtablesLock(lock), small=small)
        yield RealOperator(netns, tables, back_end, lock)
        tables.close()


nft_only = pytest.mark.parametrize("real", ["nft"], indirect=True)


class TestTables(TableContract):
    @pytest.fixture
    def operator(self, real: RealOperator) -> Operator:
        return real


# One of each match and target that felix renders (reference felix.md 3.5 to 3.7): the text that save prints must be
# taken for a deletion.
RULES = [
    "--jump cali-y",
    "--in-interface cali+ --goto cali-y",
    "--protocol 4 -m set --match-set cali40s src -m addrtype --dst-type LOCAL --jump ACCEPT",
    "-p udp -m multiport --destination-ports 4789 --jump DROP",
    "-m multiport -p tcp ! --destination-ports 80,90:95 -m set ! --match-set cali40s dst --jump MARK "
    "--set-mark 0x10000/0x10000",
    "-m mark --mark 0/0x20000 --jump cali-y",
    "-m conntrack --ctstate RELATED,ESTABLISHED --jump ACCEPT",
    "-m conntrack ! --ctstate DNAT --jump RETURN",
    "--source 10.0.0.0/8 ! --destination 10.1.0.0/16 -p icmp -m icmp --icmp-type 3/4 --jump ACCEPT",
    '-m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 --jump ACCEPT',
    '--jump LOG --log-prefix "calico-packet: " --log-level 5',
]


@pytest.mark.parametrize("rule", RULES)
def test_what_was_saved_of_a_rule_deletes_it(real: RealOperator, rule: str) -> None:
    real.make_set("cali40s")
    real.append(FILTER, "FORWARD", "-s 10.9.9.9/32 -j DROP")
    before = real.rules(FILTER, "FORWARD")
    change = TableChange(chains={"cali-x": [tagged("a", rule)], "cali-y": []}, append={"FORWARD": [tagged("1", rule)]})
    assert real.tables.write(FILTER, change) == {}
    assert real.tables.read(FILTER).chains["cali-x"] == ("a" * 16,)
    _, ours = real.tables.read(FILTER).outside["FORWARD"]
    assert ours.tag == "1" * 16
    assert ours.text is not None
    assert real.tables.write(FILTER, TableChange(delete=[("FORWARD", ours.text)])) == {}
    assert real.rules(FILTER, "FORWARD") == before


@pytest.mark.parametrize(
    ("key", "rule"),
    [
        (TableKey(4, "raw"), "-m mark --mark 0x80000/0x80000 -m rpfilter --invert --validmark --jump DROP"),
        (
            TableKey(4, "nat"),
            "--out-interface tunl0 -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL "
            "--jump MASQUERADE --random-fully",
        ),
        (TableKey(6, "filter"), "-p 58 -m icmp6 --icmpv6-type 135 --jump ACCEPT"),
    ],
    ids=["rpfilter", "masquerade", "icmp6"],
)
def test_what_was_saved_of_a_rule_of_other_tables_deletes_it(real: RealOperator, key: TableKey, rule: str) -> None:
    chain = "POSTROUTING" if key.table == "nat" else "PREROUTING" if key.table == "raw" else "INPUT"
    assert real.tables.write(key, TableChange(append={chain: [tagged("1", rule)]})) == {}
    (ours,) = real.tables.read(key).outside[chain]
    assert ours.text is not None
    assert real.tables.write(key, TableChange(delete=[(chain, ours.text)])) == {}
    assert real.rules(key, chain) == []


def test_rewriting_keeps_the_other_chains_counters(real: RealOperator) -> None:
    real.tables.write(
        FILTER,
        TableChange(
            chains={"cali-x": [tagged("a", "--jump RETURN")], "cali-y": []},
            insert={"OUTPUT": [tagged("1", "--jump cali-x")]},
        ),
    )
    real.netns.run("busybox ping -c 1 -W 1 127.0.0.1")
    real.tables.write(FILTER, TableChange(chains={"cali-y": [tagged("b", "--jump RETURN")]}))
    counted = real.netns.run(f"{real.program()} -L cali-x -v -x -n").stdout.splitlines()[2].split()
    assert int(counted[0]) >= 2


@nft_only
def test_a_table_of_native_objects_is_refused_with_a_reason(real: RealOperator) -> None:
    real.netns.run("nft add table ip nat")
    real.netns.run("nft add chain ip nat native")
    real.netns.run(["nft", "add rule ip nat native numgen random mod 2 vmap { 0 : accept, 1 : drop }"])
    with pytest.raises(TableIncompatible, match="nat"):
        real.tables.read(TableKey(4, "nat"))


@nft_only
def test_foreign_rules_of_native_nftables_are_only_counted(real: RealOperator) -> None:
    real.tables.write(FILTER, JUMP)
    real.netns.run(["nft", "add", "rule", "ip", "filter", "FORWARD", "tcp", "dport", "{1,2}", "accept"])
    before = real.netns.run("nft list chain ip filter FORWARD").stdout
    state = real.tables.read(FILTER)
    assert tags(state, "FORWARD") == ["1" * 16, None]
    (ours,) = [rule.text for rule in state.outside["FORWARD"] if rule.text is not None]
    change = TableChange(delete=[("FORWARD", ours)], insert={"FORWARD": [tagged("1", "--jump cali-FORWARD")]})
    assert real.tables.write(FILTER, change) == {}
    assert real.netns.run("nft list chain ip filter FORWARD").stdout == before


def test_writes_beside_another_writer_lose_nothing(real: RealOperator) -> None:
    def other() -> None:
        with real.netns.entered():
            for number in range(20):
                command = [real.program(), "-w", "-A", "INPUT", "-s", f"10.9.9.{number}/32", "-j", "DROP"]
                subprocess.run(command, check=True, timeout=10, env={**os.environ, **real.env})

    thread = threading.Thread(target=other)
    thread.start()
    for number in range(20):
        real.tables.write(FILTER, TableChange(chains={f"cali-{number}": [tagged("a", "--jump ACCEPT")]}))
    thread.join()
    state = real.tables.read(FILTER)
    assert len(state.chains) == 20
    assert len(state.outside["INPUT"]) == 20
    assert real.tables.changed_elsewhere()


@nft_only
def test_a_table_that_cannot_be_read_does_not_hide_the_others(real: RealOperator) -> None:
    real.append(FILTER, "mine", "-j ACCEPT")
    real.append(TableKey(4, "mangle"), "cali-mine", "-j ACCEPT")
    real.netns.run("nft add table ip raw; nft add chain ip raw native")
    real.netns.run(["nft", "add rule ip raw native numgen random mod 2 vmap { 0 : accept, 1 : drop }"])
    for _ in range(2):
        with pytest.raises(TableIncompatible):
            real.tables.read(TableKey(4, "raw"))
        assert "cali-mine" in real.tables.read(TableKey(4, "mangle")).chains
        assert real.tables.read(FILTER).chains == {}
        assert real.tables.read(TableKey(4, "nat")).chains == {}


def test_what_was_written_since_the_last_reading_is_seen(real: RealOperator) -> None:
    for number in range(3):
        real.tables.write(FILTER, TableChange(chains={f"cali-{number}": ["-j DROP"]}))
        assert len(real.tables.read(FILTER).chains) == number + 1
        assert real.tables.read(TableKey(4, "nat")).chains == {}
        assert len(real.tables.read(FILTER).chains) == number + 1
