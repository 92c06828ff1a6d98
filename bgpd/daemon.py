"""calico-bgpd: announces this node's blocks by BGP, learns the other nodes', and writes both to the kernel.

    calico-bgpd                  run in the foreground, configured by the environment (bgpd.options)
    calico-bgpd --end-speaker    end the ExaBGP that a stopped calico-bgpd left running

A stopped calico-bgpd leaves the kernel's routes and ExaBGP as they are, so that an upgrade costs no session (reference
bgp.md 3.6). ``/run/calico/exabgp.pid`` holds ExaBGP's pid and start time.
"""

import argparse
import os
import queue
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from bgpd import options, pidfile
from bgpd.calc.sessions import router_id
from bgpd.child import ExabgpChild
from bgpd.engine import WAITS_FOR, Ask, Engine, Message, Page, Settings
from bgpd.fib import Fib
from bgpd.inventory import Inventory
from bgpd.metrics import processes
from bgpd.namesakes import Namesakes, behind
from bgpd.peering import Peering
from bgpd.probe import Prober
from bgpd.render import configuration
from bgpd.routing import Routing
from bgpd.secrets import SecretFiles
from bgpd.speaker import Speaker
from bgpd.status import SOCKETS, StatusServer
from kernel.links import NetlinkLinks
from kernel.monitor import Monitor
from kernel.routes import NetlinkRoutes
from resources.datastore.settings import connect, etcd_config_of_daemon
from resources.datastore.store import Store
from resources.datastore.syncer import Syncer
from resources.errors import CalicoError, Transient
from resources.names import NodeName
from resources.runtime import heap, log, metrics, process_names
from resources.runtime.health import Health
from resources.runtime.loop import Loop
from resources.runtime.nodename import node_name
from resources.runtime.options import Settings as Options

STATE_SECONDS = 2.0
REST_SECONDS = 0.01
"""Between turns while peers tell a great many routes, some with each message."""


class Busy(Transient):
    """The owner has other things to do."""

    reference = "daemon-busy"


class Daemon:
    """bgpd, wired. Everything it touches is an argument, so that several run beside each other in tests.

    Args:
        node: this node's name.
        settings: of bgpd.options.
        store: followed for as long as `run` runs.
    """

    def __init__(self, node: NodeName, settings: Options, store: Store) -> None:
        run: Path = settings[options.RUN_DIR]
        self._health_path = run / "bgpd.sock"
        self._metrics_host, self._metrics_port = settings[options.METRICS_HOST], settings[options.METRICS_PORT]
        self._health = Health(*WAITS_FOR)
        self._loop: Loop[Message] = Loop(self._handle, rest=REST_SECONDS)
        self._routes = NetlinkRoutes()
        self._interfaces = NetlinkLinks()
        self._monitor = Monitor(self._loop.post, own_ports=frozenset({self._routes.port}))
        self._child = ExabgpChild(
            run=run,
            log=settings[options.LOG_DIR] / "bgpd" / "exabgp.log",
            post=self._loop.post,
            say=_say,
        )
        # a path that ExaBGP's file cannot hold is found out now, not with the first session
        configuration([], router_id(None, node), self._child.relay_command)
        inventory = Inventory(node)
        speaker = Speaker(self._child, patience=settings[options.PATIENCE_SECONDS])
        routing = Routing(
            node,
            Fib(self._routes),
            self._interfaces,
            max_prefixes=settings[options.MAX_PREFIX],
            is_strict=settings[options.STRICT_OWNERS],
        )
        sockets = {version: run / path.name for version, path in SOCKETS.items()}
        self._namesakes = Namesakes(sockets) if settings[process_names.ORIGINAL_NAMES] else None
        if self._namesakes is not None:
            sockets = {version: behind(path) for version, path in sockets.items()}
        self._status = StatusServer(sockets, self._ask_state)
        self._engine = Engine(
            node,
            Settings(
                hold_seconds=settings[options.HOLD_SECONDS],
                router_id=settings[options.ROUTER_ID],
                refresh_seconds=settings[options.ROUTE_REFRESH_SECONDS],
            ),
            inventory=inventory,
            routing=routing,
            peering=Peering(
                speaker,
                routing.rib,
                relay_command=self._child.relay_command,
                probe=Prober(self._loop.post).probe,
                wall=time.time,
                audit_seconds=settings[options.ROUTE_REFRESH_SECONDS],
            ),
            speaker=speaker,
            secrets=SecretFiles(settings[options.SECRETS_DIR]).read,
            readiness=self._health,
            publish=self._status.publish,
            clock=time.monotonic,
            wall=time.time,
            on_log_level=lambda level: None if settings[options.LOG_LEVEL] else log.configure("bgpd", level or "info"),
        )
        self._syncer = Syncer(store, inventory.prefixes, self._loop.post, on_crash=self._crash)
        self._crashed: Exception | None = None

    def _handle(self, batch: Sequence[Message]) -> float | None:
        return self._engine.handle(batch)

    def _crash(self, error: Exception) -> None:
        self._crashed = error
        self._loop.stop()

    def _ask(self, page: Page) -> object:
        """Have the owner make a page.

        Raises:
            Busy: it did not within STATE_SECONDS.
        """
        reply: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._loop.post(Ask(reply, page))
        try:
            return reply.get(timeout=STATE_SECONDS)
        except queue.Empty:
            raise Busy(f"the daemon did not answer within {STATE_SECONDS:g} s", hint="ask again") from None

    def _ask_state(self) -> object:
        try:
            return self._ask(Page.STATE)
        except Busy as error:
            return {"error": str(error)}

    def _metrics(self) -> bytes:
        families = self._ask(Page.METRICS)
        assert isinstance(families, list)
        return metrics.text([*families, *metrics.process(processes(self._engine.speaker))])

    def _serve_metrics(self) -> None:
        if not self._metrics_port:
            return
        try:
            metrics.serve(self._metrics_host, self._metrics_port, self._metrics)
        except OSError as error:
            structlog.get_logger().error(
                "metrics.unserved", host=self._metrics_host, port=self._metrics_port, error=str(error),
                hint="choose another BGPD_METRICS_PORT; everything else goes on",
            )

    def stop(self) -> None:
        """Make `run` return; callable from any thread and from a signal handler."""
        self._loop.stop()

    def run(self) -> None:
        """Work until `stop`. Kernel routes and ExaBGP stay as they are."""
        self._health.watch_loop(lambda: self._loop.turned_at)
        self._health.state = self._ask_state
        self._health.pages[Page.ROUTES.value] = lambda: self._ask(Page.ROUTES)
        self._health.texts[Page.METRICS.value] = (metrics.CONTENT_TYPE, self._metrics)
        self._health.serve(self._health_path)
        self._serve_metrics()
        self._status.start()
        if self._namesakes is not None:
            self._namesakes.start()
        self._monitor.start()
        self._syncer.start()
        try:
            self._loop.run()
        finally:
            self._syncer.stop()
            self._monitor.close()
            self._child.close()
            if self._namesakes is not None:
                self._namesakes.close()
            self._status.close()
            self._interfaces.close()
            self._routes.close()
        if self._crashed is not None:
            raise self._crashed


