"""Questions to Docker's Engine API, over a real unix socket."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.engine_api import FakeEngine
from libnetwork.engine import DockerEngine, EngineUnavailable
from resources.errors import DoesNotExist

NETWORK = "86a1c958" * 8
ENDPOINT = "863581aa" * 8
PATIENCE = 0.2


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        engine.add_network(NETWORK, "calico-net1")
        yield engine


@pytest.fixture
def engine(api: FakeEngine) -> DockerEngine:
    return DockerEngine(api.url, timeout_seconds=PATIENCE)


def test_the_name_of_a_network_is_asked_once(api: FakeEngine, engine: DockerEngine) -> None:
    assert [engine.network_name(NETWORK) for _ in range(3)] == ["calico-net1"] * 3
    assert api.requests.count(f"/networks/{NETWORK}") == 1


def test_a_forgotten_network_is_asked_for_again(api: FakeEngine, engine: DockerEngine) -> None:
    engine.network_name(NETWORK)
    engine.forget_network(NETWORK)
    api.networks[NETWORK].name = "another"
    assert engine.network_name(NETWORK) == "another"


def test_a_network_docker_does_not_know(engine: DockerEngine) -> None:
    with pytest.raises(DoesNotExist, match="Docker knows nothing of network 0123"):
        engine.network_name("0123" * 16)


def test_nothing_is_asked_before_the_first_question(tmp_path: Path) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/docker.sock", timeout_seconds=PATIENCE)
    with FakeEngine(tmp_path / "docker.sock") as api:
        api.add_network(NETWORK, "late")
        assert engine.network_name(NETWORK) == "late"


@pytest.mark.parametrize(("ours", "minimum"), [("1.24", "1.12"), ("1.41", "1.12"), ("1.45", "1.24"), ("1.51", "1.44")])
def test_the_version_is_agreed_upon(api: FakeEngine, engine: DockerEngine, ours: str, minimum: str) -> None:
    api.api_version, api.minimum = ours, minimum
    assert engine.network_name(NETWORK) == "calico-net1"


def test_no_docker_at_all(tmp_path: Path) -> None:
    engine = DockerEngine(f"unix://{tmp_path}/none.sock", timeout_seconds=PATIENCE)
    with pytest.raises(EngineUnavailable, match=r"none\.sock did not tell network 86a1c95886a1: .*No such file"):
        engine.network_name(NETWORK)


def test_a_docker_that_does_not_answer_is_waited_for_as_long_as_said(api: FakeEngine, engine: DockerEngine) -> None:
    engine.container_labels("c1")
    api.silent_seconds = 2 * PATIENCE
    with pytest.raises(EngineUnavailable, match="timed out"):
        engine.network_name(NETWORK)


def test_a_docker_in_trouble(api: FakeEngine, engine: DockerEngine) -> None:
    api.status = 500
    with pytest.raises(EngineUnavailable, match="500"):
        engine.network_name(NETWORK)


def test_docker_may_be_replaced_by_an_older_one(api: FakeEngine, engine: DockerEngine) -> None:
    api.api_version = "1.51"
    assert engine.container_labels("none") is None
    api.api_version = "1.41"
    with pytest.raises(EngineUnavailable):
        engine.network_name(NETWORK)
    assert engine.network_name(NETWORK) == "calico-net1"


def test_the_container_of_an_endpoint_that_joins(api: FakeEngine, engine: DockerEngine) -> None:
    api.networks[NETWORK].endpoints = {"f" * 64: "other", ENDPOINT: "docker-test1"}
    assert engine.container_name(NETWORK, ENDPOINT) == "docker-test1"
    api.networks[NETWORK].joined.add(ENDPOINT)
    assert engine.container_name(NETWORK, ENDPOINT) == "docker-test1"


def test_an_endpoint_that_is_not_listed_yet(engine: DockerEngine) -> None:
    assert engine.container_name(NETWORK, ENDPOINT) is None


def test_labels_are_those_of_the_container_of_exactly_that_name(api: FakeEngine, engine: DockerEngine) -> None:
    api.add_container("web", {"role": "right"})
    api.add_container("web2", {"role": "longer"})
    api.add_container("my-web", {"role": "ends so"})
    api.add_container("w.b", {"role": "as a pattern"})
    assert engine.container_labels("web") == {"role": "right"}
    assert engine.container_labels("w.b") == {"role": "as a pattern"}
    assert engine.container_labels("we") is None
