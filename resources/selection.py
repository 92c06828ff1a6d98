"""What the selectors of policies and rules mean over the labels of endpoints and sets (reference resources.md 7.2).

Labels of namespaces and service accounts stand on endpoints under a prefix. Without Kubernetes nothing writes them, so
that a selector over service accounts can pick nothing but by what is absent.
"""

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
