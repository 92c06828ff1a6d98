"""Names of endpoints (reference resources.md 2.6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.kinds.workloadendpoint import (
    WorkloadEndpointSpec,
    endpoint_name,
    node_prefix,
    parse_endpoint_name,
)

SEGMENT = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)


def test_the_reference_s_example() -> None:
    spec = WorkloadEndpointSpec(orchestrator="libnetwork", node="node-1", endpoint="ab-c", workload="anything")
    assert endpoint_name(spec) == "node--1-libnetwork-libnetwork-ab--c"


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (WorkloadEndpointSpec(orchestrator="k8s", node="n", pod="p", endpoint="eth0"), "n-k8s-p-eth0"),
        (WorkloadEndpointSpec(orchestrator="cni", node="n", container_id="c-1", endpoint="e"), "n-cni-c--1-e"),
        (WorkloadEndpointSpec(orchestrator="docker", node="n", workload="w", endpoint="e"), "n-docker-w-e"),
    ],
)
def test_segments_by_orchestrator(spec: WorkloadEndpointSpec, name: str) -> None:
    assert endpoint_name(spec) == name


@given(SEGMENT, SEGMENT, SEGMENT, SEGMENT)
def test_a_name_is_parsed_back(node: str, orchestrator: str, workload: str, endpoint: str) -> None:
    spec = WorkloadEndpointSpec(orchestrator=orchestrator, node=node, workload=workload, endpoint=endpoint)
    if orchestrator in ("k8s", "cni", "libnetwork"):
        return
    name = endpoint_name(spec)
    assert parse_endpoint_name(name) == (node, orchestrator, workload, endpoint)
    assert name.startswith(node_prefix(node))