_STAMP = re.compile(r"^\d\d:\d\d:\d\d ")
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
_ROUTINE = ("closing connection", "connection to ", "lost TCP session", "SIGUSR1 received", "scheduling reload")


def _say(line: str) -> None:
    """Pass on a line of ExaBGP's log; what the sessions' own events say better is for debugging only."""
    logger = structlog.get_logger().bind(component="bgpd")
    text = _COLOUR.sub("", line)
    # a traceback comes with a hundred lines; they are all in ExaBGP's own log
    if _STAMP.match(text) and not any(words in text for words in _ROUTINE):
        logger.warning("speaker.said", line=text)
    else:
        logger.debug("speaker.said", line=text)


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Entry point of calico-bgpd; returns the exit code."""
    parser = argparse.ArgumentParser(prog="calico-bgpd", description="BGP for the routes of this host's containers.")
    parser.add_argument(
        "--end-speaker",
        action="store_true",
        help="end the BGP speaker that a stopped calico-bgpd left running, and exit",
    )
    asked = parser.parse_args(arguments)
    try:
        settings = options.from_environment(environ)
        if asked.end_speaker:
            ended = pidfile.end(settings[options.RUN_DIR] / pidfile.PID_FILE.name)
            sys.stdout.write("The BGP speaker has ended.\n" if ended else "No BGP speaker is running.\n")
            return 0
        return _run(settings, environ)
    except CalicoError as error:
        hint = f"\n  {error.hint}" if error.hint else ""
        sys.stderr.write(f"calico-bgpd: {error}{hint}\n")
        return 1


def _run(settings: Options, environ: Mapping[str, str]) -> int:
    heap.keep_large_blocks_apart()
    log.configure("bgpd", settings[options.LOG_LEVEL] or "info")
    logger = structlog.get_logger()
    node, origin = node_name(environ)
    etcd = etcd_config_of_daemon(environ)
    log.tell_settings((node, origin), (etcd.endpoints, etcd.origin), settings)
    store = connect(etcd)
    daemon = Daemon(node, settings, store)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    logger.info("daemon.started", pid=os.getpid())
    daemon.run()
    store.close()
    logger.info("daemon.stopped", left="routes and sessions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
