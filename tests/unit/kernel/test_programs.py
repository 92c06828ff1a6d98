"""Programs run to their end, and their failures have names."""

import pytest

from kernel.errors import ToolMissing, ToolTimedOut
from kernel.programs import run


def test_the_outcome_of_a_program() -> None:
    outcome = run(("sh", "-c", "cat; echo LC=$LC_ALL; echo first >&2; echo second >&2; exit 3"), feed="fed\n")
    assert (outcome.status, outcome.output, outcome.complaint) == (3, "fed\nLC=C\n", "first\nsecond\n")
    failure = outcome.failure("cannot do it")
    assert str(failure) == "cannot do it: first"
    assert failure.context["status"] == 3


def test_a_program_that_says_nothing() -> None:
    assert str(run(("sh", "-c", "exit 4")).failure("cannot do it")) == "cannot do it: exit status 4"


def test_a_program_that_is_not_installed() -> None:
    with pytest.raises(ToolMissing, match="ip6tables-nosuch is not installed") as missing:
        run(("ip6tables-nosuch", "-L"))
    assert missing.value.hint == "apt-get install iptables"


def test_a_program_that_does_not_end() -> None:
    with pytest.raises(ToolTimedOut, match="sh did not end"):
        run(("sh", "-c", "sleep 30"), timeout=0.05)
