"""The flows in memory keep the contract; lines of the conntrack program are understood."""

import pytest

from fakes.flow_contract import NATTED, OUT, FlowContract, Host, address
from fakes.flows import FakeFlows
from kernel.conntrack import Flow, parse_flow
from kernel.errors import KernelFailure


class FakeHost:
    def __init__(self) -> None:
        self.flows = FakeFlows()

    def open(self, flow: Flow) -> None:
        self.flows.flows.add(flow)


class TestFakeFlows(FlowContract):
    @pytest.fixture
    def host(self) -> Host:
        return FakeHost()


def test_a_deletion_can_be_refused() -> None:
    flows = FakeFlows()
    flows.flows.add(OUT)
    flows.refuse.add(address("10.0.0.1"))
    with pytest.raises(KernelFailure):
        flows.delete(address("10.0.0.1"))
    assert flows.flows == {OUT}


@pytest.mark.parametrize(
    ("line", "flow"),
    [
        (
            "udp      17 99 src=10.0.0.1 dst=10.0.0.2 sport=5 dport=6 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=6 "
            "dport=5 mark=0 use=1",
            OUT,
        ),
        (
            "udp      17 99 src=10.0.0.4 dst=192.0.2.1 sport=5 dport=6 src=10.0.0.1 dst=10.0.0.4 sport=6 dport=5 "
            "[ASSURED] mark=65536 use=2",
            NATTED,
        ),
        ("conntrack v1.4.7 (conntrack-tools): 2 flow entries have been shown.", None),
    ],
)
def test_a_line_is_parsed(line: str, flow: Flow | None) -> None:
    assert parse_flow(line) == flow
