"""The generation of nftables: counted by everybody's changes, told without the rules."""

from bed import Namespace
from kernel.nfgen import Generation, changed_by, generation_events
from kernel.xtables import TableChange, TableKey
from kernel.xtables_nft import NftTables


def test_each_change_of_rules_is_one_generation(netns: Namespace) -> None:
    with netns.entered():
        generation = Generation()
    before = generation.now()
    netns.run("iptables-nft -A FORWARD -j DROP")
    assert generation.now() == before + 1
    netns.run("iptables-nft-save")
    netns.run("ip route add blackhole 10.0.0.0/8")
    assert generation.now() == before + 1
    netns.run("nft flush ruleset")
    assert generation.now() == before + 2
    generation.close()


def test_the_rules_of_a_transaction_are_not_told(netns: Namespace) -> None:
    with netns.entered():
        heard, tables = generation_events(), NftTables()
        tables.write(TableKey(4, "filter"), TableChange(chains={"cali-x": ["-j ACCEPT"] * 2000}))
        tables.write(TableKey(4, "filter"), TableChange(chains={"cali-x": []}))
    assert [changed_by(kind, body) for _ in range(2) for kind, _, body in heard.receive()] == ["iptables-nft-re"] * 2
    heard.close()
    tables.close()
