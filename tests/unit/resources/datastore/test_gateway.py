"""The gateway's messages. Whole conversations are tested against a real etcd."""

import json
from base64 import b64decode

import hypothesis.strategies as st
import pytest
from hypothesis import given

from resources.datastore.etcd import gateway
from resources.datastore.store import Batch, Event, KeyValue, Transaction

ANY_KEY = st.binary(max_size=6).map(lambda key: key.decode(errors="surrogateescape"))


def as_bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


@given(ANY_KEY)
def test_any_bytes_survive_as_a_key(key: str) -> None:
    assert gateway.decode_key(gateway.encode_key(key)) == key


@given(ANY_KEY, ANY_KEY.filter(bool))
def test_the_range_of_a_prefix_holds_just_what_begins_with_it(prefix: str, key: str) -> None:
    request = gateway.page_request(prefix, limit=1)
    first, end = b64decode(request["key"]), b64decode(request["range_end"])
    inside = first <= as_bytes(key) and (end == b"\0" or as_bytes(key) < end)
    assert inside == as_bytes(key).startswith(as_bytes(prefix))


def test_the_next_page_begins_right_after_the_last_key() -> None:
    request = gateway.page_request("/a/", limit=7, after="/a/é", revision=12)
    assert b64decode(request["key"]) == "/a/é".encode() + b"\0"
    assert (request["limit"], request["revision"]) == (7, "12")


def test_a_put_has_the_lease_and_a_compare_the_version_or_the_revision() -> None:
    transaction = Transaction(expect={"/new": 0, "/old": 7}, puts={"/new": b"v"}, deletes=frozenset({"/old"}))
    request = gateway.transaction_request(transaction, lease=99)
    new, old = gateway.encode_key("/new"), gateway.encode_key("/old")
    assert request == {
        "compare": [
            {"key": new, "target": "VERSION", "result": "EQUAL", "version": "0"},
            {"key": old, "target": "MOD", "result": "EQUAL", "mod_revision": "7"},
        ],
        "success": [
            {"request_put": {"key": new, "value": "dg==", "lease": "99"}},
            {"request_delete_range": {"key": old}},
        ],
        "failure": [{"request_range": {"key": new}}, {"request_range": {"key": old}}],
    }


def test_what_is_zero_is_left_out_by_etcd() -> None:
    answer = {"header": {"revision": "5"}, "kvs": [{"key": "L2E=", "mod_revision": "3"}]}
    assert gateway.key_values(answer) == [KeyValue("/a", b"", 3)]
    assert gateway.key_values({}) == []
    assert gateway.header(answer) == gateway.Header("0", 5, 0)
    assert not gateway.has_more(answer)


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        ('{"error":"etcdserver: no leader","message":"etcdserver: no leader","code":14}', 14, "etcdserver: no leader"),
        ('{"error":"only this","code":3}', 3, "only this"),
        ("404 page not found\n", 0, "404 page not found"),
        ("<html>" + "x" * 500, 0, ("<html>" + "x" * 500)[:200]),
        ("", 0, "an empty answer"),
        ("[1]", 0, "[1]"),
        ("{}", 0, "{}"),
    ],
)
def test_an_error_is_read_in_whatever_form_it_comes(body: str, code: int, text: str) -> None:
    assert gateway.refusal(body) == gateway.Refusal(code, text)


def line(**result: object) -> bytes:
    return json.dumps({"result": {"header": {"revision": "9", "cluster_id": "1", "raft_term": "2"}, **result}}).encode()


PUT = {"kv": {"key": "L2Ix", "mod_revision": "7", "value": "dg=="}}
DELETE = {"type": "DELETE", "kv": {"key": "L2Iy", "mod_revision": "8"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(watch_id="1", created=True), gateway.Created(1, gateway.Header("1", 9, 2))),
        (line(watch_id="2", events=[PUT]), Batch("/b", 7, (Event("/b1", b"v", 7),))),
        (line(watch_id="2", events=[PUT, DELETE]), Batch("/b", 8, (Event("/b1", b"v", 7), Event("/b2", None, 8)))),
        (line(watch_id="1"), Batch("/a", 9, ())),
        (line(watch_id="-1"), None),
        (line(watch_id="1", canceled=True, compact_revision="6"), gateway.Canceled(6, "no reason given")),
        (line(watch_id="-1", created=True, canceled=True, cancel_reason="no"), gateway.Canceled(0, "no")),
        (b'{"error":{"grpc_code":14,"message":"no leader"}}', gateway.StreamError("no leader", 14)),
        (b'{"error":"gone","code":5}', gateway.StreamError("gone", 5)),
    ],
)
def test_a_line_of_a_watch_says_one_thing(text: bytes, message: gateway.WatchMessage | None) -> None:
    assert gateway.watch_message(text, ["/a", "/b"]) == message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["result", "error", "events", "kv", "key", "watch_id", "header"]), inner),
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_what_is_no_message_is_a_value_error_and_nothing_else(text: bytes) -> None:
    try:
        gateway.watch_message(text, ["/a"])
    except ValueError:
        pass
