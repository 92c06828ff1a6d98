"""YAML through PyYAML's nodes: the only module that imports it."""

import yaml

Plain = str | list["Plain"] | dict[str, "Plain"]
"""A document with every scalar as the text that was typed; nothing (``key:``) is the empty text."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


class NotYaml(ValueError):
    """The text cannot be read; the message has line and column."""


def load(text: str) -> Plain:
    """Return the one document of a text without giving its scalars types.

    Raises:
        NotYaml: a syntax error, more than one document, a repeated key, an alias.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        what = " ".join(filter(None, (error.context, error.problem)))
        raise NotYaml(f"{_place(error.problem_mark)}{what}") from error
    except yaml.YAMLError as error:
        raise NotYaml(" ".join(str(error).split())) from error
    return "" if node is None else _plain(node)


def _plain(node: yaml.Node) -> Plain:
    if isinstance(node, yaml.ScalarNode):
        return "" if node.style is None and node.value in _NULLS else str(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    assert isinstance(node, yaml.MappingNode)
    fields: dict[str, Plain] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NotYaml(f"{_place(key.start_mark)}a key must be a text")
        if key.value in fields:
            raise NotYaml(f"{_place(key.start_mark)}{key.value!r} stands twice")
        fields[key.value] = _plain(value)
    return fields


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
