"""Looking for the back end leaves no trace, and sees the rules of others in either variant."""

from bed import Namespace
from kernel.xtables_detect import BackEnd, Findings, choose, look


def test_an_untouched_host_uses_nft_and_stays_untouched(netns: Namespace) -> None:
    with netns.entered():
        found = look()
    assert found == Findings(nft_works=True, nft_rules=0, legacy_rules=0)
    assert choose("auto", found).back_end is BackEnd.NFT
    assert netns.run("nft list tables").stdout == ""
    assert netns.run("cat /proc/net/ip_tables_names", check=False).stdout == ""


def test_the_rules_of_others_are_counted_in_their_variant(netns: Namespace) -> None:
    netns.run("iptables-nft -A FORWARD -s 10.9.9.9/32 -j DROP")
    netns.run("iptables-legacy -A FORWARD -s 10.9.9.9/32 -j DROP")
    netns.run("ip6tables-legacy -A FORWARD -s fd00::9/128 -j DROP")
    with netns.entered():
        found = look()
    assert found == Findings(nft_works=True, nft_rules=1, legacy_rules=2)
    assert choose("auto", found).back_end is BackEnd.LEGACY
