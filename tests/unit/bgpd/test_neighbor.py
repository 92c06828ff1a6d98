"""How long a session that was found up is waited for, and for how long the routes of one that ended are kept."""

from ipaddress import ip_address

import pytest

from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.messages import Neighbour, Notified, SessionChanged
from bgpd.neighbor import RESTARTS, SILENT_PEER_SECONDS, Change, Neighbor
from resources.names import AsNumber

PEER, OWN = ip_address("10.77.0.3"), ip_address("10.77.0.1")
AS = AsNumber(64512)


SPEC = PeerSpec(address=PEER, kind=PeerKind.MESH, local_address=OWN, local_as=AS, peer_as=AS)


def row(seconds: int, *, is_up: bool = True) -> Neighbour:
    return Neighbour(
        peer=PEER, local=OWN, is_up=is_up, fsm="ESTABLISHED" if is_up else "ACTIVE", seconds=seconds, local_as=AS,
        peer_as=AS, hold_seconds=90, restarts_gracefully=True,
    )  # fmt: skip


def found(seconds: int) -> Neighbor:
    neighbor = Neighbor(SPEC)
    assert neighbor.show(row(seconds), 1000.0, 5000.0) is Change.UP
    assert (neighbor.up_at, neighbor.since) == (1000.0 - seconds, 5000.0 - seconds)
    return neighbor


@pytest.mark.parametrize("seconds", [0, 1, 20])
def test_one_that_just_came_up_may_have_told_all_before_we_listened(seconds: int) -> None:
    neighbor = found(seconds)
    assert not neighbor.end_received
    assert neighbor.keep_until == 1000.0 - seconds + SILENT_PEER_SECONDS


def test_one_that_is_up_for_long_has_told_all() -> None:
    neighbor = found(31)
    assert neighbor.end_received
    assert neighbor.keep_until is None


@pytest.mark.parametrize(("later", "change"), [(0.5, Change.UP_AGAIN), (60.0, Change.UP)])
def test_the_event_of_a_session_that_was_found_already_is_none_of_another(later: float, change: Change) -> None:
    neighbor = found(0)
    assert neighbor.on_session(SessionChanged(PEER, "up", ""), 1000.0 + later, 5000.0 + later) is change
    assert neighbor.transitions == 1
    assert not neighbor.end_received


def test_a_table_that_shows_the_session_we_know_is_no_news_and_one_of_a_younger_session_is() -> None:
    neighbor = found(20)
    assert neighbor.show(row(25), 1005.0, 5005.0) is Change.NONE
    assert neighbor.show(row(3), 1010.0, 5010.0) is Change.UP
    assert (neighbor.up_at, neighbor.transitions) == (1007.0, 1)
    assert neighbor.show(row(0, is_up=False), 1011.0, 5011.0) is Change.DOWN_KEEP
    assert neighbor.show(row(1, is_up=False), 1012.0, 5012.0) is Change.NONE


# --- the end of a session


def established(restart_seconds: int | None = 120) -> Neighbor:
    """Return a session that came up at 1000 and told all."""
    neighbor = Neighbor(SPEC, restart_seconds=restart_seconds)
    assert neighbor.on_session(SessionChanged(PEER, "up", ""), 1000.0, 5000.0) is Change.UP
    neighbor.on_end_of_rib()
    return neighbor


def down(neighbor: Neighbor, reason: str = "closing connection", now: float = 1100.0) -> Change:
    return neighbor.on_session(SessionChanged(PEER, "down", reason), now, now + 4000.0)


def test_one_that_breaks_has_its_routes_kept_for_as_long_as_the_peer_asked() -> None:
    neighbor = established()
    assert down(neighbor) is Change.DOWN_KEEP
    assert neighbor.keep_until == 1220.0
    assert (neighbor.is_up, neighbor.down_at, neighbor.since, neighbor.transitions) == (False, 1100.0, 5100.0, 2)
    assert not neighbor.is_overdue(1219.0)
    assert neighbor.is_overdue(1220.0)


@pytest.mark.parametrize("restart_seconds", [None, 0])
def test_one_that_breaks_with_a_peer_that_does_not_restart_gracefully_loses_its_routes(
    restart_seconds: int | None,
) -> None:
    neighbor = established(restart_seconds)
    assert down(neighbor) is Change.DOWN_DROP
    assert neighbor.keep_until is None


@pytest.mark.parametrize("received", [True, False])
def test_one_that_is_ended_on_purpose_loses_its_routes(received: bool) -> None:
    neighbor = established()
    neighbor.on_notification(Notified(PEER, 6, 3, received=received))
    assert down(neighbor) is Change.DOWN_DROP
    assert neighbor.error == f"{'Received' if received else 'BGP Error'}: Peer de-configured"
    ours = established()
    assert down(ours, "notification sent (4,0)") is Change.DOWN_DROP
    assert ours.error == "BGP Error: Hold timer expired"


def test_a_notification_of_an_earlier_session_does_not_count() -> None:
    neighbor = established()
    neighbor.on_notification(Notified(PEER, 6, 4))
    assert down(neighbor) is Change.DOWN_DROP
    neighbor.on_session(SessionChanged(PEER, "up", ""), 1200.0, 5200.0)
    neighbor.on_end_of_rib()
    assert neighbor.error == ""
    assert down(neighbor, now=1300.0) is Change.DOWN_KEEP
    # nor does one that refused an attempt
    again = Neighbor(SPEC, restart_seconds=120)
    again.on_notification(Notified(PEER, 6, 5))
    again.on_session(SessionChanged(PEER, "up", ""), 1000.0, 5000.0)
    assert down(again) is Change.DOWN_KEEP


def test_routes_of_one_that_falls_again_and_again_are_not_kept_for_ever() -> None:
    neighbor = established()
    down(neighbor, now=1100.0)
    for now in (1150.0, 1200.0, 1250.0):
        neighbor.on_session(SessionChanged(PEER, "up", ""), now - 1.0, 5000.0)
        assert down(neighbor, now=now) is Change.DOWN_KEEP
    assert neighbor.keep_until == 1100.0 + RESTARTS * 120
    # as soon as it has told all, it may begin anew
    neighbor.on_session(SessionChanged(PEER, "up", ""), 1260.0, 5000.0)
    neighbor.on_end_of_rib()
    assert neighbor.keep_until is None
    down(neighbor, now=1300.0)
    assert neighbor.keep_until == 1420.0


def test_our_own_speakers_death_is_not_the_peers_fault() -> None:
    neighbor = established(restart_seconds=None)
    assert neighbor.lose_speaker(1100.0, 5100.0) is Change.DOWN_KEEP
    assert neighbor.keep_until == 1100.0 + SPEC.restart_seconds
    assert neighbor.lose_speaker(1101.0, 5101.0) is Change.NONE


@pytest.mark.parametrize(
    ("pause", "was_up", "error"),
    [
        (0.01, False, "Socket: Connection refused"),
        (1.0, False, "Socket: Connection closed"),
        (0.01, True, "Socket: Connection closed"),
    ],
)
def test_a_connection_that_ends_at_once_was_refused_if_it_led_to_no_session(
    pause: float, was_up: bool, error: str
) -> None:
    neighbor = established() if was_up else Neighbor(SPEC)
    neighbor.on_session(SessionChanged(PEER, "connected", ""), 1100.0 - pause, 5000.0)
    down(neighbor)
    assert neighbor.error == error
