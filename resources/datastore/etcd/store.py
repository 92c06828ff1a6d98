"""The store on etcd: the interface, on top of its cluster's calls."""

import random
import time
from collections.abc import Mapping

from resources.datastore.etcd import gateway
from resources.datastore.etcd.cluster import ROUNDS, Cluster, OutOfRange, Unanswered
from resources.datastore.etcd.watch import IDLE_SECONDS, PULSE_SECONDS, EtcdWatch
from resources.datastore.etcdconfig import EtcdConfig
from resources.datastore.store import KeyValue, Lost, Outcome, Snapshot, Transaction, Unknown, check_transaction
from resources.errors import CalicoError, StoreRefused, StoreUnavailable

CALL_SECONDS = 4.0
"""Default time for one call in all, so that a command, which takes time to start, says within 5 s that etcd is away."""

PAGE_KEYS = 500


class EtcdStore:
    """A `resources.datastore.store.Store` on a cluster of etcd. Opens nothing before the first call.

    Raises:
        ConfigurationError: an endpoint or a file of the configuration is unusable.
    """

    def __init__(
        self,
        config: EtcdConfig,
        *,
        call_seconds: float = CALL_SECONDS,
        page_keys: int = PAGE_KEYS,
        pulse_seconds: float = PULSE_SECONDS,
        idle_seconds: float = IDLE_SECONDS,
        rng: random.Random | None = None,
    ) -> None:
        self._cluster = Cluster(config, call_seconds=call_seconds, rng=rng)
        self._page_keys = page_keys
        self._pulse_seconds, self._idle_seconds = pulse_seconds, idle_seconds
        self._watches: set[EtcdWatch] = set()

    # --- the interface -------------------------------------------------------------------------------------------

    def get(self, key: str, *, timeout: float | None = None) -> KeyValue | None:
        answer = self._cluster.call("kv/range", gateway.get_request(key), timeout)
        return next(iter(gateway.key_values(answer)), None)

    def list(self, prefix: str, *, timeout: float | None = None) -> Snapshot:
        for _ in range(ROUNDS):
            try:
                return self._list(prefix, timeout)
            except OutOfRange:
                continue
        raise StoreUnavailable(f"etcd was compacted again and again while {prefix} was read", prefix=prefix)

    def _list(self, prefix: str, timeout: float | None) -> Snapshot:
        answer = self._cluster.call("kv/range", gateway.page_request(prefix, limit=self._page_keys), timeout)
        revision = gateway.header(answer).revision
        items = gateway.key_values(answer)
        while gateway.has_more(answer):
            request = gateway.page_request(prefix, limit=self._page_keys, after=items[-1].key, revision=revision)
            answer = self._cluster.call("kv/range", request, timeout)
            items += gateway.key_values(answer)
        return Snapshot(tuple(items), revision)

    def commit(self, transaction: Transaction, *, timeout: float | None = None) -> Outcome:
        check_transaction(transaction)
        deadline = time.monotonic() + (timeout or self._cluster.call_seconds)
        lease = None
        if transaction.lease_seconds is not None:
            granted = self._cluster.call("lease/grant", {"TTL": str(transaction.lease_seconds)}, timeout, linear=False)
            lease = int(granted["ID"])
        request = gateway.transaction_request(transaction, lease)
        try:
            answer = self._cluster.call("kv/txn", request, max(0.1, deadline - time.monotonic()), repeat=False)
        except Unanswered as error:
            return Unknown(str(error))
        except StoreRefused:
            self._revoke(lease)
            raise
        outcome = gateway.transaction_outcome(transaction, answer)
        if isinstance(outcome, Lost):
            self._revoke(lease)
        return outcome

    def watch(self, from_revisions: Mapping[str, int]) -> "EtcdWatch":
        if not from_revisions or min(from_revisions.values()) < 1:
            raise ValueError(f"watch needs prefixes, and revisions from 1 on: {dict(from_revisions)}")
        watch = EtcdWatch(
            self._cluster,
            from_revisions,
            pulse_seconds=self._pulse_seconds,
            idle_seconds=self._idle_seconds,
            on_left=self._watches.discard,
        )
        self._watches.add(watch)
        return watch

    def epoch(self) -> int:
        return self._cluster.epoch

    def close(self) -> None:
        self._cluster.close()
        while self._watches:
            self._watches.pop().close()

    def _revoke(self, lease: int | None) -> None:
        """Give a lease back that no key has; if that fails it runs out by itself."""
        if lease is not None:
            try:
                self._cluster.call("lease/revoke", {"ID": str(lease)}, 1.0, linear=False)
            except (CalicoError, OutOfRange):
                pass

