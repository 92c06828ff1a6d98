"""Felix's owner thread: what it hears goes into the pipeline, what comes out goes into the dataplane.

Nothing in the kernel changes before the store is in sync and its ready flag is set; a flag that is taken back later
ends the process, which then waits for it again (reference felix.md 1.3, 1.8).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from felix.calc.parameters import Parameters, Resolved
from felix.dataplane.driver import Dataplane, Report
from felix.pipeline import Pipeline
from kernel.errors import DataplaneError
from kernel.link import Link
from kernel.monitor import (
    AddressAdded,
    AddressGone,
    KernelEvent,
    LinkChanged,
    LinkGone,
    ResyncNeeded,
    RouteGone,
    RouteWritten,
)
from resources.datastore.keys import ResourceKey
from resources.datastore.sync import Changes, InSync, OutOfSync, SyncMessage
from resources.kinds.clusterinformation import KIND as CLUSTER_INFORMATION
from resources.kinds.clusterinformation import NAME as CLUSTER_INFORMATION_NAME
from resources.kinds.clusterinformation import ClusterInformation
from resources.names import IfName, IPAddress
from resources.runtime.backoff import Backoff
from resources.runtime.health import Health
from resources.typed_sync import TypedChange, TypedReader

DATASTORE, FIRST_APPLY = "the datastore", "the first apply"
FOREIGN_CHANGES_SECONDS = 0.5
"""How often we ask whether somebody else changed rules; the question takes some 20 microseconds."""
RESTART_STATUS = 129
"""Exit status that means: start me again with the new settings (reference felix.md 5)."""
READY_FLAG = ResourceKey(CLUSTER_INFORMATION.plural, CLUSTER_INFORMATION_NAME)


@dataclass(frozen=True, slots=True)
class FlowsDeleted:
    """The connections of an address are deleted, or could not be."""

    address: IPAddress
    failure: DataplaneError | None


Message = SyncMessage | KernelEvent | FlowsDeleted


class Agent:
    """All state of felix. `handle` is called by one thread only."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        reader: TypedReader,
        dataplane: Dataplane,
        read_links: Callable[[], Mapping[IfName, Link]],
        health: Health,
        end: Callable[[int], None],
        monotonic: Callable[[], float],
        backoff: Backoff | None = None,
    ) -> None:
        """`end` makes the process end with a status after the batch under way."""
        self._pipeline = pipeline
        self._reader = reader
        self._dataplane = dataplane
        self._read_links = read_links
        self._health = health
        self._end = end
        self._monotonic = monotonic
        self._backoff = backoff or Backoff(0.1, 10.0)
        self._log = structlog.get_logger().bind(component="felix")
        self._in_sync = False
        self._ready: bool | None = None
        self._dirty = True
        self._retry_at: float | None = None
        self._due: dict[str, float] = {}
        self._structure: tuple[object, ...] | None = None
        self._failing: frozenset[str] = frozenset()
        self._origins: Mapping[str, str] = {}
        self._known: Parameters | None = None
        self._problems: dict[str, tuple[str, ...]] = {}
        self._endpoints: dict[IfName, tuple[str, ...]] = {}
        health.wait_for(DATASTORE)
        health.wait_for(FIRST_APPLY)

    @property
    def is_acting(self) -> bool:
        """Whether the kernel may be changed."""
        return self._in_sync and self._ready is True

    def handle(self, messages: Sequence[Message]) -> float | None:
        """Take what was heard, bring the kernel up to date, and return the seconds until the next look."""
        for message in messages:
            self._hear(message)
        if not self.is_acting:
            return None
        now = self._monotonic()
        self._look_around(now)
        update = self._pipeline.flush()
        if update.parameters is not None:
            self._take_parameters(update.parameters)
        if update.problems:
            self._tell_problems(update.problems)
        if update.sets or update.chains or update.kernel_chains or update.interfaces:
            self._dirty = True
            self._dataplane.want(update)
            for name, interface in update.interfaces.items():
                if interface is None:
                    self._endpoints.pop(name, None)
                else:
                    self._endpoints[name] = tuple(sorted(str(a.network_address) for a in interface.addresses))
        if self._dirty or (self._retry_at is not None and now >= self._retry_at):
            self._apply()
        return self._wait()

    def state(self) -> dict[str, object]:
        """Return what felix is at, for people; called from another thread, so it copies."""
        endpoints = dict(self._endpoints)
        return {
            "acting": self.is_acting,
            "in_sync": self._in_sync,
            "datastore_ready": self._ready,
            "endpoints": {
                name: {"addresses": list(addresses), "programmed": self._dataplane.is_programmed(name)}
                for name, addresses in sorted(endpoints.items())
            },
            "failing": sorted(self._failing),
            "problems": {key: list(texts) for key, texts in sorted(dict(self._problems).items())},
        }

    # --- what is heard -------------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        match message:
            case Changes(changes):
                for change in self._reader.read_all(changes):
                    self._take(change)
            case InSync():
                self._log.info("datastore.in_sync")
                self._in_sync = self._dirty = True
                self._health.done(DATASTORE)
                if self._ready is not True:
                    # this state is wanted during upgrades: live and ready, doing nothing (felix.md 1.3)
                    self._log.warning("datastore.not_ready", ready=self._ready, effect="the kernel stays as it is")
                    self._health.done(FIRST_APPLY)
            case OutOfSync(reason):
                self._log.warning("datastore.away", error=reason, effect="the dataplane keeps what it has")
            case LinkChanged(link):
                self._dataplane.link_changed(link.name, link)
                self._dirty = True
            case LinkGone(name):
                self._dataplane.link_changed(name, None)
                self._dirty = True
            case RouteWritten(key, route):
                self._dataplane.route_changed(key, route, gone=False)
                self._dirty = True
            case RouteGone(key, route):
                self._dataplane.route_changed(key, route, gone=True)
                self._dirty = True
            case ResyncNeeded(reason):
                self._log.info("kernel.events_lost", reason=reason)
                self.see_interfaces()
                self._dataplane.resync_routes()
                self._dirty = True
            case FlowsDeleted(address, failure):
                if failure is not None:
                    self._log.error("flows.delete_failed", address=str(address), error=str(failure))
                self._dataplane.flows_deleted(address)
                self._dirty = True
            case AddressAdded() | AddressGone():
                pass  # host endpoints will need them

    def _take(self, change: TypedChange) -> None:
        if change.bad is not None:
            effect = "a Deny stands in its place" if change.value is not None else "it is skipped"
            self._log.error("record.unreadable", key=str(change.key), error=str(change.bad), effect=effect)
        if change.key == READY_FLAG:
            self._take_ready_flag(change.value)
        elif change.key.plural in self._pipeline.plurals:
            self._pipeline.update(change.key, change.value)

    def _take_ready_flag(self, value: object) -> None:
        ready = isinstance(value, ClusterInformation) and value.ready
        if self._ready and not ready:
            self._log.warning("datastore.locked", effect="felix ends and waits; the dataplane stays as it is")
            self._end(RESTART_STATUS)
        elif ready and not self._ready and self._in_sync:
            self._log.info("datastore.ready")
            self._dirty = True
        self._ready = ready

    def _take_parameters(self, resolved: Resolved) -> None:
        for refused in resolved.refused:
            self._log.error(
                "setting.refused", name=refused.option, value=refused.value, origin=refused.origin, error=refused.reason
            )
        before, self._known = self._known, resolved.parameters
        for name, origin in resolved.origins.items():
            if before is None or self._origins.get(name) != origin:
                self._log.info("setting.effective", name=name, value=resolved.text(name), origin=origin)
        self._origins = dict(resolved.origins)
        structure = structure_of(resolved.parameters)
        if self._structure is not None and structure != self._structure:
            self._log.warning("setting.restart_needed", effect="felix ends and is started again; traffic goes on")
            self._end(RESTART_STATUS)
        self._structure = structure

    def _tell_problems(self, problems: Mapping[ResourceKey, tuple[str, ...]]) -> None:
        for key, texts in problems.items():
            if texts:
                self._problems[str(key)] = texts
                self._log.error("record.trouble", key=str(key), error="; ".join(texts))
            elif self._problems.pop(str(key), None):
                self._log.info("record.mended", key=str(key))

    # --- the dataplane -------------------------------------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        """Let the effectors read back what is due, by the clock or because somebody else changed rules."""
        parameters = self._pipeline.parameters
        for name, interval, resync in (
            ("sets", parameters.sets_refresh_seconds, self._dataplane.resync_sets),
            ("tables", parameters.tables_refresh_seconds, self._dataplane.resync_tables),
            ("routes", parameters.routes_refresh_seconds, self._dataplane.resync_routes),
            ("interfaces", parameters.interfaces_refresh_seconds, self.see_interfaces),
        ):
            if interval > 0 and now >= self._due.setdefault(name, now + interval):
                self._due[name] = now + interval
                resync()
                self._dirty = True
        if self._dataplane.notice_foreign_changes():
            self._log.info("rules.changed_by_others", effect="all tables are read back")
            self._dirty = True

    def see_interfaces(self) -> None:
        """Read all interfaces; to be called once before the first message."""
        try:
            self._dataplane.links_changed(self._read_links())
        except DataplaneError as error:
            self._log.warning("interfaces.read_failed", error=str(error), retry="next_refresh")

    def _apply(self) -> None:
        started = self._monotonic()
        report = self._dataplane.apply()
        took_ms = round((self._monotonic() - started) * 1000, 1)
        self._dirty = False
        self._tell(report, took_ms)
        if report.is_clean:
            self._retry_at = None
            self._backoff.reset()
        else:
            self._retry_at = self._monotonic() + self._backoff.next()
        if report.tables_written and not (report.failed.keys() & {"set", "route"}):
            self._health.done(FIRST_APPLY)

    def _tell(self, report: Report, took_ms: float) -> None:
        for thing, error in report.failed.items():
            if thing not in self._failing:
                self._log.warning("dataplane.failed", what=thing, error=str(error), hint=error.hint, retry="soon")
        for thing in self._failing - report.failed.keys():
            self._log.info("dataplane.recovered", what=thing)
        self._failing = frozenset(report.failed)
        self._log.info("dataplane.applied", took_ms=took_ms, failed=len(report.failed))

    def _wait(self) -> float:
        now = self._monotonic()
        times = [now + FOREIGN_CHANGES_SECONDS, *self._due.values()]
        if self._retry_at is not None:
            times.append(self._retry_at)
        return max(0.0, min(times) - now)


def structure_of(parameters: Parameters) -> tuple[object, ...]:
    """Return the settings that the effectors are built with: a change of one restarts felix."""
    return (
        parameters.set_size_max,
        parameters.interface_prefixes,
        parameters.route_protocol,
        parameters.route_source,
        parameters.remove_external_routes,
        parameters.ip_forwarding,
        parameters.backend,
        parameters.reporting_seconds,
        parameters.reporting_ttl_seconds,
    )
