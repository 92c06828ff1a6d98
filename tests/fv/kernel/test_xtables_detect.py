"""Looking for the back end leaves no trace, and sees the rules of others in either variant."""

import sys

import pytest

from bed import Namespace
from kernel.xtables import BackEnd
from kernel.xtables_detect import Findings, choose, decide, legacy_tables, look


def test_an_untouched_host_uses_nft_and_stays_untouched(netns: Namespace) -> None:
    with netns.entered():
        found = look()
        assert legacy_tables() == []
    assert found == Findings(default=BackEnd.NFT)
    assert choose("auto", found).back_end is BackEnd.NFT
    assert netns.run("nft list tables").stdout == ""
    assert netns.run("cat /proc/net/ip_tables_names", check=False).stdout == ""


def test_the_rules_of_others_are_counted_in_their_variant(netns: Namespace) -> None:
    netns.run("iptables-nft -A FORWARD -s 10.9.9.9/32 -j DROP")
    netns.run("iptables-legacy -A FORWARD -s 10.9.9.9/32 -j DROP")
    netns.run("ip6tables-legacy -A FORWARD -s fd00::9/128 -j DROP")
    with netns.entered():
        found = look()
    assert found == Findings(nft_rules=1, legacy_rules=2, default=BackEnd.NFT)
    assert choose("auto", found).back_end is BackEnd.LEGACY


@pytest.mark.parametrize(
    ("commands", "setting", "back_end"),
    [
        ("true", "Auto", BackEnd.NFT),
        ("true", "Legacy", BackEnd.LEGACY),
        ("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -j DROP; iptables-legacy -L", "Auto", BackEnd.NFT),
        ("iptables-legacy -A FORWARD -j DROP", "Auto", BackEnd.LEGACY),
        ("iptables-legacy -A FORWARD -j DROP", "NFT", BackEnd.NFT),
    ],
    ids=["empty", "set", "docker by nft", "docker by legacy", "set against it"],
)
def test_a_host_is_judged_by_the_rules_it_has(
    netns: Namespace, commands: str, setting: str, back_end: BackEnd
) -> None:
    netns.run(commands)
    with netns.entered():
        choice = decide(setting)
    assert choice.back_end is back_end
    assert choice.trouble == ""


@pytest.mark.parametrize(
    ("missing", "setting", "back_end", "told"),
    [
        ("nft", "Auto", BackEnd.LEGACY, ""),
        ("nft", "NFT", BackEnd.NFT, "not installed: iptables-nft-save, iptables-nft-restore"),
        ("legacy", "Auto", BackEnd.NFT, ""),
        ("legacy", "Legacy", BackEnd.LEGACY, "not installed: iptables-legacy-save, iptables-legacy-restore"),
    ],
)
def test_a_host_without_the_programs_of_one_variant_uses_the_other_or_is_told(
    netns: Namespace, missing: str, setting: str, back_end: BackEnd, told: str
) -> None:
    job = f"from kernel.xtables_detect import decide; c = decide('{setting}'); print(c.back_end, c.trouble, sep='/')"
    gone = f"mount --bind /dev/null /usr/sbin/xtables-{missing}-multi"
    said = netns.run(["unshare", "--mount", "sh", "-c", f'{gone}; exec {sys.executable} -c "{job}"']).stdout
    chosen, _, trouble = said.strip().partition("/")
    assert chosen == back_end
    assert trouble.startswith(told)
    assert bool(trouble) is bool(told)
