"""The back end is the one that others use, nft in doubt."""

import pytest

from kernel.xtables_detect import BackEnd, Findings, choose, count_foreign


@pytest.mark.parametrize(
    ("setting", "works", "nft", "legacy", "back_end"),
    [
        ("auto", True, 0, 0, BackEnd.NFT),
        ("auto", True, 30, 0, BackEnd.NFT),
        ("auto", True, 0, 1, BackEnd.LEGACY),
        ("auto", True, 9, 10, BackEnd.LEGACY),
        ("auto", True, 10, 10, BackEnd.LEGACY),
        ("auto", True, 11, 10, BackEnd.NFT),
        ("auto", False, 0, 0, BackEnd.LEGACY),
        ("Auto", False, 9, 0, BackEnd.LEGACY),
        ("NFT", False, 0, 9, BackEnd.NFT),
        ("legacy", True, 9, 0, BackEnd.LEGACY),
    ],
)
def test_the_choice(setting: str, works: bool, nft: int, legacy: int, back_end: BackEnd) -> None:
    choice = choose(setting, Findings(nft_works=works, nft_rules=nft, legacy_rules=legacy))
    assert choice.back_end is back_end
    assert choice.reason


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
