"""Names of v1 objects (reference resources.md 4.2, with its check values)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.kinds.naming import host_endpoint_name, node_name, norm, policy_name, pool_name, profile_name, q
from resources.names import NAME_REGEX


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Web_Tier", "web-tier"), ("my.policy", "my.policy"), ("node1.Eth0/1", "node1.eth0.1"), ("a__b", "a-b"),
        ("a.-.b", "a.b"), ("a-.b", "a.b"), ("a.-b", "a.b"), ("a--b", "a--b"), (".a.", "a"), ("-a-", "a"), ("_a_", "a"),
        ("a_/b", "a.b"), ("A/B", "a.b"), ("a..b", "a.b"), ("Ä", ""), ("web-a.example.COM", "web-a.example.com"),
    ],
)  # fmt: skip
def test_norm(text: str, name: str) -> None:
    assert norm(text) == name
    assert node_name(text) == name


def test_the_reference_s_check_values() -> None:
    assert q("Web_Tier", norm("Web_Tier")) == "web-tier-38278387"
    assert policy_name("my.policy") == "my-policy-8cc308f2"
    assert profile_name("my.policy") == "my.policy"
    assert host_endpoint_name("node1", "Eth0/1") == "node1.eth0.1-0ca5d1c0"
    assert pool_name("17.16.10.0/24") == "17-16-10-0-24"
    assert pool_name("fd80:24e2:f998:72d6::/64") == "fd80-24e2-f998-72d6---64"


def test_names_of_namespaces_of_kubernetes() -> None:
    assert profile_name("k8s_ns.default") == "kns.default"


@given(st.text(alphabet="aZ9._/-", min_size=1, max_size=20))
def test_a_normal_name_stays_and_any_other_becomes_one(text: str) -> None:
    name = norm(text)
    assert norm(name) == name
    assert not name or NAME_REGEX.match(name)
    assert (profile_name(text) == text) is (norm(text) == text)
    assert "." not in policy_name(text)
