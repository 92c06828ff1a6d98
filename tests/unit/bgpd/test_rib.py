"""The incremental tables, against working everything out anew."""

from functools import lru_cache
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from bgpd.calc.imports import ImportRules, Refusal, accept
from bgpd.calc.paths import Choice, Path, PathAttributes, best
from bgpd.calc.pools import Pool, Pools
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.calc.surroundings import Surroundings
from bgpd.rib import Rib
from kernel.route import PROTOCOL_KERNEL, Route, RouteKey
from resources.names import AsNumber, IfName, IPAddress, IPNetwork

ROUTER_ID = ip_address("10.0.0.1")
HERE = Surroundings({RouteKey(ip_network("10.0.0.0/24")): (Route.on(IfName("e"), protocol=PROTOCOL_KERNEL),)})
PEERS: dict[IPAddress, PeerSpec] = {
    ip_address(f"10.0.0.{n}"): PeerSpec(
        address=ip_address(f"10.0.0.{n}"),
        kind=PeerKind.MESH,
        local_address=ROUTER_ID,
        local_as=AsNumber(64512),
        peer_as=AsNumber(64512),
    )
    for n in (2, 3, 4)
}
PREFIXES = [ip_network(f"10.65.{n}.0/26") for n in range(3)] + [ip_network("10.66.0.0/26")]


def rules(*pools: str) -> ImportRules:
    return ImportRules(
        router_id=ROUTER_ID,  # type: ignore[arg-type]
        pools=Pools({text: Pool(name=text, network=ip_network(text)) for text in pools}),
        surroundings=HERE,
    )


NARROW, WIDE = rules("10.65.0.0/16"), rules("10.65.0.0/16", "10.66.0.0/16")


@lru_cache
def path(peer: IPAddress, preference: int = 100) -> Path:
    """Equal paths are one object, as those of one message are."""
    return Path(peer=peer, next_hop=peer, attributes=PathAttributes(local_preference=preference))


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["learn", "learn", "learn", "forget", "stale", "sweep", "drop", "narrow", "wide", "decide"]),
        st.sampled_from(sorted(PEERS, key=int)),
        st.sampled_from(PREFIXES),
        st.sampled_from([50, 100]),
    ),
    max_size=40,
)


@settings(max_examples=200)
@given(STEPS)
def test_it_ends_as_if_all_were_worked_out_anew(steps: list[tuple[str, IPAddress, IPNetwork, int]]) -> None:
    rib = Rib()
    told: dict[tuple[IPAddress, IPNetwork], Path] = {}
    stale: set[tuple[IPAddress, IPNetwork]] = set()
    current, chosen = NARROW, dict[IPNetwork, Choice]()

    def decide() -> None:
        for prefix, choice in rib.decide(PEERS, current):
            if choice is None:
                chosen.pop(prefix, None)
            else:
                chosen[prefix] = choice

    for verb, peer, prefix, preference in steps:
        match verb:
            case "learn":
                rib.learn(prefix, path(peer, preference))
                told[peer, prefix] = path(peer, preference)
                stale.discard((peer, prefix))
            case "forget":
                rib.forget(peer, prefix)
                told.pop((peer, prefix), None)
            case "stale":
                rib.mark_stale(peer)
                stale |= {entry for entry in told if entry[0] == peer}
            case "sweep":
                rib.sweep(peer)
                told = {entry: one for entry, one in told.items() if entry not in stale or entry[0] != peer}
            case "drop":
                rib.drop(peer)
                told = {entry: one for entry, one in told.items() if entry[0] != peer}
            case "narrow" | "wide":
                current = WIDE if verb == "wide" else NARROW
                rib.recheck()
            case _:
                decide()
        stale &= told.keys()
    decide()

    good = {entry: one for entry, one in told.items() if accept(PEERS[entry[0]], entry[1], one, current) == one}
    by_prefix: dict[IPNetwork, list[Path]] = {}
    for (_, prefix), one in good.items():
        by_prefix.setdefault(prefix, []).append(one)
    assert chosen == {prefix: best(paths, HERE.cost) for prefix, paths in by_prefix.items()}
    assert not rib.is_dirty
    for peer in PEERS:
        table = rib.table(peer)
        assert set(table.entries) == {prefix for one, prefix in told if one == peer}
        assert table.stale == {prefix for one, prefix in stale if one == peer}
        assert table.accepted == sum(1 for one, _ in good if one == peer)
        assert sum(table.refused.values()) == len(table.entries) - table.accepted


def test_the_same_path_again_is_no_change() -> None:
    rib, peer = Rib(), ip_address("10.0.0.2")
    rib.learn(PREFIXES[0], path(peer))
    assert len(list(rib.decide(PEERS, NARROW))) == 1
    rib.mark_stale(peer)
    rib.learn(PREFIXES[0], path(peer))
    assert not rib.is_dirty
    assert rib.table(peer).stale == set()


def test_only_what_changed_is_decided() -> None:
    rib, peer = Rib(), ip_address("10.0.0.2")
    for prefix in PREFIXES:
        rib.learn(prefix, path(peer))
    list(rib.decide(PEERS, NARROW))
    rib.learn(PREFIXES[1], path(peer, 50))
    assert [prefix for prefix, _ in rib.decide(PEERS, NARROW)] == [PREFIXES[1]]
    rib.recheck([PREFIXES[2], ip_network("192.0.2.0/24")])
    assert [prefix for prefix, _ in rib.decide(PEERS, NARROW)] == [PREFIXES[2]]


def test_over_the_limit_the_first_are_kept_and_room_is_given_to_the_next() -> None:
    rib, peer = Rib(2), ip_address("10.0.0.2")
    for prefix in PREFIXES[:2]:
        rib.learn(prefix, path(peer))
    list(rib.decide(PEERS, WIDE))
    rib.learn(PREFIXES[2], path(peer))
    assert list(rib.decide(PEERS, WIDE)) == [(PREFIXES[2], None)]
    assert rib.table(peer).refused == {Refusal.MAX_PREFIX: 1}
    # what is in stays in when it is decided again
    rib.recheck()
    assert {prefix for prefix, choice in rib.decide(PEERS, WIDE) if choice} == set(PREFIXES[:2])
    rib.forget(peer, PREFIXES[0])
    assert {prefix for prefix, choice in rib.decide(PEERS, WIDE) if choice} == {PREFIXES[2]}
    assert rib.table(peer).refused == {}
