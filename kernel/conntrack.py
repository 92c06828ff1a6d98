"""Tracked connections, by the conntrack program.

An endpoint's chain accepts established flows before it asks any policy, so the flows of an address that left must go
before the next owner has it (reference felix.md 2.4).
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Protocol

from kernel.errors import DataplaneError, ToolFailed
from kernel.programs import run
from resources.names import IPAddress

_TRIES: Final = 3
_DELETED = re.compile(r"(\d+) flow entries have been deleted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One tracked connection: who opened it to whom, and who answers (another one after NAT)."""

    protocol: str
    source: IPAddress
    destination: IPAddress
    reply_source: IPAddress
    reply_destination: IPAddress


class FlowKernel(Protocol):
    """The connection tracking table of one network namespace. A call scans all of it: never from the loop."""

    def delete(self, address: IPAddress) -> int:
        """Delete all flows that `address` opened or answers; return how many there were, at least.

        Raises:
            DataplaneError: not done after three tries.
        """

    def flows_of(self, version: int) -> set[Flow]:
        """Return the flows of one address family (4 or 6)."""


class ConntrackFlows:
    """FlowKernel on the conntrack program, in the network namespace of the calling thread."""

    def delete(self, address: IPAddress) -> int:
        return sum(self._delete(address, side) for side in ("--orig-src", "--reply-src"))

    def flows_of(self, version: int) -> set[Flow]:
        outcome = run(("conntrack", "--family", f"ipv{version}", "--dump"))
        if outcome.status:
            raise outcome.failure(f"cannot list the IPv{version} flows")
        found = (parse_flow(line) for line in outcome.output.splitlines())
        return {flow for flow in found if flow is not None}

    def _delete(self, address: IPAddress, side: str) -> int:
        failure: DataplaneError = ToolFailed(f"cannot delete the flows of {address}")
        for _ in range(_TRIES):
            outcome = run(("conntrack", "--family", f"ipv{address.version}", "--delete", side, str(address)))
            deleted = _DELETED.search(outcome.complaint)
            if deleted is not None and (outcome.status == 0 or deleted[1] == "0"):
                return int(deleted[1])  # it ends with 1 when there was nothing to delete
            failure = outcome.failure(f"cannot delete the flows of {address}")
        raise failure


def parse_flow(line: str) -> Flow | None:
    """Parse one line of ``conntrack --dump``; None if it is not of an IP flow."""
    addresses = [ipaddress.ip_address(text) for text in re.findall(r"(?:src|dst)=(\S+)", line)]
    if len(addresses) != 4:
        return None
    source, destination, reply_source, reply_destination = addresses
    return Flow(
        protocol=line.split()[0],
        source=source,
        destination=destination,
        reply_source=reply_source,
        reply_destination=reply_destination,
    )
