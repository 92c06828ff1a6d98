"""The kernel's own flows, through the conntrack program, keep the contract."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bed import Namespace
from fakes.flow_contract import FlowContract, Host
from kernel.conntrack import ConntrackFlows, Flow


@dataclass
class RealHost:
    netns: Namespace
    flows: ConntrackFlows

    def open(self, flow: Flow) -> None:
        command = f"conntrack -I -p {flow.protocol} --sport 5 --dport 6 -t 100"
        command += f" -s {flow.source} -d {flow.destination}"
        command += f" --reply-src {flow.reply_source} --reply-dst {flow.reply_destination}"
        command += " --reply-port-src 6 --reply-port-dst 5"
        self.netns.run(command)


class TestConntrackFlows(FlowContract):
    @pytest.fixture
    def host(self, netns: Namespace) -> Iterator[Host]:
        with netns.entered():
            yield RealHost(netns, ConntrackFlows())
