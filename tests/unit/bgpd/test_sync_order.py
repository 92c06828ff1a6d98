"""What ExaBGP says while it is asked for everything it knows: events are newer than its table of neighbours."""

import json
from collections.abc import Mapping
from ipaddress import ip_address

import pytest

from bgpd.messages import SessionChanged
from bgpd.speaker import Event, Found, Lines, Plan, Speaker, Synced

PEER = "10.77.0.3"


class Connected:
    """A Child whose ExaBGP has pid 7 and whose relay is connection 1; lines are handed in by the test."""

    def find(self) -> Found | None:
        return None

    def start(self, configuration: str, environment: Mapping[str, str]) -> int:
        return 7

    def validate(self, configuration: str, environment: Mapping[str, str]) -> None: ...

    def install(self, configuration: str) -> None: ...

    def reload(self) -> None: ...

    def note(self, found: Found) -> None: ...

    def connect(self, seconds: float) -> int:
        return 1

    def write(self, data: bytes) -> None: ...

    def end(self, *, hard: bool) -> None: ...


def row(state: str, *, duration: int = 3, fsm: str = "") -> dict[str, object]:
    fsm = fsm or {"up": "ESTABLISHED", "down": "OPENCONFIRM"}[state]
    sides = {side: {"address": address, "as": 64512} for side, address in (("local", "10.77.0.1"), ("peer", PEER))}
    return {"state": state, "fsm": fsm, "duration": duration, **sides}


def session(state: str) -> dict[str, object]:
    address = {"local": "10.77.0.1", "peer": PEER}
    return {"type": "state", "neighbor": {"address": address, "state": state, "reason": ""}}


def line(what: object) -> bytes:
    return what.encode() if isinstance(what, str) else json.dumps(what).encode()


def synced(*said: object) -> tuple[Synced, list[SessionChanged]]:
    """Return what a speaker makes of lines after the greeting, the answers to its questions included."""
    speaker = Speaker(Connected())
    speaker.want(Plan(configuration=""))
    speaker.tick(0.0)
    events: list[Event] = []
    hello = {"type": "hello", "pid": 7, "boot": "1", "lost": 0, "unanswered": 0}
    for one in (hello, *said):
        events += speaker.handle(Lines(1, (line(one),)), 0.0)
        events += speaker.tick(0.0)
    (found,) = [event for event in events if isinstance(event, Synced)]
    return found, [event for event in events if isinstance(event, SessionChanged)]


@pytest.mark.parametrize(("table", "event"), [("down", "up"), ("up", "down")])
def test_a_change_of_a_session_that_comes_after_the_table_wins(table: str, event: str) -> None:
    found, told = synced([row(table)], session(event), "done", "done", "done")
    assert found.neighbours == ()
    assert [one.state for one in told] == [event]


@pytest.mark.parametrize("state", ["up", "down"])
def test_a_table_that_agrees_with_the_events_is_handed_on(state: str) -> None:
    found, _ = synced(session(state), [row(state)], "done", "done", "done")
    assert [(one.peer, one.is_up) for one in found.neighbours] == [(ip_address(PEER), state == "up")]


def test_only_the_last_change_counts() -> None:
    found, _ = synced([row("down")], session("up"), session("down"), "done", "done", "done")
    assert [one.is_up for one in found.neighbours] == [False]


def test_a_session_that_is_up_for_less_than_a_second_is_up() -> None:
    """ExaBGP 5.0 calls it down: it takes a duration of 0 s for none."""
    found, _ = synced([row("down", duration=0, fsm="ESTABLISHED")], "done", "done", "done")
    assert [(one.is_up, one.seconds) for one in found.neighbours] == [(True, 0)]
