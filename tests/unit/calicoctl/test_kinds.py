import pytest

from calicoctl.kinds import UnknownKind, asked


@pytest.mark.parametrize(
    ("word", "api_version", "kind", "v1"),
    [
        ("ipPool", None, "IPPool", True),
        ("ippool", None, "IPPool", False),
        ("IPPool", None, "IPPool", False),
        ("pools", None, "IPPool", False),
        ("ipPool", "v3", "IPPool", False),
        ("ippool", "v1", "IPPool", True),
        ("node", None, "Node", False),
        ("node", "v1", "Node", True),
        ("gnp", None, "GlobalNetworkPolicy", False),
        ("policy", "v1", "GlobalNetworkPolicy", True),
        ("wep", None, "WorkloadEndpoint", False),
    ],
)
def test_a_word_means_a_kind_in_an_era(word: str, api_version: str | None, kind: str, v1: bool) -> None:
    found = asked(word, api_version)
    assert (found.kind.name, found.v1) == (kind, v1)


def test_an_unknown_word_is_told_what_there_is() -> None:
    with pytest.raises(UnknownKind, match="resource type 'pod' is not supported") as told:
        asked("pod", None)
    assert "IPPool" in (told.value.hint or "")


@pytest.mark.parametrize(
    ("word", "api_version", "kind", "v1"),
    [
        ("policy", None, "NetworkPolicy", False),
        ("Policy", "v3", "NetworkPolicy", False),
        ("hostEndpoint", None, "HostEndpoint", True),
        ("hostendpoint", None, "HostEndpoint", False),
        ("workloadEndpoint", None, "WorkloadEndpoint", True),
        ("hep", "v1", "HostEndpoint", True),
        ("netsets", None, "NetworkSet", False),
        ("gnetsets", None, "GlobalNetworkSet", False),
        ("stagedglobalnetworkpolicies", None, "StagedGlobalNetworkPolicy", False),
    ],
)
def test_words_around_policy(word: str, api_version: str | None, kind: str, v1: bool) -> None:
    found = asked(word, api_version)
    assert (found.kind.name, found.v1) == (kind, v1)
