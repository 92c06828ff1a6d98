"""What the selectors of policies and rules mean over the labels of endpoints and sets (reference resources.md 7.2).

Labels of namespaces and service accounts stand on endpoints under a prefix. Without Kubernetes nothing writes them, so
that a selector over service accounts can pick nothing but by what is absent.
"""

from collections.abc import Mapping
from dataclasses import replace

from resources.selector import (
    Constant,
    Expression,
    LabelTest,
    Operator,
    Selector,
    compiled,
    conjunction,
    negated,
    parse,
    rewritten,
)

NAMESPACE_LABEL = "projectcalico.org/namespace"
SERVICE_ACCOUNT_LABEL = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."


def seen_labels(labels: Mapping[str, str], namespace: str) -> Mapping[str, str]:
    """Return the labels of an endpoint or network set that selectors see.

    The namespace is that of its key ("" for none), whatever the labels say; what a namespace or service account would
    hand down cannot be claimed by a label of one's own.
    """
    forged = [key for key in labels if key.startswith((NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX))]
    if not forged and labels.get(NAMESPACE_LABEL, "") == namespace:
        return labels
    seen = {key: value for key, value in labels.items() if key not in forged and key != NAMESPACE_LABEL}
    return seen | {NAMESPACE_LABEL: namespace} if namespace else seen


def in_namespace(namespace: str) -> Selector:
    """Return the selector of everything in a namespace."""
    return compiled(LabelTest(NAMESPACE_LABEL, Operator.EQUALS, (namespace,)))


def namespace_selector(text: str) -> Selector:
    """Return the selector over endpoints that a selector over namespaces amounts to. Raises SelectorError."""

    def leaf(node: LabelTest | Constant) -> Expression:
        has_namespace = LabelTest(NAMESPACE_LABEL, Operator.HAS)
        if node is Constant.GLOBAL:
            return negated(has_namespace)
        if isinstance(node, Constant):
            return has_namespace
        return replace(node, label=NAMESPACE_PREFIX + node.label)

    return compiled(rewritten(parse(text).root, leaf))


def service_account_selector(text: str) -> Selector:
    """Return the selector over endpoints that one over service accounts amounts to. Raises SelectorError."""

    def leaf(node: LabelTest | Constant) -> Expression:
        if isinstance(node, Constant):
            return LabelTest(SERVICE_ACCOUNT_LABEL, Operator.HAS)
        return replace(node, label=SERVICE_ACCOUNT_PREFIX + node.label)

    return compiled(rewritten(parse(text).root, leaf))


def policy_selector(
    selector: str, *, namespace: str = "", namespaces: str = "", service_accounts: str = ""
) -> Selector:
    """Return the selector of the endpoints that a policy is for.

    `namespace` is the policy's own, `namespaces` and `service_accounts` its selectors over those. Raises SelectorError.
    """
    parts = [parse(selector)]
    if namespace:
        parts.append(in_namespace(namespace))
    if namespaces:
        parts.append(namespace_selector(namespaces))
    if service_accounts:
        parts.append(service_account_selector(service_accounts))
    return conjunction(*parts)
