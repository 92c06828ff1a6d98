"""When ExaBGP is asked whether it does as it was told, about whom, and what counts as a disagreement (adr/0033)."""

from ipaddress import ip_address, ip_network

import pytest

from bgpd import audit
from bgpd.audit import AUDIT_AGAIN_SECONDS, SILENT_SPEAKER_SECONDS, Audit, Finding, Remedy
from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.messages import Neighbour
from bgpd.neighbor import Neighbor
from bgpd.speaker import Audited
from resources.names import AsNumber, IPAddress

OWN = ip_address("10.77.0.1")
ONE, TWO, THREE = (ip_address(f"10.77.0.{n}") for n in (2, 3, 4))
AS = AsNumber(64512)
BLOCK, OTHER = ip_network("10.65.1.0/26"), ip_network("10.65.1.64/26")
UP_AT = 1000.0
SETTLED = UP_AT + SILENT_SPEAKER_SECONDS
"""From then on a session is old enough to be asked about."""


def neighbor(peer: IPAddress, *, is_up: bool = True, told: int = 1) -> Neighbor:
    """Return a peer that was told `told` prefixes and the end."""
    spec = PeerSpec(address=peer, kind=PeerKind.MESH, local_address=OWN, local_as=AS, peer_as=AS)
    made = Neighbor(spec, up_at=UP_AT if is_up else None, end_sent=is_up, pending=set())
    made.offered = dict.fromkeys((BLOCK, OTHER)[:told])
    return made


def row(peer: IPAddress, *, is_up: bool = True, updates: int | None = 2) -> Neighbour:
    return Neighbour(
        peer=peer, local=OWN, is_up=is_up, fsm="ESTABLISHED" if is_up else "ACTIVE", seconds=100, local_as=AS,
        peer_as=AS, hold_seconds=90, updates_sent=updates,
    )  # fmt: skip


def findings(peer: Neighbor, shown: Neighbour, *sent: str, now: float = SETTLED) -> list[Finding]:
    """Return what follows from the same answer, given twice: what is wrong once may be on its way."""
    made = Audit()
    event = Audited((shown,), {ONE: frozenset(map(ip_network, sent))}, is_current=False)
    assert made.judge(event, {ONE: peer}, None, now) == []
    return made.judge(event, {ONE: peer}, None, now)


def test_the_first_audit_is_a_whole_interval_after_the_first_question_and_a_refused_one_is_tried_again_soon() -> None:
    made = Audit(seconds=50.0)
    assert not made.is_due(1000.0)
    assert made.at == 1050.0
    assert not made.is_due(1049.0)
    assert made.is_due(1050.0)
    assert not made.is_due(1050.0 + AUDIT_AGAIN_SECONDS / 2)
    assert made.is_due(1050.0 + AUDIT_AGAIN_SECONDS)


def test_after_an_audit_that_found_nothing_there_is_a_whole_interval_and_else_a_short_one() -> None:
    made = Audit(seconds=50.0)
    peers = {ONE: neighbor(ONE)}
    made.judge(Audited((row(ONE),), {ONE: frozenset({BLOCK})}, is_current=False), peers, None, SETTLED)
    assert made.at == SETTLED + 50.0
    made.judge(Audited((row(ONE),), {ONE: frozenset()}, is_current=False), peers, None, SETTLED)
    assert made.at == SETTLED + AUDIT_AGAIN_SECONDS


def test_the_doubtful_are_asked_about_first_then_those_whose_turn_is_longest_ago(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    peers = {peer: neighbor(peer) for peer in (ONE, TWO, THREE)}
    made = Audit()
    made.note_asked([TWO, ONE, THREE])
    assert made.next_peers(peers, SETTLED) == [TWO, ONE, THREE]
    event = Audited(tuple(map(row, peers)), {THREE: frozenset()}, is_current=False)
    made.judge(event, peers, None, SETTLED)
    assert made.next_peers(peers, SETTLED) == [THREE, TWO, ONE]
    monkeypatch.setattr(audit, "AUDIT_ROUTES", 1)
    assert made.next_peers(peers, SETTLED) == [THREE]


def test_nobody_is_asked_about_who_may_not_have_been_told_all() -> None:
    young, down, busy = neighbor(ONE), neighbor(TWO, is_up=False), neighbor(THREE)
    busy.pending = {BLOCK}
    peers = {ONE: young, TWO: down, THREE: busy}
    assert Audit().next_peers(peers, SETTLED - 0.1) == []
    assert Audit().next_peers(peers, SETTLED) == [ONE]
    assert findings(young, row(ONE), now=SETTLED - 0.1) == []


@pytest.mark.parametrize(
    ("told", "sent", "updates", "what"),
    [
        (1, [str(BLOCK)], 2, None),
        (1, [str(BLOCK)], None, None),
        (0, [], 0, None),
        (1, [str(BLOCK)], 0, "it has sent no update"),
        (1, [], 2, f"it does not announce {BLOCK}"),
        (2, [], 2, f"it does not announce {BLOCK} and 1 more"),
        (0, [str(BLOCK)], 2, f"it announces {BLOCK}, which it was told to withdraw"),
    ],
)
def test_what_is_announced_is_compared_with_what_was_told(
    told: int, sent: list[str], updates: int | None, what: str | None
) -> None:
    expected = [Finding(ONE, what, Remedy.TELL_AGAIN)] if what else []
    assert findings(neighbor(ONE, told=told), row(ONE, updates=updates), *sent) == expected


@pytest.mark.parametrize(("by_its_word", "text"), [(True, "up"), (False, "down")])
def test_a_session_that_is_otherwise_than_was_told_is_named_as_exabgp_has_it(by_its_word: bool, text: str) -> None:
    found = findings(neighbor(ONE, is_up=not by_its_word), row(ONE, is_up=by_its_word), str(BLOCK))
    assert found == [Finding(ONE, f"the session is {text} by its own word", Remedy.TELL_AGAIN)]
