"""Plain values -> YAML as the original prints it: keys sorted, lists not indented, texts quoted where they must be."""

import yaml

from resources.gotext import JSON

_STRING = "tag:yaml.org,2002:str"


class _Dumper(yaml.SafeDumper):
    """Quotes with double quotes, never makes anchors."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    node = dumper.represent_scalar(_STRING, text)
    plain = dumper.resolve(yaml.ScalarNode, text, (True, False)) == _STRING  # type: ignore[no-untyped-call]
    if "\n" in text:
        node.style = "|"
    elif not plain or text in _READ_AS_BOOLEAN:
        node.style = '"'
    return node


_READ_AS_BOOLEAN = frozenset({"y", "Y", "n", "N"})
"""Texts that other readers of YAML 1.1 take for booleans and PyYAML does not."""

def _float(dumper: _Dumper, number: float) -> yaml.ScalarNode:
    if number.is_integer() and abs(number) < 1e21:
        return dumper.represent_scalar("tag:yaml.org,2002:int", str(int(number)))
    return dumper.represent_float(number)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(float, _float)


def dump(value: JSON) -> str:
    """Return `value` as YAML."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True, width=10**6)
    assert isinstance(text, str)
    return text.removesuffix("...\n")
