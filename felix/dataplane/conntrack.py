"""Flows of addresses that left a route, deleted by a worker: it is a scan of the whole table (reference felix.md 2.4).

The established rule is the first of every endpoint chain, so a flow that outlived its endpoint would bypass the policy
of the address's next owner. Routes for an address are therefore held back while its flows are being deleted.
"""

import queue
import threading
from collections.abc import Callable

from kernel.conntrack import FlowKernel
from kernel.errors import DataplaneError
from resources.names import IPAddress


class FlowCleaner:
    """One thread that deletes flows, address by address, and says when each is done."""

    def __init__(self, kernel: FlowKernel, done: Callable[[IPAddress, DataplaneError | None], None]) -> None:
        self._kernel = kernel
        self._done = done
        self._queue: queue.SimpleQueue[IPAddress | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="conntrack", daemon=True)
        self._thread.start()

    def clean(self, address: IPAddress) -> None:
        """Delete the flows of `address` soon; `done` is called from the worker's thread."""
        self._queue.put(address)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(10)

    def _run(self) -> None:
        while (address := self._queue.get()) is not None:
            failure: DataplaneError | None = None
            try:
                self._kernel.delete(address)
            except DataplaneError as error:
                failure = error
            self._done(address, failure)
