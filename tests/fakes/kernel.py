"""One host's kernel in memory: the ports of `kernel`, each with its refusals to inject, over one common state.

    kernel = FakeKernel()
    kernel.links.add("cali1")
    kernel.routes.replace({...})

Every part obeys the same contract as the real thing (`fakes.*_contract`).
"""

from fakes.arp import FakeAnnouncer
from fakes.flows import FakeFlows
from fakes.links import FakeLinks
from fakes.routes import FakeRoutes
from fakes.sets import FakeSets
from fakes.sysctls import FakeSysctls
from fakes.tables import FakeTables
from fakes.vxlan import FakeVxlan


class FakeKernel:
    """All ports of one network namespace. Has `lo` and nothing else."""

    def __init__(self) -> None:
        self.links = FakeLinks()
        self.routes = FakeRoutes(self.links)
        self.vxlan = FakeVxlan(self.links)
        self.sysctls = FakeSysctls(self.links)
        self.sets = FakeSets()
        self.tables = FakeTables(self.sets)
        self.flows = FakeFlows()
        self.announcer = FakeAnnouncer(self.links)
