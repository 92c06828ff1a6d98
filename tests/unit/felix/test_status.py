import json
from datetime import UTC, datetime

from fakes.clock import ManualClock
from felix.status import StatusReporter
from resources.datastore import keys
from resources.datastore.memory import MemoryStore
from resources.errors import StoreUnavailable
from resources.names import NodeName

NODE = NodeName("node1")


def reporter(store: MemoryStore) -> StatusReporter:
    return StatusReporter(
        store, NODE, interval_seconds=30, ttl_seconds=90, now=lambda: datetime(2026, 11, 21, 9, 33, 20, tzinfo=UTC)
    )


def value(store: MemoryStore, key: str) -> dict[str, object]:
    found = store.get(key)
    assert found is not None
    decoded = json.loads(found.value)
    assert isinstance(decoded, dict)
    return decoded


def test_both_keys_are_written_and_the_first_report_says_so() -> None:
    store = MemoryStore()
    status = reporter(store)
    assert status.report()
    for key in (keys.felix_status_key(NODE), keys.felix_last_status_key(NODE)):
        assert value(store, key)["time"] == "2026-11-21T09:33:20Z"
        assert value(store, key)["first_update"] is True
    status.report()
    assert value(store, keys.felix_status_key(NODE))["first_update"] is False


def test_the_status_of_an_agent_that_died_goes_away_and_the_last_report_stays() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    reporter(store).report()
    clock.sleep(91)
    assert store.get(keys.felix_status_key(NODE)) is None
    assert store.get(keys.felix_last_status_key(NODE)) is not None


class Away(MemoryStore):
    """Does not answer."""

    def commit(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        raise StoreUnavailable("no etcd endpoint answers")


def test_a_store_that_is_away_is_survived() -> None:
    assert not reporter(Away()).report()
