"""Grids of replies and the small codecs below them."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from bed.grid import Grid
from bed.probes import PingResult, checksum
from bed.workload import interface_name, link_local


def test_a_grid_marks_what_is_wrong() -> None:
    replies = {
        ("a", "x"): PingResult(ok=True, ttl=62),
        ("a", "y"): PingResult(ok=False),
        ("bb", "x"): PingResult(ok=True, ttl=63),
        ("bb", "y"): PingResult(ok=True, ttl=64),
    }
    grid = Grid(["a", "bb"], ["x", "y"], replies)
    wrong = grid.wrong(lambda source, target: target == "x")
    assert wrong == {("bb", "y")}
    assert grid.text(wrong).splitlines() == [
        "from \\ to  x    y",
        "a          62   -",
        "bb         63  [64]",
    ]


@given(st.binary(min_size=2, max_size=80))
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    even = data + b"\0" * (len(data) % 2)
    assert checksum(even + struct.pack("!H", checksum(even))) == 0


def test_the_link_local_address_of_a_mac() -> None:
    assert link_local("ee:ee:ee:ee:ee:ee") == "fe80::ecee:eeff:feee:eeee"


def test_interface_names_are_felixs() -> None:
    name = interface_name("node1/web")
    assert len(name) == 15
    assert name.startswith("cali")
    assert interface_name("node1/db") != name
