"""The transport: what Docker sends and reads on the socket, whatever the driver behind it."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.plugin_client import PluginClient, PluginError
from libnetwork.deadline import Deadline
from libnetwork.messages import AddressSpaces, Empty, EndpointRef, Message, NoArguments
from libnetwork.server import Call, PluginApp, PluginServer, Role, sentence, succeed
from resources.errors import DoesNotExist, Rejected

IDS = {"NetworkID": "86a1c958" * 8, "EndpointID": "863581aa" * 8}


def refuse(_: EndpointRef, __: Deadline) -> Message:
    raise Rejected("No address assigned for endpoint", hint="use --ipam-driver calico-ipam")


def break_down(_: EndpointRef, __: Deadline) -> Message:
    raise KeyError("secret")


class Gate:
    """A call that waits until it is let through."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()

    def pass_through(self, _: EndpointRef, __: Deadline) -> Message:
        self.inside.release()
        assert self.open.wait(10)
        return Empty()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def app(gate: Gate) -> PluginApp:
    role = Role(
        "NetworkDriver",
        {
            "Leave": Call(EndpointRef, succeed),
            "GetSpaces": Call(NoArguments, lambda _, __: AddressSpaces()),
            "CreateEndpoint": Call(EndpointRef, refuse),
            "Join": Call(EndpointRef, break_down),
            "Wait": Call(EndpointRef, gate.pass_through),
        },
    )
    return PluginApp(role, call_seconds=5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plugins" / "calico.sock"


@pytest.fixture
def server(app: PluginApp, path: Path) -> Iterator[PluginServer]:
    server = PluginServer(app, path, threads=8)
    server.start()
    yield server
    server.stop(patience_seconds=1)


@pytest.fixture
def client(server: PluginServer) -> Iterator[PluginClient]:
    client = PluginClient(server.path)
    yield client
    client.close()


def test_activation_names_the_one_role(client: PluginClient) -> None:
    assert client.call("Plugin.Activate") == {"Implements": ["NetworkDriver"]}


@pytest.mark.parametrize("host", ["", "plugin.moby.localhost", "x"])
def test_any_host_header_will_do(server: PluginServer, host: str) -> None:
    assert PluginClient(server.path, host=host).call("NetworkDriver.Leave", IDS) == {}


def test_one_connection_serves_many_calls(client: PluginClient) -> None:
    for _ in range(3):
        assert client.call("NetworkDriver.Leave", IDS) == {}
        assert client.call("NetworkDriver.GetSpaces")["LocalDefaultAddressSpace"] == "CalicoLocalAddressSpace"


def test_a_refusal_is_an_error_of_both_decoders_of_docker(client: PluginClient) -> None:
    with pytest.raises(PluginError) as refused:
        client.call("NetworkDriver.CreateEndpoint", IDS)
    assert refused.value.status == 500
    assert refused.value.text == "No address assigned for endpoint; use --ipam-driver calico-ipam"


def test_a_defect_is_answered_without_its_details_and_the_server_lives(client: PluginClient) -> None:
    with pytest.raises(PluginError) as broken:
        client.call("NetworkDriver.Join", IDS)
    assert broken.value.status == 500
    assert "secret" not in broken.value.text
    assert client.call("NetworkDriver.Leave", IDS) == {}


@pytest.mark.parametrize("call", ["NetworkDriver.Unheard", "IpamDriver.Leave", "Plugin.Leave", ""])
def test_an_unknown_path_is_not_found(client: PluginClient, call: str) -> None:
    with pytest.raises(PluginError) as refused:
        client.call(call, IDS)
    assert refused.value.status == 404


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"{", b'{"NetworkID":7,"EndpointID":"x"}'])
def test_a_body_that_is_no_request_is_refused_before_the_driver_is_asked(client: PluginClient, body: bytes) -> None:
    answer = client.post("NetworkDriver.Join", body)
    assert answer.status == 400
    assert str(answer.document()["Err"]).startswith("not a request of NetworkDriver.Join: ")


def test_a_body_of_absurd_length_is_refused(server: PluginServer) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.settimeout(5)
        raw.sendall(b"POST /NetworkDriver.Leave HTTP/1.1\r\nHost: \r\nContent-Length: 1000000000\r\n\r\n{}")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


def test_get_is_not_a_call(server: PluginServer) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.settimeout(5)
        raw.sendall(b"GET /NetworkDriver.Leave HTTP/1.1\r\nHost: \r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 405")


def test_no_call_blocks_another(server: PluginServer, gate: Gate) -> None:
    clients = [PluginClient(server.path) for _ in range(7)]
    waiting = [threading.Thread(target=client.call, args=("NetworkDriver.Wait", IDS)) for client in clients]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert gate.inside.acquire(timeout=5)
    assert PluginClient(server.path, timeout=5).call("NetworkDriver.Leave", IDS) == {}
    gate.open.set()
    for thread in waiting:
        thread.join(5)


def test_the_socket_is_for_root_and_its_group(server: PluginServer) -> None:
    assert server.path.is_socket()
    assert server.path.stat().st_mode & 0o777 == 0o660


def test_the_socket_of_a_dead_process_is_replaced(app: PluginApp, path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = PluginServer(app, path, threads=2)
    server.start()
    assert PluginClient(path).call("NetworkDriver.Leave", IDS) == {}
    server.stop()


def test_a_call_under_way_is_finished_before_the_end(server: PluginServer, gate: Gate) -> None:
    answers: list[object] = []
    caller = threading.Thread(
        target=lambda: answers.append(PluginClient(server.path).call("NetworkDriver.Wait", IDS))
    )
    caller.start()
    assert gate.inside.acquire(timeout=5)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    stopper.join(0.1)
    assert stopper.is_alive()
    gate.open.set()
    caller.join(5)
    stopper.join(5)
    assert answers == [{}]
    assert not stopper.is_alive()


def test_after_the_end_nobody_answers_and_nothing_is_left(server: PluginServer) -> None:
    kept = PluginClient(server.path)
    kept.call("NetworkDriver.Leave", IDS)
    server.stop()
    assert list(server.path.parent.iterdir()) == []
    with pytest.raises(OSError, match="No such file"):
        PluginClient(server.path).call("NetworkDriver.Leave", IDS)
    with pytest.raises(Exception):  # noqa: B017  whichever way the closed connection shows
        kept.call("NetworkDriver.Leave", IDS)


def test_the_socket_of_a_successor_is_left_alone(server: PluginServer, app: PluginApp) -> None:
    successor = PluginServer(app, server.path, threads=2)
    successor.start()
    server.stop()
    assert PluginClient(server.path).call("NetworkDriver.Leave", IDS) == {}
    successor.stop()


def test_what_the_user_reads() -> None:
    assert sentence(DoesNotExist("no such pool")) == "no such pool"
    assert sentence(Rejected("no such pool", hint="create it")) == "no such pool; create it"
    assert sentence(Rejected("There is no such pool.", hint="create it")) == "There is no such pool. create it"
