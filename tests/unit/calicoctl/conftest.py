import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from calicoctl.main import main
from calicoctl.session import STORE
from fakes.command_line import Calicoctl, Ran, Unclosed
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Store


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def calicoctl(
    store: MemoryStore, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Calicoctl]:
    """Run calicoctl on `store`, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("ETCD_ENDPOINTS", "CALICO_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    token = STORE.set(lambda _: cast("Store", Unclosed(store)))

    def run(*arguments: str, stdin: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfd.readouterr()
        code = main(list(arguments))
        captured = capfd.readouterr()
        return Ran(code, captured.out, captured.err)

    yield run
    STORE.reset(token)
