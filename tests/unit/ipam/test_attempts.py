"""How long an operation goes on trying, and how long it waits between its tries."""

import random

import pytest

from fakes.ipam_world import WorldClock
from ipam.errors import Contended
from ipam.session import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Attempts, Session
from resources.datastore.memory import MemoryStore
from resources.errors import StoreUnavailable
from resources.names import NodeName


class Longest(random.Random):
    """Chance that always takes the longest."""

    def uniform(self, a: float, b: float) -> float:
        return b


@pytest.fixture
def clock() -> WorldClock:
    return WorldClock()


def attempts(clock: WorldClock, seconds: float) -> Attempts:
    session = Session(MemoryStore(clock), NodeName("node1"), clock=clock, rng=Longest())
    return Attempts(session, session.deadline(seconds), "assigning")


def test_after_a_lost_race_the_second_try_comes_at_once_and_the_others_after_growing_pauses(clock: WorldClock) -> None:
    tries, pauses = attempts(clock, 1000.0), []
    for _ in range(14):
        before = clock.now
        tries.lost()
        pauses.append(clock.now - before)
    growing = [FIRST_PAUSE_SECONDS * 2**n for n in range(1, 14)]
    assert pauses == pytest.approx([0.0, *(min(LONGEST_PAUSE_SECONDS, pause) for pause in growing)])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS)


def test_a_store_that_does_not_answer_is_left_alone_for_longer_each_time(clock: WorldClock) -> None:
    tries, pauses = attempts(clock, 1000.0), []
    for _ in range(8):
        before = clock.now
        tries.failed(StoreUnavailable("away"))
        pauses.append(clock.now - before)
    growing = [FIRST_PAUSE_SECONDS * 2**n for n in range(4, 12)]
    assert pauses == pytest.approx([min(LONGEST_PAUSE_SECONDS, pause) for pause in growing])
    assert pauses[0] < pauses[1]


def test_no_pause_goes_beyond_the_deadline_and_there_the_trouble_is_told(clock: WorldClock) -> None:
    tries = attempts(clock, FIRST_PAUSE_SECONDS * 3)
    end = clock.now + FIRST_PAUSE_SECONDS * 3
    tries.lost()
    tries.lost()
    tries.lost()
    assert clock.now == pytest.approx(end)
    with pytest.raises(Contended, match=r"assigning failed: others changed the same blocks faster, 4 times in a row"):
        tries.lost()
    error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable) as told:
        tries.failed(error)
    assert told.value is error
