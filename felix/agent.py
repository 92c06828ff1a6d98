"""Felix's owner thread: what it hears goes into the pipeline, what comes out goes into the dataplane.

Nothing in the kernel changes before the store is in sync and its ready flag is set: there is no dataplane until then. A
flag that is taken back later ends the process, which then waits for it again (reference felix.md 1.3, 1.8).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import structlog

from felix.calc.parameters import Parameters, Resolved
from felix.dataplane.driver import Dataplane, Report
from felix.dataplane.tables import Drift
from felix.desired import LocalInterface, Update
from felix.host_interfaces import HostInterfaces
from felix.pipeline import Pipeline
from felix.withheld import Withheld
from kernel.errors import DataplaneError
from kernel.link import Link, LinkAddress
from kernel.monitor import (
    AddressAdded,
    AddressGone,
    KernelEvent,
    LinkChanged,
    LinkGone,
    NeighbourChanged,
    ResyncNeeded,
    RouteGone,
    RouteWritten,
    RulesChanged,
)
from resources.blocks import BlockView, MalformedRecord, block_view
from resources.datastore.keys import ResourceKey, parse_block_key
from resources.datastore.sync import Change, Changes, InSync, OutOfSync, SyncMessage
from resources.kinds.clusterinformation import KIND as CLUSTER_INFORMATION
from resources.kinds.clusterinformation import NAME as CLUSTER_INFORMATION_NAME
from resources.kinds.clusterinformation import ClusterInformation
from resources.names import IfName, IPAddress, IPNetwork, NodeName
from resources.runtime.backoff import Backoff
from resources.runtime.health import Health
from resources.runtime.options import Source
from resources.typed_sync import TypedChange, TypedReader

DATASTORE, DATAPLANE = "the datastore", "the dataplane to be written"
REPAIR_SECONDS = 0.5
"""Rules that somebody else changed are read back at once, but no more often than this."""
SWEEP_SECONDS = 0.1
"""Sets that nobody wants any more go in rounds, this far apart (reference felix.md 1.5)."""
POLICIES = ("globalnetworkpolicies", "networkpolicies")
REPEAT_SECONDS = 60.0
"""What is repaired again and again in the same way is told of no more often than this."""
RESTART_STATUS = 129
"""Exit status that means: start me again with the new settings (reference felix.md 5)."""
READY_FLAG = ResourceKey(CLUSTER_INFORMATION.plural, CLUSTER_INFORMATION_NAME)


@dataclass(frozen=True, slots=True)
class FlowsDeleted:
    """The connections of an address are deleted, or could not be."""

    address: IPAddress
    failure: DataplaneError | None


@dataclass(frozen=True, slots=True)
class Lacking:
    """A setting that cannot be had: what it is instead, why, and the way out."""

    instead: str
    error: str
    hint: str


Message = SyncMessage | KernelEvent | FlowsDeleted


class Agent:
    """All state of felix. `handle` is called by one thread only."""

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        reader: TypedReader,
        build: Callable[[Parameters], Dataplane],
        follow: Callable[[Parameters], None],
        read_links: Callable[[], Mapping[IfName, Link]],
        read_addresses: Callable[[], Iterable[LinkAddress]],
        health: Health,
        end: Callable[[int], None],
        monotonic: Callable[[], float],
        lacking: Callable[[Parameters], Mapping[str, Lacking]] = lambda _: {},
        backoff: Backoff | None = None,
    ) -> None:
        """Take the parts.

        Args:
            build: makes the dataplane, once, when the settings are known and the kernel may be changed.
            follow: is told the settings whenever they change, for what is live beside the dataplane.
            read_links: returns all interfaces. It is first called after the kernel's events are being heard.
            read_addresses: returns the addresses of all interfaces.
            end: makes the process end with a status after the batch under way.
            lacking: returns what of the settings this kernel cannot do and felix can do without, by option.
        """
        self._pipeline = pipeline
        self._reader = reader
        self._build = build
        self._follow = follow
        self._read_links = read_links
        self._read_addresses = read_addresses
        self._health = health
        self._end = end
        self._monotonic = monotonic
        self._lacking = lacking
        self._without: dict[str, str] = {}
        self._backoff = backoff or Backoff(0.1, 10.0)
        self._log = structlog.get_logger()
        self._dataplane: Dataplane | None = None
        self._interfaces = HostInterfaces()
        self._links: Mapping[IfName, Link] | None = None
        self._in_sync = False
        self._ready: bool | None = None
        self._away: str | None = None
        self._revision = self._applied_revision = 0
        self._ending = False
        self._interfaces_seen = False
        self._dirty = True
        self._retry_at: float | None = None
        self._repair_at = 0.0
        self._repairing = False
        self._repairs: dict[str, tuple[str, float]] = {}
        self._repaired: dict[str, tuple[int, str]] = {}
        self._due: dict[str, float] = {}
        self._failing: frozenset[str] = frozenset()
        self._troubles: Mapping[str, str] = {}
        self._settings: dict[str, tuple[str, str]] = {}
        self._known: Parameters | None = None
        self._problems: dict[str, tuple[str, ...]] = {}
        self._unreadable: dict[str, str] = {}
        self._withheld = Withheld()
        self._errors: dict[str, str] = {}
        self._endpoints: dict[IfName, tuple[str, ...]] = {}
        self._host_endpoints: dict[IfName, str] = {}
        health.wait_for(DATASTORE)
        health.wait_for(DATAPLANE)

    @property
    def is_acting(self) -> bool:
        """Whether the kernel may be changed."""
        return self._in_sync and self._ready is True and not self._ending

    @property
    def has_rules(self) -> bool:
        """Whether the rules in the kernel are this process's, or become so."""
        return self._dataplane is not None

    def handle(self, messages: Sequence[Message]) -> float | None:
        """Take what was heard, bring the kernel up to date, and return the seconds until the next look."""
        for message in messages:
            self._hear(message)
        if not self.is_acting:
            return None
        now = self._monotonic()
        is_retry = self._retry_at is not None and now >= self._retry_at
        if not self._interfaces_seen and (self._retry_at is None or is_retry):
            self._see_interfaces()
        for name, addresses in self._interfaces.take_changes(now).items():
            self._pipeline.set_interface(name, addresses)
        updates = self._flush()
        for update in updates:
            self._tell_problems(update.problems)
            if update.parameters is not None:
                self._take_parameters(update.parameters)
                if self._ending:
                    return None
        dataplane = self._dataplane = self._dataplane or self._build(self._pipeline.parameters)
        if self._links is not None:
            dataplane.links_changed(self._links)
            self._links = None
        for update in updates:
            self._want(dataplane, update)
        self._look_around(dataplane, now)
        if self._interfaces_seen and (self._dirty or is_retry):
            self._apply(dataplane)
        if not self._dirty and not self._failing:
            self._applied_revision = self._revision
        return self._wait()

    def _flush(self) -> list[Update]:
        """Conclude; and once more, if this kernel cannot do what the settings ask for."""
        update = self._pipeline.flush()
        lacking = self._lacking(update.parameters.parameters) if update.parameters is not None else {}
        if not lacking:
            return [update]
        for name, lack in lacking.items():
            self._without[name] = lack.error
            effect = f"{name} is {lack.instead} until felix is started again"
            self._log.error("setting.unsupported", name=name, error=lack.error, hint=lack.hint, effect=effect)
        self._pipeline.limit(Source("this kernel", {name: lack.instead for name, lack in lacking.items()}))
        return [replace(update, parameters=None), self._pipeline.flush()]

    def _want(self, dataplane: Dataplane, update: Update) -> None:
        self._tell_withheld(update.remote.withheld, self._monotonic())
        if update.is_for_the_kernel:
            self._dirty = True
            dataplane.want(update)
            self._note_endpoints(update.interfaces)
        for name, host_endpoint in update.host_endpoints.items():
            if host_endpoint is None:
                self._host_endpoints.pop(name, None)
            else:
                self._host_endpoints[name] = host_endpoint

    def _note_endpoints(self, interfaces: Mapping[IfName, LocalInterface | None]) -> None:
        for name, interface in interfaces.items():
            if interface is None:
                self._endpoints.pop(name, None)
            else:
                self._endpoints[name] = tuple(sorted(str(a.network_address) for a in interface.addresses))

    def state(self) -> dict[str, object]:
        """Return what felix is at, for people; called from another thread, so it copies.

        `revision`: the kernel is as the store said at this revision of it. `repaired`: how often each table of rules,
        set or VXLAN device was put right since the start, and what had been found the last time.
        """
        endpoints, host_endpoints, dataplane = dict(self._endpoints), dict(self._host_endpoints), self._dataplane
        repaired = dict(self._repaired)
        return {
            "acting": self.is_acting,
            "in_sync": self._in_sync,
            "datastore_ready": self._ready,
            "datastore_away": self._away,
            "revision": self._applied_revision,
            "endpoints": {
                name: {
                    "addresses": list(addresses),
                    "programmed": dataplane is not None and dataplane.is_programmed(name),
                }
                for name, addresses in sorted(endpoints.items())
            },
            "host_endpoints": dict(sorted(host_endpoints.items())),
            "failing": sorted(self._failing),
            "errors": dict(sorted(self._errors.copy().items())),
            "withheld": self._withheld.texts,
            "without": dict(self._without),
            "repaired": {t: {"times": times, "found": found} for t, (times, found) in sorted(repaired.items())},
            "tunnels": {} if dataplane is None else dataplane.tunnels(),
            "troubles": dict(self._troubles),
            "problems": self._all_problems(),
        }

    def _all_problems(self) -> dict[str, list[str]]:
        """Return what is wrong with records of the store, by key; called from another thread."""
        found = {key: list(texts) for key, texts in dict(self._problems).items()}
        for key, text in dict(self._unreadable).items():
            found.setdefault(key, []).insert(0, text)
        return dict(sorted(found.items()))

    # --- what is heard -------------------------------------------------------------------------------------------

    def _hear(self, message: Message) -> None:
        match message:
            case Changes(changes):
                self._revision = max(self._revision, *(change.revision for change in changes))
                for change in changes:
                    if (typed := self._reader.read(change)) is not None:
                        self._take(typed)
                    elif (cidr := parse_block_key(change.key)) is not None:
                        self._take_block(cidr, change)
            case InSync():
                self._take_in_sync()
            case OutOfSync(reason):
                self._away = reason
                self._log.warning("datastore.away", error=reason, effect="the dataplane keeps what it has")
            case FlowsDeleted(address, failure):
                self._take_flows(address, failure)
            case _:
                if self._dataplane is not None:  # until there is one nobody needs to know: it begins with a full read
                    self._hear_kernel(self._dataplane, message)

    def _hear_kernel(self, dataplane: Dataplane, event: KernelEvent) -> None:
        match event:
            case LinkChanged(link):
                self._interfaces.link_changed(link)
                dataplane.link_changed(link.name, link)
                self._dirty = True
            case LinkGone(name):
                self._interfaces.link_gone(name)
                dataplane.link_changed(name, None)
                self._dirty = True
            case RouteWritten(key, route):
                dataplane.route_changed(key, route, gone=False)
                self._dirty = True
            case RouteGone(key, route):
                dataplane.route_changed(key, route, gone=True)
                self._dirty = True
            case NeighbourChanged(device, entry, gone):
                self._dirty |= dataplane.neighbour_changed(device, entry, gone=gone)
            case ResyncNeeded(reason):
                self._log.info("kernel.events_lost", reason=reason)
                self._see_interfaces()
                dataplane.resync_routes()
                self._dirty = True
            case RulesChanged():
                pass  # whether it was somebody else is asked at every turn
            case AddressAdded(address):
                self._interfaces.address_added(address)
                self._dirty |= dataplane.address_changed(address)
            case AddressGone(address):
                self._interfaces.address_gone(address, self._monotonic())
                self._dirty |= dataplane.address_changed(address)
            case _:
                assert_never(event)

    def _take_in_sync(self) -> None:
        self._log.info("datastore.in_sync")
        self._in_sync, self._away = True, None
        self._health.done(DATASTORE)
        if self._ready is not True:
            # this state is wanted during upgrades: live and ready, doing nothing (felix.md 1.3)
            self._log.warning("datastore.not_ready", ready=self._ready, effect="the kernel stays as it is")
            self._health.done(DATAPLANE)

    def _take_flows(self, address: IPAddress, failure: DataplaneError | None) -> None:
        if self._dataplane is None:
            return
        self._dataplane.flows_deleted(address, failure)
        if failure is None:
            self._dirty = True
        else:
            effect = "no new route to the address until they can be deleted"
            self._log.error(
                "flows.delete_failed", address=str(address), error=str(failure), hint=failure.hint, effect=effect
            )
            self._retry_later()

    def _take(self, change: TypedChange) -> None:
        if change.bad is not None:
            stands = "a Deny" if change.key.plural in POLICIES else "what can be read of it, and nothing open,"
            effect = f"{stands} stands in its place" if change.value is not None else "it is skipped"
            self._unreadable[str(change.key)] = f"{effect}: {change.bad}"
            self._log.error("record.unreadable", key=str(change.key), error=str(change.bad), effect=effect)
        elif self._unreadable.pop(str(change.key), None):
            self._log.info("record.mended", key=str(change.key))
        if change.key == READY_FLAG:
            self._take_ready_flag(change.value)
        elif change.key.plural in self._pipeline.plurals:
            self._pipeline.update(change.key, change.value)

    def _take_block(self, cidr: IPNetwork, change: Change) -> None:
        block: BlockView | None = None
        trouble: str | None = None
        if change.value is not None:
            try:
                block = block_view(cidr, change.value)
            except MalformedRecord as error:
                trouble = f"the block {cidr} cannot be read, so there is no route to it: {error}"
        if trouble is not None:
            self._unreadable[change.key] = trouble
            self._log.error("record.unreadable", key=change.key, error=trouble, effect="it is skipped")
        elif self._unreadable.pop(change.key, None):
            self._log.info("record.mended", key=change.key)
        self._pipeline.set_block(cidr, block)

    def _take_ready_flag(self, value: object) -> None:
        ready = isinstance(value, ClusterInformation) and value.ready
        if self._ready and not ready:
            self._log.warning("datastore.locked", effect="felix ends and waits; the dataplane stays as it is")
            self._end_with(RESTART_STATUS)
        elif ready and not self._ready and self._in_sync:
            self._log.info("datastore.ready")
        self._ready = ready

    def _end_with(self, status: int) -> None:
        self._ending = True
        self._end(status)

    def _take_parameters(self, resolved: Resolved) -> None:
        for refused in resolved.refused:
            self._log.error(
                "setting.refused", name=refused.option, value=refused.value, origin=refused.origin, error=refused.reason
            )
        parameters = resolved.parameters
        before, self._known = self._known, parameters
        for name, origin in resolved.origins.items():
            setting = (resolved.text(name), origin)
            if self._settings.get(name) != setting:
                self._settings[name] = setting
                self._log.info("setting.effective", name=name, value=setting[0], origin=origin)
        if before is not None and structure_of(parameters) != structure_of(before):
            self._log.warning("setting.restart_needed", effect="felix ends and is started again; traffic goes on")
            self._end_with(RESTART_STATUS)
            return
        self._due.clear()  # the intervals may be others
        self._follow(parameters)

    def _tell_problems(self, problems: Mapping[ResourceKey, tuple[str, ...]]) -> None:
        for key, texts in problems.items():
            if texts:
                self._problems[str(key)] = texts
                self._log.error("record.trouble", key=str(key), error="; ".join(texts))
            elif self._problems.pop(str(key), None):
                self._log.info("record.mended", key=str(key))

    def _tell_withheld(self, changes: Mapping[NodeName, str | None], now: float) -> None:
        for name in self._withheld.take(changes, now):
            self._log.info("routes.no_longer_withheld", node=name)
        for name, text in self._withheld.lasting(now).items():
            self._log.error("routes.withheld", node=name, error=text)

    # --- the dataplane -------------------------------------------------------------------------------------------

    def _look_around(self, dataplane: Dataplane, now: float) -> None:
        """Let the effectors read back what is due, by the clock or because somebody else changed rules."""
        parameters = self._pipeline.parameters
        for name, interval, resync in (
            ("sets", parameters.sets_refresh_seconds, dataplane.resync_sets),
            ("tables", parameters.tables_refresh_seconds, dataplane.resync_tables),
            ("routes", parameters.routes_refresh_seconds, dataplane.resync_routes),
            ("interfaces", parameters.interfaces_refresh_seconds, self._see_interfaces),
        ):
            if interval > 0 and now >= self._due.setdefault(name, now + interval):
                self._due[name] = now + interval
                resync()
                self._dirty = True
        self._dirty |= dataplane.due_in == 0 and self._retry_at is None  # what failed is not tried without a pause
        if now >= self._repair_at and dataplane.notice_foreign_changes():
            self._repair_at = now + REPAIR_SECONDS
            self._log.debug("rules.changed_by_others", effect="all tables are read back")
            self._dirty = self._repairing = True

    def _see_interfaces(self) -> None:
        """Read all interfaces. Nothing is written before that: routes of interfaces not seen would be removed."""
        try:
            links = self._read_links()
            self._interfaces.read(links, self._read_addresses())
        except DataplaneError as error:
            self._log.warning("interfaces.read_failed", error=str(error), retry="soon")
            self._interfaces_seen = False
            self._retry_later()
            return
        if self._dataplane is None:
            self._links = links
        else:
            self._dataplane.links_changed(links)
        self._interfaces_seen = self._dirty = True

    def _apply(self, dataplane: Dataplane) -> None:
        started = self._monotonic()
        report = dataplane.apply()
        took_ms = round((self._monotonic() - started) * 1000, 1)
        self._dirty = False
        self._tell(report, took_ms)
        if report.failed:
            self._retry_later()
        else:
            self._backoff.reset()
            self._retry_at = self._monotonic() + SWEEP_SECONDS if report.unswept else None
        if report.tables_written and not (report.failed.keys() & {"set", "route"}):
            self._health.done(DATAPLANE)
        else:
            self._health.wait_for(DATAPLANE)

    def _retry_later(self) -> None:
        self._retry_at = self._monotonic() + self._backoff.next()

    def _tell(self, report: Report, took_ms: float) -> None:
        for thing, error in report.failed.items():
            if thing not in self._failing:
                self._log.warning("dataplane.failed", what=thing, error=str(error), hint=error.hint, retry="soon")
        for thing in self._failing - report.failed.keys():
            self._log.info("dataplane.recovered", what=thing)
        self._failing = frozenset(report.failed)
        self._errors = {thing: _with_hint(error) for thing, error in report.failed.items()}
        for table, drift in report.repaired.items():
            effect = "they are as they should be; foreign rules stay"
            self._tell_repair(table, drift, "rules.repaired", effect=effect, table=table)
        for name, drift in report.repaired_sets.items():
            effect = "it is as it should be; rules with it were wrong until now"
            self._tell_repair(f"set {name}", drift, "set.repaired", effect=effect, set=name)
        for name, drift in report.repaired_tunnels.items():
            effect = "it is as it should be; packets to other hosts may have been lost until now"
            self._tell_repair(f"tunnel {name}", drift, "tunnel.repaired", effect=effect, tunnel=name)
        self._tell_troubles()
        tell = self._log.info if report.written else self._log.debug
        cause = {"cause": "rules changed by others"} if self._repairing else {}
        self._repairing = False
        tell("dataplane.applied", **cause, **report.written, failed=len(report.failed), took_ms=took_ms)

    def _tell_troubles(self) -> None:
        troubles = self._dataplane.troubles() if self._dataplane is not None else {}
        for what, trouble in troubles.items():
            if self._troubles.get(what) != trouble:
                self._log.error("tunnel.unavailable", tunnel=what, error=trouble, effect="its routes are withheld")
        for what in self._troubles.keys() - troubles.keys():
            self._log.info("tunnel.trouble_over", tunnel=what)
        self._troubles = troubles

    def _tell_repair(self, what: str, drift: Drift, event: str, *, effect: str, **place: str) -> None:
        """Say what others had done; somebody who does the same again and again is told of once a minute."""
        self._repaired[what] = self._repaired.get(what, (0, ""))[0] + 1, drift.found
        now = self._monotonic()
        if self._repairs.get(what, ("", 0.0))[0] == drift.found and now < self._repairs[what][1]:
            self._log.debug(event, **place, found=drift.found)
            return
        self._repairs[what] = drift.found, now + REPEAT_SECONDS
        tell = self._log.warning if drift.lost else self._log.info
        tell(event, **place, found=drift.found, effect=effect)

    def _wait(self) -> float | None:
        """Return the seconds until something is due by the clock."""
        if self._interfaces.has_changes:
            return 0.0
        now = self._monotonic()
        times = [*self._due.values()]
        if self._retry_at is not None:
            times.append(self._retry_at)
        times += [due for due in (self._interfaces.due, self._withheld.due) if due is not None]
        if now < self._repair_at:
            times.append(self._repair_at)  # what changed meanwhile was not asked for
        if self._dataplane is not None:
            waits = (self._dataplane.poll_seconds, self._dataplane.due_in if self._retry_at is None else None)
            times += [now + wait for wait in waits if wait is not None]
        return max(0.0, min(times) - now) if times else None


def _with_hint(error: DataplaneError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)


def structure_of(parameters: Parameters) -> tuple[object, ...]:
    """Return the settings that the effectors are built with: a change of one restarts felix."""
    return (
        parameters.set_size_max,
        parameters.interface_prefixes,
        parameters.route_protocol,
        parameters.route_source,
        parameters.remove_external_routes,
        parameters.ip_forwarding,
        parameters.ipv6,
        parameters.backend,
    )
