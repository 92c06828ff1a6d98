"""What is wrong with records of the store, kept until it is not."""

from collections.abc import Iterable

from resources.datastore.keys import ResourceKey


class Problems:
    """What is wrong with records, by key and topic, and whose topics changed since they were last told."""

    def __init__(self) -> None:
        self._texts: dict[ResourceKey, dict[str, tuple[str, ...]]] = {}
        self._changed: set[ResourceKey] = set()

    def note(self, key: ResourceKey, topic: str, texts: Iterable[str]) -> None:
        """Replace what is known under a topic; nothing clears it."""
        texts = tuple(texts)
        topics = self._texts.get(key, {})
        if topics.get(topic, ()) == texts:
            return
        self._changed.add(key)
        if texts:
            self._texts.setdefault(key, {})[topic] = texts
        else:
            del topics[topic]
            if not topics:
                del self._texts[key]

    def forget(self, key: ResourceKey) -> None:
        if self._texts.pop(key, None):
            self._changed.add(key)

    def take_changes(self) -> dict[ResourceKey, tuple[str, ...]]:
        changes = {key: self._of(key) for key in self._changed}
        self._changed.clear()
        return changes

    def whole(self) -> dict[ResourceKey, tuple[str, ...]]:
        return {key: self._of(key) for key in self._texts}

    def _of(self, key: ResourceKey) -> tuple[str, ...]:
        topics = self._texts.get(key, {})
        return tuple(text for topic in sorted(topics) for text in topics[topic])
