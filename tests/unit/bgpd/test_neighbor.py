"""How long a session that was found up, rather than heard coming up, is waited for."""

from ipaddress import ip_address

import pytest

from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.messages import Neighbour, SessionChanged
from bgpd.neighbor import SILENT_PEER_SECONDS, Change, Neighbor
from resources.names import AsNumber

PEER, OWN = ip_address("10.77.0.3"), ip_address("10.77.0.1")
AS = AsNumber(64512)


def found(seconds: int) -> Neighbor:
    spec = PeerSpec(address=PEER, kind=PeerKind.MESH, local_address=OWN, local_as=AS, peer_as=AS)
    neighbor = Neighbor(spec)
    row = Neighbour(
        peer=PEER, local=OWN, is_up=True, fsm="ESTABLISHED", seconds=seconds, local_as=AS, peer_as=AS,
        hold_seconds=90, restarts_gracefully=True,
    )
    assert neighbor.show(row, 1000.0, 5000.0) is Change.UP
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
