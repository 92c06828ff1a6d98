"""Entry point calico-felix: builds the parts, joins them, runs until told to end. Everything in the kernel stays."""

import contextlib
import ctypes
import datetime
import functools
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import structlog

from felix.accounts import Accounts
from felix.agent import Agent, FlowsDeleted, Lacking, Message
from felix.back_end import open_tables, other_tables
from felix.calc.parameters import Parameters, effective, environment_texts, file_texts
from felix.dataplane.conntrack import FlowCleaner
from felix.dataplane.driver import Dataplane
from felix.dataplane.forwarding import Forwarding
from felix.dataplane.interfaces import InterfaceEffector
from felix.dataplane.ipip import IpipEffector
from felix.dataplane.left_over import LeftOver
from felix.dataplane.routes import RouteEffector, owns
from felix.dataplane.sets import SetEffector
from felix.dataplane.sizes import HostSizes, MtuFile
from felix.dataplane.tables import TableEffector
from felix.dataplane.tunnels import Tunnels
from felix.dataplane.vxlan import VxlanEffector
from felix.desired import TABLES
from felix.pipeline import Pipeline
from felix.status import StatusReporter
from kernel import probe
from kernel.arp import ArpAnnouncer
from kernel.conntrack import ConntrackFlows
from kernel.errors import DataplaneError
from kernel.links import NetlinkLinks
from kernel.monitor import Monitor
from kernel.routes import NetlinkRoutes
from kernel.sets import IpsetSets
from kernel.sets_netlink import NetlinkSets
from kernel.sysctl import ProcSysctls
from kernel.vxlan import NetlinkVxlan
from kernel.xtables import BackEnd, TableKey
from kernel.xtables_counters import read_counters
from kernel.xtables_detect import decide
from resources.datastore.keys import blocks_prefix
from resources.datastore.settings import connect, etcd_config_of_daemon
from resources.datastore.store import Store
from resources.datastore.syncer import Syncer
from resources.errors import CalicoError
from resources.kinds import by_plural
from resources.kinds.clusterinformation import KIND as CLUSTER_INFORMATION
from resources.names import NodeName
from resources.runtime import log, paths, process_names
from resources.runtime.health import Health
from resources.runtime.loop import Loop
from resources.runtime.nodename import node_name
from resources.runtime.options import Source
from resources.typed_sync import TypedReader
from resources.vxlan import DEVICES


class Felix:
    """The process: watchers around one owner thread. Made and run in the host's network namespace."""

    def __init__(self, node: NodeName, store: Store, sources: list[Source]) -> None:
        """`sources` are the parameters that are stronger than the store's, strongest first."""
        self._status = 0
        self._loaded = False
        self._back_end = BackEnd.NFT
        self._health = Health()
        self._loop: Loop[Message] = Loop(self._handle)
        self._links, self._routes = NetlinkLinks(), NetlinkRoutes()
        self._monitor = Monitor(
            self._loop.post,
            rules=True,
            neighbours_on=frozenset(DEVICES.values()),
            own_ports=frozenset({self._routes.port}),
        )
        self._cleaner = FlowCleaner(ConntrackFlows(), lambda a, failure: self._loop.post(FlowsDeleted(a, failure)))
        pipeline = Pipeline(node, sources)
        reader = TypedReader([by_plural()[p] for p in sorted(pipeline.plurals | {CLUSTER_INFORMATION.plural})])
        self._agent = Agent(
            pipeline=pipeline,
            reader=reader,
            build=self._dataplane,
            follow=self._follow,
            read_links=self._links.links,
            read_addresses=self._links.addresses,
            health=self._health,
            end=self.end,
            monotonic=time.monotonic,
            lacking=lacking,
        )
        self._accounts = Accounts(
            node,
            lambda: pipeline.conclusions() if self._agent.has_rules else None,
            lambda version: read_counters(self._back_end, version),
            lambda: datetime.datetime.now(datetime.UTC),
        )
        self._syncer = Syncer(store, (*reader.prefixes, blocks_prefix()), self._loop.post, on_crash=self._crashed)
        self._reporter = StatusReporter(store, node)

    def run(self) -> int:
        """Turn until ended; return the exit status."""
        self._health.watch_loop(lambda: self._loop.turned_at)
        self._health.state = self._agent.state
        self._health.pages |= {"/counters": self._accounts.counters, "/flowlog-prefixes": self._accounts.prefixes}
        self._health.serve(paths.health_socket("felix"))
        self._monitor.start()
        self._syncer.start()
        self._reporter.start()
        try:
            self._loop.run()
        finally:
            self._syncer.stop()
            self._reporter.stop()
            self._monitor.close()
        return self._status

    def end(self, status: int = 0) -> None:
        """End after the batch under way; callable from any thread and from a signal handler."""
        self._status = self._status or status
        self._loop.stop()

    def _handle(self, messages: Sequence[Message]) -> float | None:
        if self._agent.has_rules and not self._loaded:
            # one turn after the first that wrote: what was read until then is let go by everybody
            self._loaded = True
            gc.collect()
            gc.freeze()  # what a full store makes stays: a collection that walks all of it takes 0.1 s, in any change
            gc.set_threshold(10_000, 10, 10)
            give_back_memory()
        return self._agent.handle(messages)

    def _crashed(self, error: Exception) -> None:
        self.thread_died("syncer", error)

    def thread_died(self, name: str, error: BaseException | None) -> None:
        """End: without one of its threads felix would be deaf, or blind, and not know it."""
        effect = "felix ends and is started again; the dataplane stays"
        structlog.get_logger().critical("thread.died", thread=name, error=repr(error), effect=effect, exc_info=error)
        self.end(1)

    def _follow(self, parameters: Parameters) -> None:
        log.configure("felix", parameters.log_severity_screen)
        self._reporter.follow(
            interval_seconds=parameters.reporting_seconds, ttl_seconds=parameters.reporting_ttl_seconds
        )

    def _dataplane(self, parameters: Parameters) -> Dataplane:
        choice, tables = open_tables(parameters.backend)
        self._back_end = choice.back_end
        sysctls = ProcSysctls()
        versions = (4, 6) if has_ipv6() else (4,)
        forwarding = Forwarding(
            sysctls,
            self._routes,
            versions=_forwarded(parameters, versions),
            workloads=parameters.interface_prefixes,
        )
        return Dataplane(
            sets=SetEffector(NetlinkSets(IpsetSets()), maxelem=parameters.set_size_max),
            tables=[TableEffector(tables, TableKey(version, table)) for version in versions for table in TABLES],
            table_kernel=tables,
            left_over=LeftOver(lambda: other_tables(choice.back_end)),
            interfaces=InterfaceEffector(sysctls, self._links, ArpAnnouncer(), forwarding),
            routes=RouteEffector(
                self._routes,
                owns=owns(
                    parameters.interface_prefixes,
                    protocol=parameters.route_protocol,
                    remove_external=parameters.remove_external_routes,
                ),
                protocol=parameters.route_protocol,
                flows_of=self._cleaner.clean,
                source=parameters.route_source,
            ),
            route_kernel=self._routes,
            forwarding=forwarding,
            tunnels=Tunnels(
                sizes=HostSizes(self._links),
                mtu=MtuFile(paths.MTU),
                ipip=IpipEffector(self._links, time.monotonic),
                vxlan=VxlanEffector(NetlinkVxlan(), self._links),
            ),
        )


