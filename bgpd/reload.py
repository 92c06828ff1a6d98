"""A change of ExaBGP's configuration on its way: checked, given to it in a quiet moment, seen to have been taken.

ExaBGP forgets a signal that comes while it still sends routes, and a file that it cannot read poisons later reloads
(reference bgp.md 2.3 and 3.6). Time is an argument.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from bgpd.messages import Neighbour
from bgpd.plan import Found, Plan, sections, visible
from resources.names import IPAddress

QUIET_SECONDS = 0.1
"""After the last answer: ExaBGP forgets a reload while it still sends routes (reference bgp.md 2.3)."""
CONFIRM_EVERY_SECONDS = 0.3
CONFIRM_WITHIN_SECONDS = 2.0
SIGNALS_MAX = 3
CHECK_AGAIN_SECONDS = 10.0
"""After a check that could not be made: the host was short of something."""


class Reloadable(Protocol):
    """What this needs of an ExaBGP (bgpd.speaker.Child)."""

    def validate(self, configuration: str, environment: Mapping[str, str]) -> None: ...
    def install(self, configuration: str) -> None: ...
    def reload(self) -> None: ...
    def note(self, found: Found) -> None: ...


@dataclass(frozen=True, slots=True)
class Applied:
    """ExaBGP runs with the plan of this digest."""

    digest: str


@dataclass(frozen=True, slots=True)
class Refused:
    """ExaBGP does not take the plan of this digest and goes on with what it has."""

    digest: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """Nobody could say whether ExaBGP takes the plan of this digest; that is tried again."""

    digest: str
    reason: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Untaken:
    """ExaBGP does not take a plan that it was signalled again and again to read."""


class Step(Enum):
    """Where a change is."""

    NONE = "none"
    VALIDATING = "validating"
    WAITING = "waiting for quiet"
    SIGNALLED = "signalled"


class Reload:
    """What ExaBGP runs with, what it is to run with, and the way from the one to the other."""

    def __init__(self, child: Reloadable) -> None:
        self._child = child
        self.wanted: Plan | None = None
        self.running: Found | None = None
        self.count = 0
        """How often ExaBGP took a configuration over while it ran."""
        self._step = Step.NONE
        self._target: Plan | None = None
        self._seen: Mapping[IPAddress, tuple[object, ...]] = {}
        """What ExaBGP showed of its sessions last."""
        self._signals = 0
        self._signals_needed = 1
        self._quiet_since: float | None = None
        self._signalled_at = 0.0
        self._confirm_at = 0.0
        self._asked_at: float | None = None
        """When it was asked whether it has the new configuration, while the answer is due."""
        self._sound: frozenset[str] = frozenset()
        """Sections that ExaBGP is known to take."""
        self._installed = ""
        """Digest of the file that it reads at a signal, which may yet come; empty: that which it was started with."""
        self._refused: str | None = None
        self._check_at: float | None = None
        """When to try again what could not be checked."""
        self._good: Plan | None = None
        """The last plan that ExaBGP ran with."""

    # --- what is ------------------------------------------------------------------------------------------------------

    @property
    def is_settled(self) -> bool:
        """Whether ExaBGP runs with the wanted plan, or has refused it."""
        return (
            self._step is Step.NONE
            and self.wanted is not None
            and self.running is not None
            and self.wanted.digest in (self.running.configuration, self._refused)
        )

    @property
    def is_current(self) -> bool:
        """Whether ExaBGP runs with the wanted plan, as far as is known."""
        return self.wanted is not None and self._runs(self.wanted)

    @property
    def has_signalled(self) -> bool:
        """Whether ExaBGP has been told to take another configuration, so that it cannot be called back."""
        return self._step is Step.SIGNALLED

    @property
    def needs_restart(self) -> bool:
        """Whether what is wanted takes another environment, which only a new ExaBGP gets."""
        return (
            self._step is Step.NONE
            and self.wanted is not None
            and self.running is not None
            and self.wanted.digest != self._refused
            and self.running.environment != self.wanted.environment_digest
        )

    def has_shown(self, peer: IPAddress) -> bool:
        """Return whether ExaBGP had a session with `peer` configured when it was looked at last."""
        return peer in self._seen

    def _runs(self, plan: Plan) -> bool:
        return self.running is not None and self.running.configuration == plan.digest

    # --- what happens to ExaBGP ---------------------------------------------------------------------------------------

    def to_start_with(self) -> Plan | None:
        """Return the wanted plan, or the last good one if ExaBGP has refused that."""
        if self.wanted is not None and self.wanted.digest == self._refused and self._good is not None:
            return self._good
        return self.wanted

    def note_started(self, pid: int, plan: Plan) -> None:
        self._installed = plan.digest
        self.running = Found(pid, plan.digest, plan.environment_digest)
        self._child.note(self.running)

    def show(self, rows: Iterable[Neighbour]) -> None:
        """Take what ExaBGP shows of its sessions."""
        self._seen = {row.peer: visible(row) for row in rows}

    def note_synced(self) -> None:
        """Take it that ExaBGP runs and answers."""
        if self.wanted is not None and self.is_current:
            self._good, self._sound = self.wanted, sections(self.wanted.configuration)

    def interrupt(self) -> None:
        """Give up the change on its way: nobody is there to take it."""
        self._step, self._check_at = Step.NONE, None

    # --- a change -----------------------------------------------------------------------------------------------------

    def advance(self, now: float, *, is_quiet: bool) -> bool:
        """Do what is due, while ExaBGP is ready; return whether to ask it for its sessions, for `on_rows`."""
        plan = self.wanted
        if plan is None or self.running is None:
            return False
        match self._step:
            case Step.NONE if self._check_at is not None and now < self._check_at:
                pass
            case Step.NONE if plan.digest not in (self.running.configuration, self._refused):
                self._aim(plan)
            case Step.NONE:
                self._check_at = None
            case Step.WAITING if self._would_end_wanted:
                self._aim(plan)
            case Step.WAITING:
                self._signal_when_quiet(now, is_quiet=is_quiet)
            case Step.SIGNALLED if now >= self._confirm_at and self._asked_at is None:
                # one that is slow to answer is not asked again meanwhile
                self._asked_at = now
                return True
            case _:
                pass
        return False

    def due(self, now: float) -> float | None:
        """Return when `advance` has something to do, or None."""
        if self._step is Step.NONE:
            return self._check_at
        if self._step is Step.WAITING:
            return now + QUIET_SECONDS / 2
        return self._confirm_at if self._step is Step.SIGNALLED and self._asked_at is None else None

    def on_validated(self, checked: str, fault: str | None, now: float, *, is_quiet: bool) -> Refused | None:
        """Take what ExaBGP says of the configuration of this digest."""
        if self._step is not Step.VALIDATING or self._target is None or checked != self._target.digest:
            return None
        if fault is not None:
            self._step, self._refused = Step.NONE, checked
            return Refused(checked, fault)
        self._sound = sections(self._target.configuration)
        if self.wanted is not None and self._would_end_wanted:
            self._aim(self.wanted)
        else:
            self._wait_with(self._target)
            self._signal_when_quiet(now, is_quiet=is_quiet)
        return None

    def on_unchecked(self, digest: str, fault: str, now: float) -> Unchecked | None:
        """Take it that the configuration of this digest could not be checked, for no fault of its own."""
        if self._step is not Step.VALIDATING or self._target is None or digest != self._target.digest:
            return None
        self._step, self._check_at = Step.NONE, now + CHECK_AGAIN_SECONDS
        return Unchecked(digest, fault, CHECK_AGAIN_SECONDS)

    def on_rows(self, rows: Iterable[Neighbour], now: float) -> Applied | Untaken | None:
        """Take the answer to what `advance` wanted to be asked."""
        if self._target is None or self.running is None or self._asked_at is None:
            return None
        asked_at, self._asked_at, self._confirm_at = self._asked_at, None, now + CONFIRM_EVERY_SECONDS
        self.show(rows)
        if self._seen != self._target.visible:
            return self._on_untaken(asked_at, now)
        if self._signals < self._signals_needed:
            self._signal(now)
            return None
        self.running = Found(self.running.pid, self._target.digest, self._target.environment_digest)
        self._child.note(self.running)
        self._step, self._good = Step.NONE, self._target
        self.count += 1
        return Applied(self._target.digest)

    def _on_untaken(self, asked_at: float, now: float) -> Untaken | None:
        if asked_at - self._signalled_at < CONFIRM_WITHIN_SECONDS:
            return None
        if self.wanted is not None and self._would_end_wanted:
            # the signal was lost, and is not given again for what is not wanted any more
            self._aim(self.wanted)
        elif self._signals >= SIGNALS_MAX:
            return Untaken()
        else:
            self._signal(now)
        return None

    @property
    def _would_end_wanted(self) -> bool:
        """Whether the change on its way ends a session that ExaBGP has and the plan, which is newer, wants again."""
        plan, target = self.wanted, self._target
        if plan is None or target is None or plan.digest in (target.digest, self._refused):
            return False
        return any(
            peer not in target.visible and self._seen.get(peer) == wanted for peer, wanted in plan.visible.items()
        )

    def _aim(self, plan: Plan) -> None:
        """Take up a plan: have it checked, unless ExaBGP took all of its sections before."""
        if self._is_sound(plan):
            self._wait_with(plan)
            return
        self._target, self._step, self._check_at = plan, Step.VALIDATING, None
        self._child.validate(plan.configuration, plan.environment)

    def _is_sound(self, plan: Plan) -> bool:
        """Return whether ExaBGP takes a plan for sure, because it took all of its sections before."""
        return sections(plan.configuration) <= self._sound

    def _wait_with(self, plan: Plan) -> None:
        self._target, self._step, self._quiet_since, self._signals = plan, Step.WAITING, None, 0
        # a change that cannot be seen from outside is signalled twice: ExaBGP may have forgotten the first
        self._signals_needed = 2 if plan.visible == self._seen else 1

    def _signal_when_quiet(self, now: float, *, is_quiet: bool) -> None:
        if self.wanted is not None and self.wanted is not self._target and self._is_sound(self.wanted):
            # what was wanted meanwhile needs no check
            self._wait_with(self.wanted)
        target = self._target
        if target is None or (self._runs(target) and self._installed in ("", target.digest)):
            # and is what it has
            self._step = Step.NONE
            return
        if not is_quiet:
            self._quiet_since = None
            return
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since >= QUIET_SECONDS:
            self._child.install(target.configuration)
            self._installed = target.digest
            self._signal(now)

    def _signal(self, now: float) -> None:
        self._child.reload()
        self._step, self._signals, self._asked_at = Step.SIGNALLED, self._signals + 1, None
        self._signalled_at, self._confirm_at = now, now + CONFIRM_EVERY_SECONDS
