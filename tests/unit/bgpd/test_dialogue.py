"""Counting ExaBGP's answers."""

from bgpd.dialogue import WINDOW, Dialogue, Doubt, Reply
from bgpd.messages import Answered, FsmChanged, Hello, Neighbours, Remark
from resources.names import parse_address

DONE, ERROR = Answered(True), Answered(False)


def test_commands_go_in_order_and_are_counted() -> None:
    dialogue = Dialogue()
    dialogue.say(["a", "b"])
    assert not dialogue.is_quiet
    assert dialogue.take(0) == b"a\nb\n"
    assert dialogue.take(0) == b""
    assert not dialogue.is_quiet
    assert dialogue.hear(DONE, 0) is None
    assert dialogue.hear(DONE, 0) is None
    assert dialogue.is_quiet


def test_a_window_is_open_at_most() -> None:
    dialogue = Dialogue()
    dialogue.say([f"c{n}" for n in range(WINDOW + 50)])
    assert dialogue.take(0).count(b"\n") == WINDOW
    for _ in range(20):
        dialogue.hear(DONE, 0)
    assert dialogue.take(0).count(b"\n") == 20


def test_a_question_waits_for_quiet_and_is_alone() -> None:
    dialogue = Dialogue()
    dialogue.say(["a"])
    dialogue.ask("show")
    dialogue.say(["b"])
    assert dialogue.take(0) == b"a\n"
    dialogue.hear(DONE, 0)
    assert dialogue.take(0) == b"show\n"
    assert dialogue.take(0) == b""
    assert dialogue.hear(Neighbours(()), 0) is None
    assert dialogue.hear(FsmChanged(parse_address("10.0.0.1"), "IDLE"), 0) is None
    assert dialogue.hear(Remark("x"), 0) is None
    assert dialogue.hear(DONE, 0) == Reply("show", (Neighbours(()), Remark("x")))
    assert dialogue.take(0) == b"b\n"


def test_a_refused_question_says_so() -> None:
    dialogue = Dialogue()
    dialogue.ask("show")
    dialogue.take(0)
    assert dialogue.hear(ERROR, 0) == Reply("show", (), failed=True)


def test_an_error_puts_all_that_is_on_its_way_in_doubt() -> None:
    """The answers are not in order, so it may be any of them."""
    dialogue = Dialogue()
    dialogue.say(["a", "b"])
    dialogue.take(0)
    assert dialogue.hear(ERROR, 0) == Doubt(("a", "b"))
    assert dialogue.hear(DONE, 0) is None
    dialogue.say(["c"])
    dialogue.take(0)
    assert dialogue.hear(ERROR, 0) == Doubt(("c",))


def test_answers_of_an_earlier_connection_are_let_pass() -> None:
    dialogue = Dialogue()
    dialogue.say(["old"])
    dialogue.greet(Hello(1, "b", 0, 2), 5)
    dialogue.ask("show")
    assert dialogue.take(5) == b""
    assert not dialogue.is_quiet
    assert dialogue.hear(Remark("a rest of an old answer"), 6) is None
    assert dialogue.hear(ERROR, 6) is None
    assert dialogue.take(6) == b""
    assert dialogue.hear(DONE, 6) is None
    assert dialogue.take(6) == b"show\n"
    assert dialogue.hear(DONE, 7) == Reply("show", ())
    assert dialogue.is_quiet


def test_how_long_nothing_was_answered() -> None:
    dialogue = Dialogue()
    assert dialogue.waiting_since is None
    dialogue.say(["a", "b"])
    dialogue.take(10)
    assert dialogue.waiting_since == 10
    dialogue.hear(DONE, 15)
    assert dialogue.waiting_since == 15
    dialogue.hear(DONE, 16)
    assert dialogue.waiting_since is None
    dialogue.ask("show")
    dialogue.take(20)
    dialogue.hear(Remark("line"), 25)
    assert dialogue.waiting_since == 25


def test_too_many_answers_do_no_harm() -> None:
    dialogue = Dialogue()
    assert dialogue.hear(DONE, 0) is None
    assert dialogue.is_quiet
