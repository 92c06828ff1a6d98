"""Records of the store in, desired state of this host out: the calculation and the renderer joined. No I/O.

The daemon feeds every change it hears of to `update` and asks for `flush` when it has heard enough, for the first time
after the store is in sync.
"""

from collections.abc import Sequence
from dataclasses import replace

from felix.calc.conclusions import Conclusions, Whole
from felix.calc.graph import Graph
from felix.calc.model import MembersChange
from felix.calc.parameters import Parameters
from felix.desired import Desired, IPSet, Update
from felix.render.names import set_name
from felix.render.renderer import Renderer, member_set
from resources.blocks import BlockView
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import IfName, IPAddress, IPNetwork, NodeName
from resources.runtime.options import Source


class Pipeline:
    """What this host's kernel should look like, by what the store says."""

    def __init__(self, node: NodeName, sources: Sequence[Source] = ()) -> None:
        """`sources`: parameters stronger than the store's, strongest first (felix.calc.parameters).

        Raises:
            ConfigurationError: a value in `sources` that cannot be used.
        """
        self._graph = Graph(node, sources)
        self._renderer = Renderer()
        self._versions: tuple[int, ...] | None = None

    @property
    def plurals(self) -> frozenset[str]:
        """The kinds of records that matter here."""
        return self._graph.plurals

    @property
    def parameters(self) -> Parameters:
        """In effect as of the last flush."""
        return self._graph.parameters

    @property
    def rendered(self) -> int:
        """How many chains were rendered so far."""
        return self._renderer.rendered

    @property
    def evaluations(self) -> int:
        """How often a selector was tried on something so far."""
        return self._graph.evaluations

    def update(self, key: ResourceKey, value: Resource | None) -> None:
        """Take note that the record at `key` is `value` now, or gone (None)."""
        self._graph.update(key, value)

    def limit(self, source: Source) -> None:
        """Take in settings that are stronger than all others, as nothing else can be had here."""
        self._graph.limit(source)

    def set_interface(self, name: IfName, addresses: frozenset[IPAddress] | None) -> None:
        """Take note of the addresses that an interface of this host has now; None: there is no such interface."""
        self._graph.set_interface(name, addresses)

    def set_block(self, cidr: IPNetwork, block: BlockView | None) -> None:
        """Take note of a block of addresses as it is now; None: there is none, or it cannot be read."""
        self._graph.set_block(cidr, block)

    def flush(self) -> Update:
        """Return what must change in the kernel because of all updates since the last flush."""
        conclusions = self._graph.flush()
        versions = self._graph.parameters.versions
        removed: dict[str, None] = {}
        if self._versions is not None and versions != self._versions:
            gone = set(self._versions).difference(versions)
            sets = {*self._graph.whole().sets, *conclusions.sets}  # those too that go at this very moment
            removed = {set_name(version, set_id): None for set_id in sets for version in gone}
            conclusions = self._with_whole_sets(conclusions)
        self._versions = versions
        update = replace(self._renderer.render(conclusions), surroundings=conclusions.surroundings)
        return replace(update, sets={**removed, **update.sets}) if removed else update

    def whole(self) -> Whole:
        """Return everything that is concluded, as of the last flush: policy as data."""
        return self._graph.whole()

    def desired(self) -> Desired:
        """Return the whole desired state, as of the last flush."""
        sets: dict[str, IPSet] = dict(self._renderer.fixed_sets)
        for set_id, (spec, members) in self._graph.whole().sets.items():
            for version in self.parameters.versions:
                sets[set_name(version, set_id)] = member_set(spec, version, members[version])
        return Desired(
            sets=sets,
            chains=dict(self._renderer.chains),
            kernel_chains=dict(self._renderer.kernel_chains),
            interfaces=dict(self._renderer.interfaces),
            remote=self._graph.whole().remote,
        )

    def conclusions(self) -> Conclusions:
        """Return all that the rules are rendered from, whole, as of the last flush; callable from any thread."""
        return self._renderer.conclusions()

    def _with_whole_sets(self, conclusions: Conclusions) -> Conclusions:
        """Announce every set anew: the address families in use are others."""
        whole = self._graph.whole().sets
        sets: dict[str, MembersChange | None] = dict(conclusions.sets)
        sets |= {set_id: MembersChange(members, {}, whole=True) for set_id, (_, members) in whole.items()}
        return replace(conclusions, sets=sets, specs={set_id: spec for set_id, (spec, _) in whole.items()})
