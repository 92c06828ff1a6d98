"""What every FlowKernel must do. A test module for one implementation derives from `FlowContract` and gives the fixture
`host`.
"""

import ipaddress
from typing import Protocol

import pytest

from kernel.conntrack import Flow, FlowKernel
from resources.names import IPAddress


class Host(Protocol):
    """A host and the flows that pass it."""

    @property
    def flows(self) -> FlowKernel: ...
    def open(self, flow: Flow) -> None:
        """Let a connection be tracked."""


def address(text: str) -> IPAddress:
    return ipaddress.ip_address(text)


def flow(source: str, destination: str, *, answered_by: str | None = None) -> Flow:
    return Flow(
        protocol="udp",
        source=address(source),
        destination=address(destination),
        reply_source=address(answered_by or destination),
        reply_destination=address(source),
    )


OUT = flow("10.0.0.1", "10.0.0.2")
IN = flow("10.0.0.3", "10.0.0.1")
NATTED = flow("10.0.0.4", "192.0.2.1", answered_by="10.0.0.1")
OTHER = flow("10.0.0.11", "10.0.0.2")
SIX = flow("fd00::1", "fd00::2")


class FlowContract:
    @pytest.fixture
    def host(self) -> Host:
        raise AssertionError("a test module gives this fixture")

    def test_flows_that_an_address_opened_or_answers_go_and_others_stay(self, host: Host) -> None:
        for opened in (OUT, IN, NATTED, OTHER, SIX):
            host.open(opened)
        assert host.flows.flows_of(4) == {OUT, IN, NATTED, OTHER}
        assert host.flows.delete(address("10.0.0.1")) == 3
        assert host.flows.flows_of(4) == {OTHER}
        assert host.flows.flows_of(6) == {SIX}

    def test_ipv6(self, host: Host) -> None:
        host.open(SIX)
        assert host.flows.delete(address("fd00::2")) == 1
        assert host.flows.flows_of(6) == set()

    def test_nothing_to_delete_is_done(self, host: Host) -> None:
        assert host.flows.delete(address("10.0.0.1")) == 0
        assert host.flows.delete(address("fd00::1")) == 0
