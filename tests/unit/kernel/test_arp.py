from ipaddress import IPv4Address

from kernel.arp import pack_reply


def test_a_reply_says_who_has_the_address() -> None:
    frame = pack_reply("02:00:00:00:00:01", IPv4Address("169.254.1.1"), IPv4Address("10.0.0.9"))
    assert frame.hex() == (
        "ffffffffffff" "020000000001" "0806"
        "0001" "0800" "06" "04" "0002"
        "020000000001" "a9fe0101"
        "ffffffffffff" "0a000009"
    )  # fmt: skip
