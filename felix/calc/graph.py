"""The calculation: records of the store in, policy data of this host out.

`update` takes records one by one, in any order and as often as anybody likes; `flush` concludes what they amount to and
returns what differs from the last time. The conclusion depends on the current records only. A reference to something
that is missing has a defined result, and that result is closed (reference felix.md 1.8, 4).

Here the parts are joined, nothing else. Something new to conclude is a `reading.Part` in a module of its own: it says
which kinds it reads (others may read them too), keeps what matters of the records, and concludes at a flush. It gets
its field in `Conclusions` and in `Whole`, its place in `Graph` (four lines), and its answer in the slow calculation of
the tests.
"""

from collections.abc import Sequence

from felix.calc.book import Book, BookReaders
from felix.calc.conclusions import Conclusions, Whole
from felix.calc.hosts import Hosts
from felix.calc.in_force import RulesInForce
from felix.calc.ipsets import MemberSets
from felix.calc.masquerade import Cluster
from felix.calc.model import Turnover
from felix.calc.netsets import NetworkSets
from felix.calc.parameters import Parameters
from felix.calc.problems import Problems
from felix.calc.reading import Readers
from felix.calc.remote import RemoteBlocks
from felix.calc.settings import Settings
from felix.calc.workloads import Workloads
from resources.blocks import BlockView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, IPAddress, IPNetwork, NodeName
from resources.runtime.options import Source


class Graph:
    """All records that matter to this host, and what follows from them."""

    def __init__(self, node: NodeName, sources: Sequence[Source] = ()) -> None:
        """`sources` of parameters that are stronger than the store: overrides, environment, file.

        Raises:
            ConfigurationError: a value in `sources` that cannot be used.
        """
        self.node = node
        self._problems = Problems()
        self._members = MemberSets()
        book = Book()
        self._settings = Settings(node, sources, self._problems)
        self._workloads = Workloads(node, self._members, book, self._problems)
        self._hosts = Hosts(node, self._members, book, self._problems)
        asking = (self._workloads, self._hosts)
        self._rules = RulesInForce(book, self._members, [each.use for each in asking], self._problems)
        self._remote = RemoteBlocks(node)
        self._cluster = Cluster(node)
        self._readers = Readers(
            self._problems,
            (
                self._settings,
                *asking,
                BookReaders(book, self._rules, asking, self._members),
                NetworkSets(self._members),
                self._remote,
                self._cluster,
            ),
        )

    @property
    def plurals(self) -> frozenset[str]:
        """The kinds that matter here."""
        return self._readers.plurals

    @property
    def parameters(self) -> Parameters:
        """As of the last flush."""
        return self._settings.parameters

    @property
    def evaluations(self) -> int:
        """How often a selector was tried on something: what the calculation costs."""
        return self._members.evaluations + self._workloads.evaluations + self._hosts.evaluations

    def update(self, key: ResourceKey, value: Resource | None) -> None:
        """Take note that the record at `key` is `value` now, or gone (None). Kinds that do not matter are ignored.

        A record that cannot be used counts as absent and becomes a problem of the next flush.
        """
        self._readers.update(key, value)

    def limit(self, source: Source) -> None:
        """Take in settings that are stronger than all others, as nothing else can be had here."""
        self._settings.limit(source)

    def set_interface(self, name: IfName, addresses: frozenset[IPAddress] | None) -> None:
        """Take note of the addresses that an interface of this host has now; None: there is no such interface."""
        self._hosts.set_interface(name, addresses)
        self._remote.set_interface(name, addresses)

    def set_block(self, cidr: IPNetwork, block: BlockView | None) -> None:
        """Take note of a block of addresses as it is now; None: there is none, or it cannot be read."""
        self._remote.set_block(cidr, block)

    def flush(self) -> Conclusions:
        """Conclude, and return what differs from the last time."""
        resolved = self._settings.conclude()
        parameters = self.parameters
        endpoints = self._workloads.conclude(parameters)
        host_endpoints = self._hosts.conclude(parameters)
        remote = self._remote.conclude(parameters)
        surroundings = self._cluster.conclude(parameters, self._remote.guards)
        turnover = self._workloads.turnover
        if host_endpoints or surroundings is not None or resolved is not None:
            turnover |= Turnover.CHANGES
        rules = self._rules.conclude(parameters, turnover)  # after those who ask them
        return Conclusions(
            sets=rules.sets,
            specs=rules.specs,
            closing=rules.closing,
            policies=rules.policies,
            profiles=rules.profiles,
            endpoints=endpoints,
            host_endpoints=host_endpoints,
            surroundings=surroundings,
            parameters=resolved,
            remote=remote,
            problems=self._problems.take_changes(),
        )

    def whole(self) -> Whole:
        """Return everything that is concluded, as of the last flush."""
        return Whole(
            sets=self._members.members(),
            policies=self._rules.policies,
            profiles=self._rules.profiles,
            endpoints=self._workloads.told,
            host_endpoints=self._hosts.told,
            surroundings=self._cluster.told,
            remote=self._remote.whole(),
            problems=self._problems.whole(),
        )
