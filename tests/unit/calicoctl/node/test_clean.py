"""What `calicoctl node clean` says before it does anything; what it removes is in tests/st/test_node_clean.py."""

from collections.abc import Iterator
from typing import NoReturn

import click
import pytest

from calicoctl.node.clean import Unanswered, clean
from calicoctl.session import STORE
from resources.datastore.etcdconfig import EtcdConfig
from resources.errors import StoreUnavailable


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    """A datastore that does not answer."""

    def refuse(_: EtcdConfig) -> NoReturn:
        raise StoreUnavailable("no answer from etcd")

    token = STORE.set(refuse)
    yield
    STORE.reset(token)


def test_without_a_terminal_it_names_the_option_that_answers() -> None:
    asked: list[str] = []

    def nobody(text: str) -> NoReturn:
        asked.append(text)
        raise click.Abort

    with pytest.raises(Unanswered, match="nothing was changed: nobody answered") as caught:
        clean(config=None, confirmed=False, ask=nobody)
    assert caught.value.hint is not None
    assert "'calicoctl node clean --yes' is the answer" in caught.value.hint
    assert "Remove all routes, rules, sets and interfaces of calico from this host?" in asked[0]


def test_a_no_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert clean(config=None, confirmed=False, ask=lambda _: False) == 1
    assert capsys.readouterr().out == "Nothing was changed.\n"
