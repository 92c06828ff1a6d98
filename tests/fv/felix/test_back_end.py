import pytest

from bed import Namespace
from felix.daemon import back_end_trouble


@pytest.mark.parametrize(
    ("commands", "setting", "reason"),
    [
        ("true", "Auto", None),
        ("true", "Legacy", "set by IptablesBackend"),
        ("iptables-nft -P FORWARD DROP; iptables-nft -A FORWARD -j DROP; iptables-legacy -L", "Auto", None),
        ("iptables-legacy -A FORWARD -j DROP", "Auto", "other programs use legacy tables (1 legacy and 0 nft rules)"),
        ("iptables-legacy -A FORWARD -j DROP", "NFT", None),
    ],
    ids=["empty", "set", "docker by nft", "docker by legacy", "set against it"],
)
def test_a_host_whose_rules_are_legacy_is_told_of(
    netns: Namespace, commands: str, setting: str, reason: str | None
) -> None:
    netns.run(commands)
    with netns.entered():
        assert back_end_trouble(setting) == reason
