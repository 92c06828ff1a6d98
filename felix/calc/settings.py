"""The parameters in effect: of FelixConfigurations, and of what is stronger than the store."""

from collections.abc import Mapping, Sequence

from felix.calc.parameters import Parameters, Resolved, effective, spec_texts
from felix.calc.problems import Problems
from felix.calc.reading import Reader
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.names import NodeName
from resources.runtime.options import Source

GLOBAL_CONFIGURATION = "default"


class Settings:
    """Reads FelixConfigurations; the first to conclude, as all others go by the parameters."""

    def __init__(self, node: NodeName, sources: Sequence[Source], problems: Problems) -> None:
        """`sources` of parameters that are stronger than the store: overrides, environment, file.

        Raises:
            ConfigurationError: a value in `sources` that cannot be used.
        """
        self._names = (f"node.{node}", GLOBAL_CONFIGURATION)
        self._sources = tuple(sources)
        self._problems = problems
        self._configurations: dict[str, Source] = {}
        self._resolved = effective(self._sources)
        self._told: Resolved | None = None
        self._dirty = True
        self.readers: Mapping[str, Reader] = {"felixconfigurations": self._read}

    @property
    def parameters(self) -> Parameters:
        """As of the last time."""
        return self._resolved.parameters

    def limit(self, source: Source) -> None:
        """Take in settings that are stronger than all others, as nothing else can be had here."""
        self._sources = (source, *self._sources)
        self._dirty = True

    def _read(self, key: ResourceKey, value: Resource | None) -> tuple[str, ...]:
        if key.name not in self._names:
            return ()
        self._dirty = True
        if value is None:
            self._configurations.pop(key.name, None)
        else:
            texts = spec_texts(value.spec, value.metadata.annotations)
            self._configurations[key.name] = Source(f"FelixConfiguration {key.name}", texts, strict=False)
        return ()

    def conclude(self) -> Resolved | None:
        """Return the parameters with where they come from; None if all is as the last time."""
        if not self._dirty:
            return None
        self._dirty = False
        stored = [self._configurations[name] for name in self._names if name in self._configurations]
        self._resolved = effective((*self._sources, *stored))
        for name in self._names:
            origin = f"FelixConfiguration {name}"
            refused = [one for one in self._resolved.refused if one.origin == origin]
            self._problems.note(
                ResourceKey("felixconfigurations", name),
                "values",
                (f"{one.option} = {one.value!r} is passed over: {one.reason}" for one in refused),
            )
        if self._told == self._resolved:
            return None
        self._told = self._resolved
        return self._resolved
