import threading
import time
from collections.abc import Sequence

from resources.runtime.loop import Loop


def test_messages_posted_before_the_owner_runs_come_as_one_batch() -> None:
    batches: list[list[str]] = []

    def handle(messages: Sequence[str]) -> None:
        batches.append(list(messages))
        loop.stop()

    loop: Loop[str] = Loop(handle)
    for word in ("a", "b", "c"):
        loop.post(word)
    loop.run()
    assert batches == [["a", "b", "c"]]


def test_the_owner_runs_again_after_the_time_it_asked_for() -> None:
    turns: list[int] = []

    def handle(messages: Sequence[str]) -> float | None:
        turns.append(len(messages))
        if len(turns) == 3:
            loop.stop()
        return 0.0

    loop: Loop[str] = Loop(handle)
    loop.run()
    assert turns == [0, 0, 0]


def test_a_message_from_another_thread_wakes_the_owner() -> None:
    seen: list[str] = []

    def handle(messages: Sequence[str]) -> None:
        seen.extend(messages)
        if messages:
            loop.stop()

    loop: Loop[str] = Loop(handle)
    owner = threading.Thread(target=loop.run, kwargs={"heartbeat": 30})
    owner.start()
    loop.post("hello")
    owner.join(5)
    assert seen == ["hello"]
    assert not owner.is_alive()


def test_a_stream_of_messages_is_gathered_while_the_owner_rests() -> None:
    turns: list[int] = []

    def handle(messages: Sequence[str]) -> None:
        turns.append(len(messages))
        if sum(turns) == 100:
            loop.stop()

    loop: Loop[str] = Loop(handle, rest=0.02)
    owner = threading.Thread(target=loop.run)
    began = time.monotonic()
    owner.start()
    for _ in range(100):
        loop.post("word")
        time.sleep(0.001)
    owner.join(10)
    assert sum(turns) == 100
    # the first turn may have no message yet; then each is 0.02 s after the one before
    assert len(turns) <= (time.monotonic() - began) / 0.02 + 2


def test_a_resting_owner_stops_at_once() -> None:
    handled = threading.Event()

    def handle(messages: Sequence[str]) -> None:
        if messages:
            handled.set()

    loop: Loop[str] = Loop(handle, rest=3600)
    owner = threading.Thread(target=loop.run)
    owner.start()
    loop.post("word")
    assert handled.wait(10)
    loop.stop()
    owner.join(10)
    assert not owner.is_alive()
