"""`calicoctl node status`: are the daemons running, and how are the BGP sessions (reference resources.md 5.9)."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO, TypeVar

import click
import msgspec

from calicoctl.node import birdctl
from calicoctl.output import boxed_table
from resources.gotext import JSON
from resources.runtime import health, paths

S = TypeVar("S")

HEADINGS = ("Peer address", "Peer type", "State", "Since", "Info")
FALLBACK = Path("/var/run/bird")
_ANEW = "calicoctl node stop, then calicoctl node run"
READY = 204
"""What a daemon's health socket answers when it is."""


_RECORD_HINT = (
    "write such a record anew, 'calicoctl apply -f FILE', or remove it, 'calicoctl delete KIND NAME'; "
    "policy is as said above until then"
)


def status(out: TextIO) -> int:
    """Print the status; 0 if felix runs."""
    code, text = health.ask(paths.health_socket("felix"), "/liveness")
    if code != READY:
        if health.is_stuck(code, text):
            click.echo(f"Calico process is there and does not answer: {text}", err=True)
            click.echo(f"  see {paths.LOG}/felix/current; to start it anew: {_ANEW}", err=True)
        else:
            click.echo("Calico process is not running.", err=True)
            click.echo("  start it with: calicoctl node run", err=True)
        return 1
    click.echo("Calico process is running.", file=out)
    for version, name in ((4, "bird.ctl"), (6, "bird6.ctl")):
        click.echo(f"\nIPv{version} BGP status", file=out)
        _sessions(version, name, out)
    click.echo("", file=out)
    told = dict.fromkeys([*unready(), *withheld()])
    for line in told:
        click.echo(f"Warning: {line}", err=True)
    if any(") cannot be read: " in line for line in told):
        click.echo("  " + _RECORD_HINT, err=True)
    return 0


def as_data(out: TextIO, form: str) -> int:
    """Print the same and what more bgpd tells of its sessions, as ``yaml`` or ``json``; 0 if felix runs."""
    from calicoctl.output import as_json
    from resources.yamltext import dump

    running = health.ask(paths.health_socket("felix"), "/liveness")[0] == READY
    found: dict[str, JSON] = {"running": running}
    warned: list[str] = []
    told = {session.peer: session for session in _bgp_sessions()}
    for version, name in ((4, "bird.ctl"), (6, "bird6.ctl")):
        try:
            peers = birdctl.peers(_socket(name))
        except birdctl.BirdUnreachable as error:
            peers = []
            warned.append(f"IPv{version} BGP: the backend process {_no_sessions(error)}")
        found[f"ipv{version}"] = [_peer(peer, told.get(peer.address)) for peer in peers]
    found["warnings"] = [*dict.fromkeys([*warned, *unready(), *withheld()])]
    click.echo(as_json(found) if form == "json" else dump(found), nl=False, file=out)
    return 0 if running else 1


def _peer(peer: birdctl.Peer, told: "BgpSession | None") -> JSON:
    """Return a row of the table, and beside it what bgpd tells of that session."""
    return {**asdict(peer), **(msgspec.to_builtins(told) if told is not None else {})}


def _bgp_sessions() -> "list[BgpSession]":
    code, text = health.ask(paths.health_socket("bgpd"), "/state")
    try:
        return msgspec.json.decode(text, type=_BgpSessions).sessions if code == 200 else []
    except msgspec.DecodeError:
        return []  # withheld() says so


def unready() -> list[str]:
    """Return one line if bgpd says that it is not ready, with what it waits for: it then has no sessions to show."""
    code, text = health.ask(paths.health_socket("bgpd"), "/readiness")
    if code in (0, READY):  # 0: it does not answer, which the sessions tell, or is not wanted
        return []
    waits = "; ".join(text.strip().splitlines())
    return [f"calico-bgpd is not ready: {waits}; to start it anew: {_ANEW}"]


def _sessions(version: int, name: str, out: TextIO) -> None:
    try:
        peers = birdctl.peers(_socket(name))
    except birdctl.BirdUnreachable as error:
        click.echo(f"The BGP backend process {_no_sessions(error)}", file=out)
        return
    if peers:
        click.echo(boxed_table(HEADINGS, [peer.row() for peer in peers]), file=out)
    else:
        click.echo(f"No IPv{version} peers found.", file=out)


def _no_sessions(error: birdctl.BirdUnreachable) -> str:
    if isinstance(error, birdctl.BirdSilent):
        return f"is there and does not answer: {error}; see {paths.LOG}/bgpd/current; to start it anew: {_ANEW}"
    return f"is not running: {error}"


def _socket(name: str) -> Path:
    ours = paths.RUN / name
    return ours if ours.exists() or not (FALLBACK / name).exists() else FALLBACK / name


def withheld() -> list[str]:
    """Return what daemons do not do on purpose or cannot do, one line each; nothing of one that is silent."""
    return [
        *_told("bgpd", BgpState, warnings),
        *_told("felix", FelixState, trouble),
        *_told("agent", AgentState, without_address),
    ]


def _told(daemon: str, type: type[S], lines: Callable[[S], list[str]]) -> list[str]:
    code, text = health.ask(paths.health_socket(daemon), "/state")
    if code != 200:
        return []
    try:
        return lines(msgspec.json.decode(text, type=type))
    except msgspec.DecodeError as error:
        return [f"what calico-{daemon} says of its state cannot be read: {error}"]


