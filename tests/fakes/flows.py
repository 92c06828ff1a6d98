"""Tracked connections in memory. Obeys `fakes.flow_contract`."""

import errno

from kernel.conntrack import Flow
from kernel.errors import DataplaneError, KernelFailure
from resources.names import IPAddress


class FakeFlows:
    """FlowKernel. `refuse` holds addresses whose deletion fails; `deleted` keeps those that were asked for."""

    def __init__(self) -> None:
        self.flows: set[Flow] = set()
        self.refuse: set[IPAddress] = set()
        self.deleted: list[IPAddress] = []

    def delete(self, address: IPAddress) -> int:
        self.deleted.append(address)
        if address in self.refuse:
            failure: DataplaneError = KernelFailure(f"cannot delete the flows of {address}", errno=errno.EIO)
            raise failure
        gone = {flow for flow in self.flows if address in (flow.source, flow.reply_source)}
        self.flows -= gone
        return len(gone)

    def flows_of(self, version: int) -> set[Flow]:
        return {flow for flow in self.flows if flow.source.version == version}
