"""What this program cannot do for a session yet: such a session is withheld rather than made without it. Pure."""

from dataclasses import replace

from bgpd.calc.sessions import PeerSpec, Sessions, Unusable


def within_limits(wanted: Sessions) -> Sessions:
    """Return the sessions without those that ask for what is not carried out, which are told."""
    unusable = list(wanted.unusable)
    peers = {}
    for address, spec in wanted.peers.items():
        if missing := _missing(spec):
            reason = f"{missing} is not carried out by this version"
            unusable.append(
                Unusable(what=f"BGPPeer({spec.origin})", reason=reason, address=address, kind=spec.kind)
            )
        else:
            peers[address] = spec
    return replace(wanted, peers=peers, unusable=tuple(unusable))


def _missing(spec: PeerSpec) -> str:
    """Return which of its options is not carried out, or ""."""
    if spec.any_source:
        return "sourceAddress: None"
    return "reachableBy" if spec.gateway is not None else ""
