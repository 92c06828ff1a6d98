"""The back end is the one that others use, nft in doubt."""

import pytest

from kernel.xtables import BackEnd
from kernel.xtables_detect import Findings, choose, count_foreign

NO = "cannot"


@pytest.mark.parametrize(
    ("setting", "found", "back_end"),
    [
        ("auto", Findings(), BackEnd.NFT),
        ("auto", Findings(nft_rules=30), BackEnd.NFT),
        ("auto", Findings(legacy_rules=1), BackEnd.LEGACY),
        ("auto", Findings(nft_rules=9, legacy_rules=10), BackEnd.LEGACY),
        ("auto", Findings(nft_rules=10, legacy_rules=10), BackEnd.LEGACY),
        ("auto", Findings(nft_rules=11, legacy_rules=10), BackEnd.NFT),
        ("auto", Findings(default=BackEnd.LEGACY), BackEnd.LEGACY),
        ("auto", Findings(default=BackEnd.LEGACY, nft_rules=1), BackEnd.NFT),
        ("auto", Findings(default=BackEnd.NFT, legacy_rules=1), BackEnd.LEGACY),
        ("auto", Findings(nft_trouble=NO), BackEnd.LEGACY),
        ("Auto", Findings(nft_trouble=NO, nft_rules=9), BackEnd.LEGACY),
        ("auto", Findings(legacy_trouble=NO, default=BackEnd.LEGACY), BackEnd.NFT),
        ("auto", Findings(nft_trouble=NO, legacy_trouble=NO), BackEnd.NFT),
        ("NFT", Findings(nft_trouble=NO, legacy_rules=9), BackEnd.NFT),
        ("legacy", Findings(nft_rules=9), BackEnd.LEGACY),
        ("Legacy", Findings(nft_rules=9, legacy_trouble=NO), BackEnd.LEGACY),
    ],
)
def test_the_choice(setting: str, found: Findings, back_end: BackEnd) -> None:
    choice = choose(setting, found)
    assert choice.back_end is back_end
    assert choice.reason
    works = {BackEnd.NFT: not found.nft_trouble, BackEnd.LEGACY: not found.legacy_trouble}[back_end]
    assert bool(choice.trouble) is bool(choice.hint) is not works


def test_a_back_end_against_that_of_others_is_set_with_a_word_on_what_that_means() -> None:
    said = choose("Legacy", Findings(nft_rules=9)).reason
    assert "other programs use nft (9 rules)" in said
    assert "what they drop stays dropped" in said
    assert "other programs use legacy (2 rules)" in choose("NFT", Findings(nft_rules=1, legacy_rules=2)).reason
    for setting in ("NFT", "auto"):
        assert "stays dropped" not in choose(setting, Findings(nft_rules=9)).reason


def test_our_own_rules_do_not_count() -> None:
    saved = """\
*filter
:cali-FORWARD - [0:0]
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j RETURN
-A cali-FORWARD -j ACCEPT
COMMIT
"""
    assert count_foreign(saved) == 2
