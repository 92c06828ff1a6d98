"""`calico-node agent`: runs until SIGTERM, configured by the environment. What it keeps stays when it ends."""

import os
import queue
import signal
import sys
import time
from collections.abc import Mapping

import structlog

from calicoctl.node.agent import options
from calicoctl.node.agent.engine import WAITS_FOR, Ask, Engine, Message
from calicoctl.node.agent.keeper import Keeper
from ipam.allocator import Allocator
from resources.datastore.client import ResourceClient
from resources.datastore.settings import connect, etcd_config_of_daemon
from resources.datastore.store import Store
from resources.datastore.syncer import Syncer
from resources.errors import CalicoError
from resources.names import NodeName
from resources.runtime import log
from resources.runtime.health import Health
from resources.runtime.loop import Loop
from resources.runtime.nodename import node_name
from resources.runtime.options import Settings

STATE_SECONDS = 2.0
PATIENCE_SECONDS = 180.0
"""A look at three tunnels may wait for an ailing store again and again before it gives up."""


class Daemon:
    """The agent, wired. Several may run beside each other in tests."""

    def __init__(self, node: NodeName, settings: Settings, store: Store) -> None:
        self._health = Health(*WAITS_FOR)
        self._health_path = settings[options.RUN_DIR] / "agent.sock"
        allocator = Allocator(store, node, report=structlog.get_logger().warning)
        self._engine = Engine(
            node,
            Keeper(node, ResourceClient(store), allocator),
            allocator,
            self._health,
            audit_seconds=settings[options.AUDIT_SECONDS],
            tidy_seconds=settings[options.TIDY_SECONDS],
            clock=time.monotonic,
        )
        self._loop: Loop[Message] = Loop(self._engine.handle)
        self._syncer = Syncer(store, self._engine.prefixes, self._loop.post, on_crash=self._crash)
        self._crashed: Exception | None = None

    def _crash(self, error: Exception) -> None:
        self._crashed = error
        self._loop.stop()

    def _ask_state(self) -> object:
        reply: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._loop.post(Ask(reply))
        try:
            return reply.get(timeout=STATE_SECONDS)
        except queue.Empty:
            return {"error": f"the daemon did not answer within {STATE_SECONDS:g} s"}

    def stop(self) -> None:
        """Make `run` return; callable from any thread and from a signal handler."""
        self._loop.stop()

    def run(self) -> None:
        """Work until `stop`."""
        self._health.watch_loop(lambda: self._loop.turned_at, patience_seconds=PATIENCE_SECONDS)
        self._health.state = self._ask_state
        self._health.serve(self._health_path)
        self._syncer.start()
        try:
            self._loop.run()
        finally:
            self._syncer.stop()
        if self._crashed is not None:
            raise self._crashed


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run until SIGTERM. Returns the exit code: 1 if a setting cannot be used."""
    try:
        settings = options.from_environment(environ)
        node, origin = node_name(environ)
        etcd = etcd_config_of_daemon(environ)
        store = connect(etcd)
    except CalicoError as error:
        sys.stderr.write(f"calico-node agent: {error}{f' ({error.hint})' if error.hint else ''}\n")
        return 1
    log.configure("agent", settings[options.LOG_LEVEL])
    logger = structlog.get_logger()
    log.tell_settings((node, origin), (etcd.endpoints, etcd.origin), settings)
    daemon = Daemon(node, settings, store)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    logger.info("daemon.started", pid=os.getpid())
    daemon.run()
    store.close()
    logger.info("daemon.stopped", left="the addresses")
    return 0
