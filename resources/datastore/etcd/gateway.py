"""What goes over the wire to etcd's JSON gateway, and back: pure functions between its messages and our values.

Bytes travel as base64, 64-bit numbers as decimal text, and members that are zero or false are left out (reference
ipam.md 5.3). Keys are text for us; bytes that are no UTF-8 survive as surrogates.
"""

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resources.datastore.store import ABSENT, Batch, Committed, Event, KeyValue, Lost, Transaction

Message = Mapping[str, Any]
"""A decoded JSON object of the gateway."""

CODE_NOT_FOUND = 5
CODE_PERMISSION_DENIED = 7
CODE_EXHAUSTED = 8
CODE_OUT_OF_RANGE = 11
CODE_UNAVAILABLE = 14
CODE_UNAUTHENTICATED = 16


def encode_key(key: str) -> str:
    return b64encode(key.encode(errors="surrogateescape")).decode("ascii")


def decode_key(text: str) -> str:
    return b64decode(text).decode(errors="surrogateescape")


def _encode(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _range_of(prefix: str) -> dict[str, str]:
    """Return the range of all keys below `prefix`: up to the prefix with its last byte one higher.

    No UTF-8 text ends in 0xff; a surrogate could, and then the carry goes left.
    """
    first = prefix.encode(errors="surrogateescape")
    last = first.rstrip(b"\xff")
    end = last[:-1] + bytes([last[-1] + 1]) if last else b"\0"
    return {"key": _encode(first or b"\0"), "range_end": _encode(end)}


# --- requests -----------------------------------------------------------------------------------------------------


def get_request(key: str) -> Message:
    return {"key": encode_key(key)}


def page_request(prefix: str, *, limit: int, after: str | None = None, revision: int | None = None) -> Message:
    """Return the request for one page of a prefix: what follows the key `after`, as it was at `revision`."""
    request: dict[str, Any] = {**_range_of(prefix), "limit": limit}
    if after is not None:
        request["key"] = _encode(after.encode(errors="surrogateescape") + b"\0")
    if revision is not None:
        request["revision"] = str(revision)
    return request


def probe_request() -> Message:
    """Return a read that costs nothing, yet has to be agreed on by a majority of the members."""
    return {"key": _encode(b"\0"), "keys_only": True, "limit": 1}


def transaction_request(transaction: Transaction, lease: int | None) -> Message:
    puts = [
        {"request_put": {"key": encode_key(key), "value": _encode(value)} | ({"lease": str(lease)} if lease else {})}
        for key, value in transaction.puts.items()
    ]
    deletes = [{"request_delete_range": {"key": encode_key(key)}} for key in sorted(transaction.deletes)]
    return {
        "compare": [_compare(key, revision) for key, revision in transaction.expect.items()],
        "success": puts + deletes,
        "failure": [{"request_range": {"key": encode_key(key)}} for key in transaction.expect],
    }


def _compare(key: str, revision: int) -> Message:
    if revision == ABSENT:
        return {"key": encode_key(key), "target": "VERSION", "result": "EQUAL", "version": "0"}
    return {"key": encode_key(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(revision)}


def watch_request(positions: Sequence[tuple[str, int]]) -> bytes:
    """Return the body that opens one stream with a watch for each (prefix, revision); their ids count from 1."""
    return b"".join(
        json.dumps(
            {
                "create_request": {
                    **_range_of(prefix),
                    "start_revision": str(revision),
                    "watch_id": str(number),
                    "progress_notify": True,
                }
            }
        ).encode()
        for number, (prefix, revision) in enumerate(positions, 1)
    )


# --- answers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """Where an answer comes from and how far the store was."""

    cluster: str
    revision: int
    term: int


def header(answer: Message) -> Header:
    fields = answer.get("header", {})
    return Header(fields.get("cluster_id", "0"), int(fields.get("revision", 0)), int(fields.get("raft_term", 0)))


def key_values(answer: Message) -> list[KeyValue]:
    return [
        KeyValue(decode_key(kv["key"]), b64decode(kv.get("value", "")), int(kv["mod_revision"]))
        for kv in answer.get("kvs", ())
    ]


def has_more(answer: Message) -> bool:
    return bool(answer.get("more", False))


def transaction_outcome(transaction: Transaction, answer: Message) -> Committed | Lost:
    revision = header(answer).revision
    if answer.get("succeeded", False):
        return Committed(revision)
    ranges = [key_values(response["response_range"]) for response in answer.get("responses", ())]
    current = {key: found[0] if found else None for key, found in zip(transaction.expect, ranges, strict=True)}
    return Lost(revision, current)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that etcd or its gateway answered with; `code` is gRPC's."""

    code: int
    text: str


def refusal(body: str) -> Refusal:
    """Return what an answer other than 200 says; code 0 if it is not in etcd's form (a proxy's page, say)."""
    try:
        answer = json.loads(body)
        return Refusal(int(answer.get("code", 0)), str(answer.get("message") or answer["error"]))
    except (ValueError, KeyError, AttributeError, TypeError):
        first_line = body.strip().partition("\n")[0]
        return Refusal(0, first_line[:200] or "an empty answer")


@dataclass(frozen=True, slots=True)
class Created:
    """The watch with this number is open; the member was at this revision."""

    number: int
    header: Header


@dataclass(frozen=True, slots=True)
class Canceled:
    """The server ended a watch; `compact_revision` is where the store begins if that is why, else 0."""

    compact_revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class StreamError:
    """The whole stream ends; `code` is gRPC's, 0 if unknown."""

    reason: str
    code: int = 0


WatchMessage = Created | Canceled | StreamError | Batch


def watch_message(line: bytes, prefixes: Sequence[str]) -> WatchMessage | None:
    """Return what a line of a watch's stream says, None if it is of no interest.

    The revision of a batch is that of its last event: the header's may be ahead of what was sent. Without events it is
    a progress notification of one watch, which comes in order (the answers to progress *requests* do not, up to
    etcd 3.4.24 and 3.5.7, so none are sent).

    Raises:
        ValueError: the line is not what a gateway says.
    """
    try:
        message = json.loads(line)
        if "error" in message:
            error = message["error"]
            if not isinstance(error, dict):
                return StreamError(str(error), int(message.get("code", 0)))
            return StreamError(str(error.get("message", error)), int(error.get("grpc_code", 0)))
        return _watch_result(message["result"], prefixes)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"{line[:100]!r} is no watch message: {error!r}") from error


def _watch_result(result: Message, prefixes: Sequence[str]) -> WatchMessage | None:
    number = int(result.get("watch_id", 0))
    if result.get("canceled", False):
        return Canceled(int(result.get("compact_revision", 0)), str(result.get("cancel_reason", "no reason given")))
    if result.get("created", False):
        return Created(number, header(result))
    if not 1 <= number <= len(prefixes):
        return None
    events = tuple(_event(event) for event in result.get("events", ()))
    return Batch(prefixes[number - 1], events[-1].revision if events else header(result).revision, events)


def _event(event: Message) -> Event:
    kv = event["kv"]
    value = None if event.get("type") == "DELETE" else b64decode(kv.get("value", ""))
    return Event(decode_key(kv["key"]), value, int(kv["mod_revision"]))