class _Withheld(msgspec.Struct):
    pool: str
    reason: str


class _NextHop(msgspec.Struct):
    what: str
    routes: int


class _Unusable(msgspec.Struct):
    what: str
    reason: str
    peer: str | None = None
    """Set if a session with it is withheld for that."""


class _Kernel(msgspec.Struct):
    conflicts: dict[str, str] = {}
    failed: dict[str, str] = {}


class _Speaker(msgspec.Struct):
    trouble: str = ""


class BgpState(msgspec.Struct):
    """The part of bgpd's state that an operator must hear of."""

    speaker: _Speaker = msgspec.field(default_factory=_Speaker)
    withheld: dict[str, _Withheld] = {}
    next_hops: dict[str, _NextHop] = {}
    unusable: list[_Unusable] = []
    untold: dict[str, list[str]] = {}
    twins: list[str] = []
    records: dict[str, str] = {}
    kernel: _Kernel = msgspec.field(default_factory=_Kernel)


class _Tunnel(msgspec.Struct):
    trouble: str = ""


class AgentState(msgspec.Struct):
    """The part of the agent's state that an operator must hear of."""

    tunnels: dict[str, _Tunnel] = {}
    unusable: list[_Unusable] = []


class BgpSession(msgspec.Struct):
    """What bgpd tells of a session, besides its row. Routes by count; `routes_refused` by reason."""

    peer: str
    node: str | None = None
    origin: str = ""
    local: str = ""
    local_as: int | None = None
    peer_as: int | None = None
    router_id: str | None = None
    passive: bool = False
    transitions: int = 0
    routes_received: int = 0
    routes_accepted: int = 0
    routes_stale: int = 0
    routes_refused: dict[str, int] = {}
    routes_offered: int = 0


class _BgpSessions(msgspec.Struct):
    sessions: list[BgpSession] = []


class FelixState(msgspec.Struct):
    """The part of felix's state that an operator must hear of."""

    failing: list[str] = []
    errors: dict[str, str] = {}
    """Why, by the thing."""
    withheld: dict[str, str] = {}
    """Routes that there are not though there should be, by the host that they would lead to."""
    problems: dict[str, list[str]] = {}
    troubles: dict[str, str] = {}


def without_address(state: AgentState) -> list[str]:
    """Return one line per tunnel that should have an address of this host and has none, and per record passed over."""
    lines = [
        f"no address for the {name} tunnel: {found.trouble}"
        for name, found in sorted(state.tunnels.items())
        if found.trouble
    ]
    return lines + [f"{one.what} is not used for tunnels: {one.reason}" for one in state.unusable]


def trouble(state: FelixState) -> list[str]:
    """Return one line per record of the store that felix cannot use as it is, and per thing that it cannot write."""
    lines = [f"{key}: {text}" for key, texts in sorted(state.problems.items()) for text in texts]
    lines += [text for _, text in sorted(state.withheld.items())]
    lines += [f"no {tunnel} tunnel: {text}" for tunnel, text in sorted(state.troubles.items())]
    for thing in state.failing:
        why = f": {state.errors[thing]}" if thing in state.errors else ""
        lines.append(f"{thing} could not be written{why}; felix tries again")
    return lines


def warnings(state: BgpState) -> list[str]:
    """Return one line per thing that is not as asked for. Pure."""
    by_cause: dict[tuple[str, str], list[str]] = {}
    for prefix, found in state.withheld.items():
        by_cause.setdefault((found.pool, found.reason), []).append(prefix)
    trouble = state.speaker.trouble
    lines = [f"ExaBGP, which speaks BGP for calico-bgpd, does not run and is started again: {trouble}"] * bool(trouble)
    lines += [
        f"{len(prefixes)} routes of pool {pool} are withheld: {reason} ({', '.join(sorted(prefixes))})"
        for (pool, reason), prefixes in sorted(by_cause.items())
    ]
    lines += [f"next hop of {one.routes} routes {one.what}" for _, one in sorted(state.next_hops.items())]
    lines += _not_used(state.unusable)
    lines += state.twins
    lines += [
        f"{node} is up and does not announce {len(blocks)} of its blocks ({_some(blocks)}): its "
        f"containers there cannot be reached from here; look at calicoctl node status on {node}"
        for node, blocks in sorted(state.untold.items())
    ]
    lines += [f"{key} is not used: {fault}" for key, fault in sorted(state.records.items())]
    kernel = state.kernel
    lines += [
        f"{key} is somebody else's route ({theirs}) and stays" for key, theirs in sorted(kernel.conflicts.items())
    ]
    lines += [f"{key} could not be written: {error}" for key, error in sorted(kernel.failed.items())]
    return lines


def _not_used(unusable: Sequence[_Unusable]) -> list[str]:
    """Return one line per cause: sessions that are withheld for it, or what is passed over."""
    peers: dict[tuple[str, str], list[str]] = {}
    for one in unusable:
        found = peers.setdefault((one.what, one.reason), [])
        if one.peer is not None:
            found.append(one.peer)
    return [
        f"no session with {_some(withheld)}: {what}: {reason}" if withheld else f"{what} is not used: {reason}"
        for (what, reason), withheld in peers.items()
    ]


def _some(names: Sequence[str]) -> str:
    """Return the first three of several names, and a word if there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
