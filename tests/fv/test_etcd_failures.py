"""The store on a real etcd that restarts, falls silent, is compacted, restored, full, or answers nothing."""

import http.server
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from fakes.etcdserver import EtcdServer, free_port
from fakes.store_contract import PATIENCE_SECONDS, committed, put, reading, together
from fakes.tcpproxy import TcpProxy
from resources.datastore.etcd import EtcdStore
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.store import (
    ABSENT,
    MAX_BYTES,
    Batch,
    Committed,
    Compacted,
    Event,
    Store,
    Transaction,
    Unknown,
    WatchEnded,
)
from resources.datastore.sync import Changes, InSync, OutOfSync, SyncMessage
from resources.datastore.syncer import Syncer
from resources.errors import StoreRefused, StoreUnavailable
from resources.runtime.backoff import Backoff


@pytest.fixture
def server() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@contextmanager
def connected(
    *endpoints: str,
    call_seconds: float = 2.0,
    pulse_seconds: float = 0.3,
    idle_seconds: float = 60.0,
    page_keys: int = 500,
) -> Iterator[EtcdStore]:
    store = EtcdStore(
        EtcdConfig(endpoints=endpoints),
        call_seconds=call_seconds,
        pulse_seconds=pulse_seconds,
        idle_seconds=idle_seconds,
        page_keys=page_keys,
    )
    with closing(store):
        yield store


