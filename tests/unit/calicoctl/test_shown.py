"""`calicoctl get -o yaml` and `-o json`, against what the original printed of the same store."""

import json
import re
from pathlib import Path

import pytest

from fakes.command_line import Calicoctl
from resources.datastore.memory import MemoryStore
from resources.datastore.store import Transaction

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "calico-v3"
STORED = [json.loads(line) for line in (FIXTURES / "etcd.jsonl").read_text().splitlines()]
SHOWN = [json.loads(line) for line in (FIXTURES / "shown.jsonl").read_text().splitlines()]

_MARKS = re.compile(r'("?(?:uid|creationTimestamp|resourceVersion|clusterGUID)"?: )\S+')


@pytest.mark.parametrize("case", SHOWN, ids=lambda case: case["cmd"])
def test_what_is_shown_is_what_the_original_shows(
    calicoctl: Calicoctl, store: MemoryStore, case: dict[str, str]
) -> None:
    """But for ids, times and revisions, which differ from run to run."""
    for record in STORED:
        store.commit(Transaction(puts={record["key"]: record["value"].encode()}))
    ran = calicoctl(*case["cmd"].split()[1:])
    assert ran.exit == 0
    assert _MARKS.sub(r"\1x", ran.out.rstrip()) == _MARKS.sub(r"\1x", case["stdout"].rstrip())
