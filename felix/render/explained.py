"""What each rule of each chain stands for, made on demand: everything is rendered once more, and the rules are kept.

The renderer keeps text and hashes only; what a rule stands for is no part of its text (the hashes are those of the
original Calico). So this costs nothing until somebody asks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from felix.calc.conclusions import Conclusions
from felix.desired import ChainKey
from felix.render.chains import Jump, Part, Rule
from felix.render.names import GROUP_PREFIX
from felix.render.renderer import Renderer


@dataclass(frozen=True, slots=True)
class Explained:
    """One chain: the tag of each rule as in the kernel, and the rule itself."""

    tags: tuple[str, ...]
    rules: tuple[Rule, ...]


def explain(conclusions: Conclusions) -> dict[ChainKey, Explained]:
    """Return all chains of ours that whole `conclusions` (`Renderer.conclusions`) make."""
    recorder = _Recorder()
    recorder.render(conclusions)
    return {key: Explained(chain.tags, recorder.rules[key]) for key, chain in recorder.chains.items()}


def grouped(chains: Mapping[ChainKey, Explained]) -> dict[ChainKey, tuple[str, ...]]:
    """Return the chains of policies that each chain of a group asks, in order."""
    return {
        key: tuple(
            rule.target.chain
            for rule in explained.rules
            if rule.stands_for is Part.POLICY and isinstance(rule.target, Jump)
        )
        for key, explained in chains.items()
        if key.chain.startswith(tuple(GROUP_PREFIX.values()))
    }


class _Recorder(Renderer):
    """A renderer that keeps the rules too."""

    def __init__(self) -> None:
        super().__init__()
        self.rules: dict[ChainKey, tuple[Rule, ...]] = {}

    def _put(self, key: ChainKey, rules: Iterable[Rule]) -> None:
        self.rules[key] = kept = tuple(rules)
        super()._put(key, kept)

    def _put_everywhere(self, table: str, chain: str, rules: Iterable[Rule] | None) -> None:
        kept = None if rules is None else tuple(rules)
        if kept is not None:
            self.rules.update((ChainKey(version, table, chain), kept) for version in self._parameters.versions)
        super()._put_everywhere(table, chain, kept)
