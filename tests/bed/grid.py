"""Who reaches whom: probes from many to many at once, shown as a grid and compared with a rule."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from bed.probes import Address, Reply, ping


class Source(Protocol):
    """Whoever has a network namespace: a workload, a container, a host, the fabric."""

    @property
    def name(self) -> str: ...
    def entered(self) -> AbstractContextManager[None]: ...


class Addressed(Source, Protocol):
    """A source that may be a target too."""

    @property
    def address(self) -> Address: ...


Probe = Callable[[Address], Reply]
Rule = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Grid:
    """The replies by (source, target), both by name."""

    sources: Sequence[str]
    targets: Sequence[str]
    replies: Mapping[tuple[str, str], Reply]

    def __getitem__(self, pair: tuple[str, str]) -> Reply:
        return self.replies[pair]

    def text(self, wrong: frozenset[tuple[str, str]] = frozenset()) -> str:
        """Render the grid: sources are rows; ``-`` is no answer; a wrong cell is in brackets."""
        cells = [["from \\ to", *self.targets]]
        for source in self.sources:
            marks = [(self.replies[source, target].mark, (source, target) in wrong) for target in self.targets]
            cells.append([source, *(f"[{mark}]" if bad else mark for mark, bad in marks)])
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = (
            [
                cell.center(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            for row in cells
        )
        return "\n".join("  ".join(line).rstrip() for line in lines)

    def wrong(self, rule: Rule) -> frozenset[tuple[str, str]]:
        """Return the pairs whose reply is not what ``rule(source, target)`` says."""
        return frozenset(pair for pair, reply in self.replies.items() if reply.ok != rule(*pair))

    def expect(self, rule: Rule) -> "Grid":
        """Check every pair against ``rule(source name, target name) -> reachable``.

        Raises:
            AssertionError: with the grid, the wrong pairs in brackets.
        """
        if wrong := self.wrong(rule):
            listed = "\n".join(
                f"{source} -> {target}: {'open' if self.replies[source, target].ok else 'closed'}, "
                f"should be {'open' if rule(source, target) else 'closed'}"
                for source, target in sorted(wrong)
            )
            raise AssertionError(f"{len(wrong)} of {len(self.replies)} pairs are wrong\n{self.text(wrong)}\n{listed}")
        return self

    def __str__(self) -> str:
        return self.text()


def matrix(
    sources: Sequence[Source], targets: Sequence[Addressed] | Mapping[str, Address], probe: Probe = ping
) -> Grid:
    """Probe every target from every source, all at once.

    `targets` are things with a name and an address, or addresses by name. `probe` is called in the source's network
    namespace; the default is one ping with a patience of a second. ``lambda a: tcp_connect(a, 80)`` is another.
    """
    addresses = dict(targets) if isinstance(targets, Mapping) else {target.name: target.address for target in targets}

    def row(source: Source) -> dict[tuple[str, str], Reply]:
        # threads begin in the namespace of the thread that starts them, so the inner pool is inside as a whole
        with source.entered(), ThreadPoolExecutor(max(1, len(addresses))) as pool:
            started = {name: pool.submit(probe, address) for name, address in addresses.items()}
            return {(source.name, name): future.result() for name, future in started.items()}

    replies: dict[tuple[str, str], Reply] = {}
    with ThreadPoolExecutor(max(1, len(sources))) as pool:
        for found in pool.map(row, sources):
            replies.update(found)
    return Grid([source.name for source in sources], list(addresses), replies)
