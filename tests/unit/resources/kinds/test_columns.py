"""`calicoctl get` tables of every kind, against what the original printed for the same store."""

import json
from pathlib import Path

import pytest

from resources.codec import decode
from resources.datastore.keys import parse_resource_key
from resources.kinds import all_kinds, by_plural, namespaced_plurals
from resources.kinds.base import Column, Kind, View
from resources.kinds.pool import IPPool
from resources.kinds.profile import KIND as PROFILE
from resources.kinds.profile import default_allow

FIXTURES = Path(__file__).resolve().parents[3] / "fixtures" / "calico-v3"
STORED = [json.loads(line) for line in (FIXTURES / "etcd.jsonl").read_text().splitlines()]
TABLES = [json.loads(line) for line in (FIXTURES / "tables.jsonl").read_text().splitlines()]


def kind_called(alias: str) -> Kind[IPPool]:
    return next(kind for kind in all_kinds() if alias in kind.aliases)


def stored(kind: Kind[IPPool], namespace: str | None) -> list[IPPool]:
    found = []
    for record in STORED:
        key = parse_resource_key(record["key"], namespaced_plurals())
        assert key is not None
        if by_plural()[key.plural] is kind and (not kind.namespaced or namespace in (None, key.namespace)):
            found.append(decode(kind, record["value"].encode(), 1, key).resource)
    if kind.name == PROFILE.name:
        found.append(default_allow())  # type: ignore[arg-type]
    return sorted(found, key=kind.order)


def table(columns: tuple[Column[IPPool], ...], items: list[IPPool]) -> str:
    """The rules of reference resources.md 5.8, written as plainly as possible."""
    rows = [[column.heading for column in columns]]
    rows += [[column.cell(item, View(as_number=64512)) for column in columns] for item in items]
    widths = [max(5, *(len(row[i]) + 3 for row in rows)) for i in range(len(columns))]
    return "".join("".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + "\n" for row in rows) + "\n"


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case["cmd"])
def test_tables_are_those_of_the_original(case: dict[str, str]) -> None:
    words = case["cmd"].split()
    kind = kind_called(words[2])
    everywhere = "-A" in words
    namespace = None if everywhere else words[words.index("-n") + 1] if "-n" in words else "default"
    columns = kind.wide if "wide" in words else kind.columns
    if everywhere or "-n" in words:
        columns = (Column("NAMESPACE", lambda item, _: item.metadata.namespace), *columns)
    expected = case["stdout"]
    if kind.name == "ClusterInformation":  # the cluster's id was another one
        guid = expected.splitlines()[1].split()[1]
        expected = expected.replace(guid, stored(kind, None)[0].spec.cluster_guid)  # type: ignore[attr-defined]
    assert table(columns, stored(kind, namespace)).rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize("kind", all_kinds(), ids=lambda kind: kind.name)
def test_every_kind_has_tables_and_its_own_aliases(kind: Kind[IPPool]) -> None:
    assert kind.columns
    assert {column.heading for column in kind.columns} <= {column.heading for column in kind.wide}
    assert kind.name.lower() in kind.aliases
    assert kind.plural in kind.aliases or kind.plural in {alias + "s" for alias in kind.aliases}
    others = {alias for other in all_kinds() if other is not kind for alias in other.aliases}
    assert not others & set(kind.aliases)
