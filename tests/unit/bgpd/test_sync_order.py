"""What ExaBGP says while it is asked for everything it knows: events are newer than its table of neighbours."""

import json
from collections.abc import Mapping

import pytest

from bgpd.messages import SessionChanged
from bgpd.plan import Found, Plan
from bgpd.speaker import Event, Lines, Seen, Speaker, Synced
from resources.names import IPAddress

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

    def guard(self, least_ttl: Mapping[IPAddress, int]) -> str | None:
        return None

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


def heard(*said: object) -> list[str]:
    """Return what a speaker hands on of lines after the greeting: sessions seen or changed, and all tables read."""
    speaker = Speaker(Connected())
    speaker.want(Plan(configuration=""))
    speaker.tick(0.0)
    events: list[Event] = []
    hello = {"type": "hello", "pid": 7, "boot": "1", "lost": 0, "unanswered": 0}
    for one in (hello, *said):
        events += speaker.handle(Lines(1, (line(one),)), 0.0)
        events += speaker.tick(0.0)
    words = []
    for event in events:
        match event:
            case Seen(neighbours=rows):
                words += [f"seen {'up' if one.is_up else 'down'} for {one.seconds} s" for one in rows]
            case SessionChanged(state=state):
                words.append(f"told {state}")
            case Synced():
                words.append("synced")
            case _:
                pass
    return words


@pytest.mark.parametrize(("table", "event"), [("down", "up"), ("up", "down")])
def test_the_table_stands_between_older_and_newer_events(table: str, event: str) -> None:
    """Whoever takes them in this order ends with what holds now."""
    before = heard(session(event), [row(table)], "done", "done", "done")
    assert before == [f"told {event}", f"seen {table} for 3 s", "synced"]
    after = heard([row(table)], "done", session(event), "done", "done")
    assert after == [f"seen {table} for 3 s", f"told {event}", "synced"]


def test_a_session_that_is_up_for_less_than_a_second_is_up() -> None:
    """ExaBGP 5.0 calls it down: it takes a duration of 0 s for none, and tells another one."""
    found = heard([row("down", duration=70, fsm="ESTABLISHED")], "done", "done", "done")
    assert found == ["seen up for 0 s", "synced"]