def lacking(
    parameters: Parameters, try_nflog: Callable[[str], probe.Finding] | None = None
) -> dict[str, Lacking]:
    """Return what of the settings this kernel cannot do and felix can do without. Costs nothing while it is off."""
    if not parameters.flow_logs:
        return {}
    finding = (try_nflog or _nflog)(parameters.backend)
    if finding.works:
        return {}
    error = f"this kernel cannot hand packets to a log group ({finding.feature.name}): {finding.detail}"
    hint = "modprobe xt_NFLOG nfnetlink_log, or set FlowLogsEnabled to false"
    return {"FlowLogsEnabled": Lacking("false", error, hint)}


@functools.cache
def _nflog(setting: str) -> probe.Finding:
    """Try once whether rules may log; a module that is loaded later is found at the next start."""
    return probe.try_features([probe.NFLOG], decide(setting).back_end)[0]


def _forwarded(parameters: Parameters, versions: Collection[int]) -> Collection[int]:
    """Return the address families that this host is to forward."""
    wanted = (4, 6) if parameters.ipv6 else (4,)
    return [version for version in versions if version in wanted and parameters.ip_forwarding]


def give_back_memory() -> None:
    """Give back what reading the store took for a while; only the GNU C library keeps it, and can be asked."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def has_ipv6() -> bool:
    """Return whether this kernel has IPv6 at all."""
    return Path("/proc/sys/net/ipv6").is_dir()


def sources_of(environ: Mapping[str, str], file: Path = paths.FELIX_CFG) -> list[Source]:
    """Return the parameters that are stronger than the store's, strongest first."""
    found = [Source("environment", environment_texts(environ))]
    try:
        found.append(Source(f"file {file}", file_texts(file.read_text())))
    except (FileNotFoundError, NotADirectoryError):
        pass
    if not has_ipv6():
        found.insert(0, Source("this kernel", {"Ipv6Support": "false"}))
    return found


def main() -> int:
    """Run felix in the foreground until SIGTERM or SIGINT."""
    log.configure("felix")
    logger = structlog.get_logger()
    try:
        node, origin = node_name()
        config = etcd_config_of_daemon()
        log.tell_settings((node, origin), (config.endpoints, config.origin))
        if process_names.are_wanted(os.environ):
            process_names.take(process_names.FELIX)
        sources = sources_of(os.environ)
        log.configure("felix", effective(sources).parameters.log_severity_screen)
        felix = Felix(node, connect(config), sources)  # a bad value of the operator's ends the start here
    except CalicoError as error:
        logger.critical("start.failed", error=str(error), hint=error.hint)
        return 1
    threading.excepthook = lambda died: felix.thread_died(died.thread.name if died.thread else "", died.exc_value)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: felix.end())
    try:
        status = felix.run()
    except DataplaneError as error:  # no back end for rules can be had
        logger.critical("start.failed", error=str(error), hint=error.hint)
        status = 1
    logger.info("felix.ended", status=status, effect="routes, rules and sets stay")
    # threads that wait in a read of the store do not hold up the end
    sys.stderr.flush()
    if threading.active_count() > 1:
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
