"""What calicoctl takes felix enforces to the letter: a rule that is accepted is never left out or closed."""

import json
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.random_rules import rule_document
from felix.calc.rules import read_rules
from resources.documents import InvalidFile, load
from resources.kinds.rule import Rule

HEADS = {
    "GlobalNetworkPolicy": {"name": "p"},
    "NetworkPolicy": {"name": "p", "namespace": "libnetwork"},
    "Profile": {"name": "p"},
}


def accepted(kind: str, direction: str, rules: list[object]) -> tuple[list[Rule], list[Rule]] | None:
    """Return ingress and egress rules as they are written to the store, or None if they are refused."""
    document = {
        "apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": HEADS[kind], "spec": {direction: rules},
    }  # fmt: skip
    try:
        (read,) = load(json.dumps(document).encode(), "f").documents
    except InvalidFile:
        return None
    spec = read.resource.spec
    return spec.ingress, spec.egress  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@settings(deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_an_accepted_rule_is_enforced(kind: str, direction: str, random: Random) -> None:
    rules = accepted(kind, direction, [rule_document(random)])
    if rules is not None:
        read, problems = read_rules(*rules, namespace="libnetwork" if kind == "NetworkPolicy" else "")
        assert problems == ()
        assert len(read.ingress or ()) + len(read.egress or ()) == 1


def test_the_rules_are_of_all_sorts() -> None:
    """Else the test above would say little."""
    random = Random(7)
    documents = [rule_document(random) for _ in range(2000)]
    taken = [document for document in documents if accepted("GlobalNetworkPolicy", "ingress", [document])]
    assert 400 < len(taken) < 1600
    fields = Counter(field for document in taken for field in document)
    sides = Counter(f for document in taken for side in ("source", "destination") for f in document.get(side, ()))
    assert min(fields[f] for f in ("protocol", "notProtocol", "icmp", "notICMP", "ipVersion", "metadata")) > 5
    assert min(sides[f] for f in ("nets", "notNets", "ports", "notPorts", "selector", "notSelector")) > 20
    assert sides["namespaceSelector"] > 20
    assert not {"http"} & set(fields)
    assert not sides["services"]