class Follower:
    """A syncer and the map its daemon has."""

    def __init__(self, store: Store, *prefixes: str) -> None:
        self.queue: queue.SimpleQueue[SyncMessage] = queue.SimpleQueue()
        self.map: dict[str, bytes] = {}
        self.said: list[str] = []
        self.syncer = Syncer(store, prefixes, self.queue.put, backoff=Backoff(0.05, 0.2))

    def __enter__(self) -> "Follower":
        self.syncer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.syncer.stop()

    def until(self, condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            message = self.queue.get(timeout=max(0.0, end - time.monotonic()))
            if not isinstance(message, Changes):
                self.said.append(type(message).__name__)
                continue
            for change in message.changes:
                if change.value is None:
                    self.map.pop(change.key, None)
                else:
                    self.map[change.key] = change.value

    def until_said(self, message: type[SyncMessage]) -> None:
        self.said.clear()
        self.until(lambda: message.__name__ in self.said)

    def until_map(self, wanted: dict[str, bytes]) -> None:
        self.until(lambda: self.map == wanted)


# --- nobody there ---------------------------------------------------------------------------------------------------


def test_with_etcd_down_every_call_names_the_endpoints_and_the_reason_in_time() -> None:
    ports = free_port(), free_port()
    endpoints = [f"http://127.0.0.1:{port}" for port in ports]
    store = EtcdStore(EtcdConfig(endpoints=tuple(endpoints)))
    calls: list[Callable[[], object]] = [
        lambda: store.get("/a"),
        lambda: store.list("/"),
        lambda: store.commit(Transaction(puts={"/a": b"v"})),
        lambda: store.commit(Transaction(puts={"/a": b"v"}, lease_seconds=10)),
        lambda: store.watch({"/": 1}).__enter__(),
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="connection refused") as caught:
            call()
        assert time.monotonic() - began < 8
        for endpoint in endpoints:
            assert endpoint in str(caught.value)


def test_a_server_that_says_nothing_costs_the_time_out_and_no_more(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        revision = put(store, "/a")
        server.pause()
        try:
            calls: list[Callable[[], object]] = [
                lambda: store.get("/a", timeout=0.5),
                lambda: store.list("/", timeout=0.5),
                lambda: store.commit(Transaction(puts={"/a": b"v"}, lease_seconds=10), timeout=0.5),
            ]
            for call in calls:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match="no answer in time"):
                    call()
                assert 0.4 < time.monotonic() - began < 5
            outcome = store.commit(Transaction(expect={"/a": revision}, puts={"/a": b"late"}), timeout=0.5)
            assert isinstance(outcome, Unknown)
            assert server.endpoint in outcome.reason
        finally:
            server.resume()
        kv = store.get("/a")
        assert kv is not None
        assert kv.value in (b"v", b"late"), "it may have taken effect or not"


def test_what_is_no_etcd_is_told_so() -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        with (
            connected(f"http://127.0.0.1:{page.server_port}") as store,
            pytest.raises(StoreUnavailable, match="it is no etcd"),
        ):
            store.get("/a")
        page.shutdown()


def test_proxies_of_the_environment_do_not_matter(server: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with connected(server.endpoint) as store:
        put(store, "/a")


# --- answers lost ---------------------------------------------------------------------------------------------------


def test_a_lost_answer_is_unknown_and_the_write_is_there(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as proxy, connected(proxy.endpoint) as store:
        put(store, "/warm")
        proxy.lose_answers = True
        outcome = store.commit(Transaction(expect={"/a": ABSENT}, puts={"/a": b"once"}))
        assert isinstance(outcome, Unknown)
        assert proxy.endpoint in outcome.reason
        with pytest.raises(StoreUnavailable, match=proxy.endpoint):
            store.get("/a")
        proxy.lose_answers = False
        kv = store.get("/a")
        assert kv is not None
        assert kv.value == b"once"


def test_an_unknown_write_is_not_sent_again_to_another_endpoint(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as one, TcpProxy(server.members[0].client_port) as other:
        with connected(one.endpoint, other.endpoint) as store:
            put(store, "/a", b"0")
            one.lose_answers = other.lose_answers = True
            assert isinstance(store.commit(Transaction(puts={"/a": b"1"})), Unknown)
            one.lose_answers = other.lose_answers = False
            kv = store.get("/a")
            assert kv is not None
            events = reading_all(store, "/a", kv.revision - 1)
        assert [event.value for event in events] == [b"0", b"1"]


def reading_all(store: Store, prefix: str, first: int) -> list[Event]:
    last = put(store, prefix + "/end")
    with reading(store, {prefix: first}) as reader:
        events: list[Event] = []
        while not events or events[-1].revision < last:
            events += reader.events(1)
    return events[:-1]


# --- restarts and silence ---------------------------------------------------------------------------------------------


def test_a_watch_ends_when_its_server_dies(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        now = put(store, "/a")
        with reading(store, {"/": now + 1}) as reader:
            server.kill()
            error = reader.ended()
        assert isinstance(error, WatchEnded)
        assert server.endpoint in str(error)


def test_kept_connections_of_a_server_that_restarted_do_no_harm(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        together(*[lambda: put(store, "/a")] * 8)
        server.kill()
        server.start()
        assert store.get("/a") is not None
        put(store, "/b")


def test_a_syncer_follows_through_restarts_and_reads_nothing_twice(server: EtcdServer) -> None:
    with connected(server.endpoint) as store, Follower(store, "/a/", "/b/") as follower:
        put(store, "/a/1", b"1")
        follower.until_map({"/a/1": b"1"})
        follower.until(follower_in_sync(follower))
        for turn in (b"2", b"3"):
            server.kill()
            follower.until_said(OutOfSync)
            server.start()
            follower.until_said(InSync)
            put(store, "/b/1", turn)
            follower.until_map({"/a/1": b"1", "/b/1": turn})


def follower_in_sync(follower: Follower) -> Callable[[], bool]:
    return lambda: follower.syncer.in_sync


def test_a_syncer_reads_again_what_was_compacted_while_etcd_was_away(server: EtcdServer) -> None:
    with (
        TcpProxy(server.members[0].client_port) as proxy,
        connected(proxy.endpoint) as store,
        connected(server.endpoint) as other,
        Follower(store, "/a/") as follower,
    ):
        put(other, "/a/same")
        put(other, "/a/gone")
        follower.until_map({"/a/same": b"v", "/a/gone": b"v"})
        follower.until(follower_in_sync(follower))
        proxy.lose_answers = True
        proxy.cut()
        follower.until_said(OutOfSync)
        committed(other.commit(Transaction(deletes=frozenset({"/a/gone"}), puts={"/a/new": b"n"})))
        server.compact(put(other, "/elsewhere"))
        proxy.lose_answers = False
        follower.until_map({"/a/same": b"v", "/a/new": b"n"})
        follower.until(follower_in_sync(follower))


def test_a_watch_across_a_compaction_is_told(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        first = put(store, "/a")
        server.compact(put(store, "/a"))
        with reading(store, {"/other/": 1, "/a": first}) as reader:
            assert isinstance(reader.ended(), Compacted)


def test_a_silent_server_ends_its_watches_and_is_found_again(server: EtcdServer) -> None:
    with connected(server.endpoint, call_seconds=0.5) as store:
        now = put(store, "/a")
        with Follower(store, "/") as follower:
            follower.until(follower_in_sync(follower))
            with reading(store, {"/": now + 1}) as reader:
                server.pause()
                try:
                    error = reader.ended()
                    assert isinstance(error, WatchEnded)
                    assert "silence" in str(error)
                    follower.until_said(OutOfSync)
                finally:
                    server.resume()
            follower.until_said(InSync)
            put(store, "/b")
            follower.until_map({"/a": b"v", "/b": b"v"})


def test_a_path_that_loses_everything_ends_its_watches(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as proxy, connected(proxy.endpoint, call_seconds=0.5) as store:
        now = put(store, "/a")
        with reading(store, {"/": now + 1}) as reader:
            proxy.go_silent()
            assert isinstance(reader.ended(), WatchEnded)


def test_a_quiet_watch_lives_on(server: EtcdServer) -> None:
    with connected(server.endpoint, pulse_seconds=0.05) as store:
        now = put(store, "/a")
        with reading(store, {"/quiet/": now + 1}) as reader:
            end = time.monotonic() + 1
            while time.monotonic() < end:
                put(store, "/a")
            revision = put(store, "/quiet/1")
            assert reader.events(1) == [Event("/quiet/1", b"v", revision)]


def test_a_watch_idle_for_long_is_opened_anew_and_misses_nothing(server: EtcdServer) -> None:
    with (
        TcpProxy(server.members[0].client_port) as proxy,
        connected(proxy.endpoint, idle_seconds=0.3, pulse_seconds=60) as store,
    ):
        now = put(store, "/a")
        with store.watch({"/": now + 1}) as watch:
            batches = iter(watch)
            assert next(batches) == Batch("/", now, ())
            before = proxy.connections
            assert next(batches) == Batch("/", now, ())
            assert proxy.connections > before, "a new stream was opened"
            for _ in range(2):
                revision = put(store, "/b")
                assert next(batches) == Batch("/", revision, (Event("/b", b"v", revision),))
                assert next(batches) == Batch("/", revision, ()), "opened anew, without repeating"


def test_closing_is_prompt_while_the_server_is_silent(server: EtcdServer) -> None:
    with connected(server.endpoint, pulse_seconds=60) as store:
        now = put(store, "/a")
        with reading(store, {"/": now + 1}) as reader, Follower(store, "/") as follower:
            follower.until(follower_in_sync(follower))
            server.pause()
            try:
                began = time.monotonic()
                reader.close()
                assert reader.ended(seconds=2) is None
                follower.syncer.stop()
                assert time.monotonic() - began < 5
            finally:
                server.resume()


# --- several members and endpoints ------------------------------------------------------------------------------------


def test_each_of_three_members_may_go() -> None:
    with EtcdServer(members=3) as server, connected(*server.endpoints) as store, Follower(store, "/") as follower:
        expected = {}
        for number, member in enumerate(server.members):
            member.kill()
            put_while_a_leader_is_elected(store, f"/{number}")
            expected[f"/{number}"] = b"v"
            follower.until_map(expected)
            server.start(member)


def put_while_a_leader_is_elected(store: Store, key: str) -> None:
    """Meanwhile nobody takes writes, or the leader goes with the answer; to repeat is harmless here."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            if isinstance(store.commit(Transaction(puts={key: b"v"})), Committed):
                return
        except StoreUnavailable:
            pass
    raise AssertionError("no leader was elected")


def test_a_member_without_a_majority_says_so_at_once() -> None:
    with EtcdServer(members=3) as server, connected(server.members[2].endpoint) as store:
        put(store, "/a")
        for member in server.members[:2]:
            member.kill()
        until_no_leader(store)
        calls: list[Callable[[], object]] = [
            lambda: store.get("/a"),
            lambda: store.commit(Transaction(puts={"/a": b"2"})),
            lambda: store.watch({"/": 1}).__enter__(),
        ]
        for call in calls:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match="no leader"):
                call()
            assert time.monotonic() - began < 5


def until_no_leader(store: Store) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        try:
            store.get("/a", timeout=1)
        except StoreUnavailable as error:
            if "no leader" in str(error):
                return
    raise AssertionError("the member does not notice that it is alone")


def test_a_watch_ends_where_the_leader_is_lost() -> None:
    with EtcdServer(members=3) as server, connected(server.members[2].endpoint, pulse_seconds=60) as store:
        now = put(store, "/a")
        with reading(store, {"/": now + 1}) as reader:
            for member in server.members[:2]:
                member.kill()
            assert isinstance(reader.ended(), WatchEnded)


def test_of_two_endpoints_the_one_that_answers_is_used(server: EtcdServer) -> None:
    with (
        TcpProxy(server.members[0].client_port) as one,
        TcpProxy(server.members[0].client_port) as other,
        connected(one.endpoint, other.endpoint) as store,
        Follower(store, "/") as follower,
    ):
        for turn in range(4):
            gone, back = (one, other) if turn % 2 else (other, one)
            back.lose_answers, gone.lose_answers = False, True
            gone.cut()
            while store.get(f"/{turn}") is None:
                store.commit(Transaction(puts={f"/{turn}": b"v"}))
        follower.until_map({f"/{turn}": b"v" for turn in range(4)})


def test_a_silent_endpoint_leaves_time_for_the_next(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as proxy:
        proxy.go_silent()
        for _ in range(4):  # whichever comes first
            with connected(proxy.endpoint, server.endpoint) as store:
                assert store.get("/a", timeout=1.0) is None
                assert store.list("/").items == ()


# --- history lost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("restarts", "overtaken"),
    [(0, False), (1, False), (1, True)],
    ids=["behind", "behind and of an older term", "overtaken, of an older term"],
)
def test_a_restored_store_is_noticed_and_read_again(server: EtcdServer, restarts: int, overtaken: bool) -> None:
    for _ in range(restarts):  # each is a term more
        server.kill()
        server.start()
    with TcpProxy(server.members[0].client_port) as proxy, connected(proxy.endpoint) as store:
        put(store, "/a/kept", b"same")
        snapshot = server.save()
        with Follower(store, "/a/") as follower:
            put(store, "/a/1", b"first history")
            put(store, "/a/2", b"first history")
            follower.until_map({"/a/kept": b"same", "/a/1": b"first history", "/a/2": b"first history"})
            epoch = store.epoch()
            proxy.lose_answers = True
            proxy.cut()
            follower.until_said(OutOfSync)
            server.kill()
            server.restore(snapshot)
            server.start()
            wanted = {"/a/kept": b"same"}
            if overtaken:
                with connected(server.endpoint) as other:
                    for number in (1, 3, 4):
                        put(other, f"/a/{number}", b"second history")
                wanted |= {f"/a/{number}": b"second history" for number in (1, 3, 4)}
            proxy.lose_answers = False
            follower.until_map(wanted)
            assert store.epoch() > epoch
            put(store, "/a/new", b"n")
            follower.until_map(wanted | {"/a/new": b"n"})


# --- big, long and refused --------------------------------------------------------------------------------------------


def test_ten_thousand_keys_come_in_pages(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as proxy, connected(proxy.endpoint, call_seconds=10) as store:
        for start in range(0, 10_000, 100):
            keys = [f"/k/{n:05}" for n in range(start, start + 100)]
            committed(store.commit(Transaction(puts={key: key.encode() * 20 for key in keys})))
        requests: list[bytes] = []
        proxy.on_request = requests.append
        snapshot = store.list("/k/")
        assert [item.key for item in snapshot.items] == [f"/k/{n:05}" for n in range(10_000)]
        assert all(item.value == item.key.encode() * 20 for item in snapshot.items)
        assert sum(data.startswith(b"POST") for data in requests) == 20


def test_a_list_starts_over_when_its_revision_is_compacted(server: EtcdServer) -> None:
    with TcpProxy(server.members[0].client_port) as proxy, connected(proxy.endpoint, page_keys=10) as store:
        keys = [f"/k/{n:02}" for n in range(30)]
        committed(store.commit(Transaction(puts=dict.fromkeys(keys, b"1"))))
        requests: list[bytes] = []

        def compact_behind(data: bytes) -> None:
            if data.startswith(b"POST"):
                requests.append(data)
                if len(requests) == 2:
                    with connected(server.endpoint) as other:
                        server.compact(committed(other.commit(Transaction(puts=dict.fromkeys(keys, b"2")))))

        proxy.on_request = compact_behind
        assert {item.value for item in store.list("/k/").items} == {b"2"}
        assert len(requests) == 2 + 3


def test_many_threads_share_one_store(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:

        def work(number: int) -> None:
            for turn in range(10):
                put(store, f"/{number}", b"%d" % turn)
                kv = store.get(f"/{number}")
                assert kv is not None
                assert kv.value == b"%d" % turn

        together(*(partial(work, number) for number in range(16)))


def test_what_etcd_finds_too_large_is_refused(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        with pytest.raises(StoreRefused, match="too large"):
            store.commit(Transaction(puts={"/a": bytes(MAX_BYTES - 10)}))
        assert store.get("/a") is None


def test_a_full_etcd_says_so_and_how_to_mend_it() -> None:
    with EtcdServer("--quota-backend-bytes", "1000000") as server, connected(server.endpoint) as store:

        def fill() -> None:
            for number in range(50):
                put(store, f"/{number}", bytes(200_000))

        with pytest.raises(StoreRefused, match="is full") as caught:
            fill()
        assert "defrag" in str(caught.value.hint)
        assert store.get("/0") is not None


def test_a_lease_of_a_lost_transaction_is_given_back(server: EtcdServer) -> None:
    with connected(server.endpoint) as store:
        put(store, "/a")
        store.commit(Transaction(expect={"/a": ABSENT}, puts={"/a": b"2"}, lease_seconds=60))
        assert server.ask("lease/leases", {}).get("leases") is None
        store.commit(Transaction(puts={"/a": b"2"}, lease_seconds=60))
        leases = server.ask("lease/leases", {}).get("leases")
        assert isinstance(leases, list)
        assert len(leases) == 1
