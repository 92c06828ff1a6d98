"""How often a peer that answers and gets no session is retried, and what is kept of it."""

import pickle
from ipaddress import ip_address
from itertools import pairwise

from bgpd.calc.sessions import PeerKind, PeerSpec
from bgpd.neighbor import Neighbor
from bgpd.retries import PAUSE_SECONDS, Retries
from resources.names import AsNumber

PEER = ip_address("10.77.0.3")
AS = AsNumber(64512)
SPEC = PeerSpec(address=PEER, kind=PeerKind.MESH, local_address=ip_address("10.77.0.1"), local_as=AS, peer_as=AS)


def retried(retries: Retries, start: float, seconds: int) -> list[float]:
    """Let the peer answer once a second, and return when it was retried."""
    neighbors = {PEER: Neighbor(SPEC)}
    times = []
    for now in (start + second for second in range(seconds)):
        if retries.begin([PEER], neighbors, now):
            times.append(now)
            retries.dropped()
    return times


def test_a_peer_that_never_comes_up_is_retried_ever_more_slowly_and_takes_no_more_memory() -> None:
    retries = Retries()
    times = retried(retries, 1000.0, 1000)
    assert [after - before for before, after in pairwise(times)][:4] == list(PAUSE_SECONDS)
    size = len(pickle.dumps(retries))
    more = retried(retries, 2000.0, 20_000)
    assert len(more) > 100
    assert {after - before for before, after in pairwise(more)} == {PAUSE_SECONDS[-1]}
    assert len(pickle.dumps(retries)) < size + 20


def test_a_peer_that_came_up_begins_anew() -> None:
    retries = Retries()
    retried(retries, 1000.0, 500)
    retries.note_up(PEER, 1500.0)
    assert retried(retries, 1510.0, 60) == [1510.0, 1510.0 + PAUSE_SECONDS[0], 1510.0 + sum(PAUSE_SECONDS[:2])]
