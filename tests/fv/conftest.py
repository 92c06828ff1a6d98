"""Fixtures for tests of one host against a real kernel."""

from collections.abc import Iterator

import pytest

from bed import Namespace
from bed.claim import Claim, down


@pytest.fixture(scope="session")
def _claim() -> Iterator[Claim]:
    down()
    claim = Claim.new()
    yield claim
    claim.sweep()


@pytest.fixture
def netns(_claim: Claim) -> Iterator[Namespace]:
    """A fresh network namespace with loopback up, removed after the test.

    ``with netns.entered():`` puts the thread into it, ``netns.run(...)`` a command, ``netns.ip(...)`` is ``ip -n``;
    `netns.netns` is its name and `netns.path` its file.
    """
    with Namespace(_claim.prefix + "fv") as namespace:
        yield namespace
