"""`calicoctl node routes`: what bgpd tells, laid out for people."""

import time
from pathlib import Path
from typing import Any

import pytest

from calicoctl.node.routes import BadDestination, BgpdSilent, Route, Routes, ask, chosen, tables
from calicoctl.node.routes import Path as Way
from resources.runtime import paths
from resources.runtime.health import Health

AT = 1_795_275_000.0
SINCE = time.strftime("%H:%M:%S", time.localtime(AT))
FOUND = Routes(
    [
        Route(
            "10.65.2.0/26",
            True,
            [
                Way("10.0.0.2", "10.0.0.2", AT, chosen=True, as_path="65001", origin="igp", local_preference=100),
                Way("10.0.0.3", "10.0.0.3", AT, lost_by="longer AS path", communities=["1:7"], clusters=["1.1.1.1"]),
            ],
            route="via 10.0.0.2 dev eth0 proto 81",
        ),
        Route("10.66.0.0/26", False, [Way("10.0.0.2", "10.0.0.2", AT, refused="not-in-pool")], why_not="no path"),
        Route("10.67.0.0/26", False, [Way("10.0.0.3", "10.0.0.3", AT, chosen=True, stale=True)], why_not="no tunl0"),
        Route("fd80::40/122", True, [Way("fd99::2", "fd99::2", AT, chosen=True)], route="via fd99::2 dev eth0"),
    ],
    {"not-in-pool": "it is in no IPPool"},
)


def prefixes(found: Routes) -> list[str]:
    return [route.prefix for route in found.routes]


def pick(destination: str | None = None, *, peer: str | None = None, missing: bool = False) -> Routes:
    return chosen(FOUND, destination=destination, peer=peer, missing=missing)


def test_a_line_a_path_and_what_the_reasons_mean() -> None:
    assert tables(FOUND, now=AT + 60, wide=False).splitlines() == [
        "DESTINATION    PEER       NEXT HOP   SINCE      IN KERNEL                             ",
        f"10.65.2.0/26   10.0.0.2   10.0.0.2   {SINCE}   yes: via 10.0.0.2 dev eth0 proto 81   ",
        f"10.65.2.0/26   10.0.0.3   10.0.0.3   {SINCE}   no: longer AS path                    ",
        f"10.66.0.0/26   10.0.0.2   10.0.0.2   {SINCE}   no: not-in-pool                       ",
        f"10.67.0.0/26   10.0.0.3   10.0.0.3   {SINCE}   no: no tunl0 (stale)                  ",
        f"fd80::40/122   fd99::2    fd99::2    {SINCE}   yes: via fd99::2 dev eth0             ",
        "",
        "not-in-pool: it is in no IPPool",
        "stale: told in an earlier session, and kept until the peer has told all its routes again",
    ]


def test_wide_has_the_attributes_and_old_routes_their_date() -> None:
    lines = tables(pick("10.65.2.1"), now=AT + 30 * 3600, wide=True).splitlines()
    assert lines[0].split() == [
        "DESTINATION", "PEER", "NEXT", "HOP", "SINCE", "IN", "KERNEL", "AS", "PATH", "ORIGIN", "LOCAL-PREF", "MED",
        "COMMUNITIES", "ORIGINATOR", "CLUSTERS",
    ]
    date = time.strftime("%Y-%m-%d", time.localtime(AT))
    assert lines[1].split()[3] == date
    assert lines[1].split()[-7:] == ["65001", "igp", "100", "0", "-", "-", "-"]
    assert lines[2].split()[-4:] == ["0", "1:7", "-", "1.1.1.1"]


def test_no_routes_is_said() -> None:
    assert tables(Routes(), now=AT, wide=False) == "No routes.\n"
    assert tables(Routes(), now=AT, wide=False, of=4).startswith("No such route among the 4 that this host learned")


@pytest.mark.parametrize(
    ("destination", "found"),
    [
        ("10.65.2.7", ["10.65.2.0/26"]),
        ("10.64.0.0/14", ["10.65.2.0/26", "10.66.0.0/26", "10.67.0.0/26"]),
        ("10.66.0.0/30", ["10.66.0.0/26"]),
        ("fd80::41", ["fd80::40/122"]),
        ("192.0.2.1", []),
    ],
)
def test_an_address_finds_what_covers_it_a_prefix_also_what_lies_in_it(destination: str, found: list[str]) -> None:
    assert prefixes(pick(destination)) == found


def test_one_peer_and_what_is_missing() -> None:
    assert prefixes(pick(peer="10.0.0.3")) == ["10.65.2.0/26", "10.67.0.0/26"]
    assert [len(route.paths) for route in pick(peer="10.0.0.3").routes] == [1, 1]
    assert prefixes(pick(missing=True)) == ["10.66.0.0/26", "10.67.0.0/26"]


@pytest.mark.parametrize("wrong", [{"destination": "10.65.0.1/16"}, {"destination": "test1"}, {"peer": "node2"}])
def test_what_cannot_be_read_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadDestination) as refused:
        pick(**wrong)
    assert refused.value.hint


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    return Health()


def test_bgpd_is_asked_and_silence_is_told(daemon: Health) -> None:
    with pytest.raises(BgpdSilent, match="does not answer"):
        ask()
    daemon.pages["/routes"] = lambda: {"routes": [{"prefix": "10.0.0.0/26", "in_kernel": True, "paths": []}], "new": 1}
    daemon.serve(paths.health_socket("bgpd"))
    assert prefixes(ask()) == ["10.0.0.0/26"]
    daemon.pages["/routes"] = lambda: {"routes": 7}
    with pytest.raises(BgpdSilent, match="cannot be read"):
        ask()
