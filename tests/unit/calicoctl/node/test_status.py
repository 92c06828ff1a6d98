import io
import socket
from pathlib import Path

import msgspec
import pytest

from calicoctl.node.status import AgentState, BgpState, FelixState, status, trouble, unready, warnings, without_address
from resources.runtime import paths
from resources.runtime.health import Health


def test_what_is_not_as_asked_for_is_one_line_each() -> None:
    state = msgspec.json.decode(
        b"""{"node": "node1", "speaker": {"stage": "absent", "trouble": "it ended"},
        "withheld": {"10.6.0.64/26": {"pool": "p", "reason": "no tunl0"},
        "10.6.0.0/26": {"pool": "p", "reason": "no tunl0"}}, "unusable": [{"what": "node2", "reason": "no address"}],
        "next_hops": {"10.2.0.5": {"what": "10.2.0.5 (node n3): it is behind a router", "routes": 2}},
        "untold": {"node4": ["10.6.4.0/26", "10.6.4.64/26", "10.6.4.128/26", "10.6.4.192/26"]},
        "twins": ["node3 has this node's BGP identifier"],
        "records": {"nodes/x": "no JSON"}, "kernel": {"conflicts": {"10.0.0.0/26": "via 192.0.2.1 proto 4"},
        "failed": {}, "routes": 3}}""",
        type=BgpState,
    )
    assert warnings(state) == [
        "ExaBGP, which speaks BGP for calico-bgpd, does not run and is started again: it ended",
        "2 routes of pool p are withheld: no tunl0 (10.6.0.0/26, 10.6.0.64/26)",
        "next hop of 2 routes 10.2.0.5 (node n3): it is behind a router",
        "node2 is not used: no address",
        "node3 has this node's BGP identifier",
        "node4 is up and does not announce 4 of its blocks (10.6.4.0/26, 10.6.4.64/26, 10.6.4.128/26, ...): its "
        "containers there cannot be reached from here; look at calicoctl node status on node4",
        "nodes/x is not used: no JSON",
        "10.0.0.0/26 is somebody else's route (via 192.0.2.1 proto 4) and stays",
    ]


def test_sessions_that_are_withheld_for_one_cause_are_one_line() -> None:
    state = msgspec.json.decode(
        b"""{"unusable": [
        {"what": "BGPConfiguration(default) nodeMeshPassword", "reason": "password: no /x", "peer": "10.0.0.2"},
        {"what": "BGPConfiguration(default) nodeMeshPassword", "reason": "password: no /x", "peer": "10.0.0.3"},
        {"what": "BGPPeer(tor)", "reason": "BGPFilter(f) does not exist and is passed over", "peer": null}]}""",
        type=BgpState,
    )
    assert warnings(state) == [
        "no session with 10.0.0.2, 10.0.0.3: BGPConfiguration(default) nodeMeshPassword: password: no /x",
        "BGPPeer(tor) is not used: BGPFilter(f) does not exist and is passed over",
    ]


def test_a_quiet_state_gives_no_line() -> None:
    assert warnings(BgpState()) == trouble(FelixState()) == without_address(AgentState()) == []


def test_a_tunnel_that_cannot_be_had_is_named_with_the_way_out() -> None:
    state = msgspec.json.decode(b'{"troubles": {"ipip": "this kernel has no IPIP; modprobe ipip"}}', type=FelixState)
    assert trouble(state) == ["no ipip tunnel: this kernel has no IPIP; modprobe ipip"]


def test_routes_that_are_missing_and_what_cannot_be_written_say_why() -> None:
    state = msgspec.json.decode(
        b"""{"withheld": {"node2": "no route to 10.0.1.0/26 on node node2: it has no address"},
        "failing": ["tunnel vxlan.calico"], "errors": {"tunnel vxlan.calico": "no such type; load the module"}}""",
        type=FelixState,
    )
    assert trouble(state) == [
        "no route to 10.0.1.0/26 on node node2: it has no address",
        "tunnel vxlan.calico could not be written: no such type; load the module; felix tries again",
    ]


def test_a_tunnel_without_an_address_says_why() -> None:
    state = msgspec.json.decode(
        b"""{"node": "node1", "tunnels": {"ipip": {"address": null, "pools": [], "trouble": "the pool is full"},
        "vxlan": {"address": "10.0.0.1", "trouble": ""}}, "unusable": [{"what": "ippools/x", "reason": "no CIDR"}]}""",
        type=AgentState,
    )
    assert without_address(state) == [
        "no address for the ipip tunnel: the pool is full", "ippools/x is not used for tunnels: no CIDR",
    ]


def test_records_that_felix_cannot_use_are_named() -> None:
    state = msgspec.json.decode(
        b"""{"acting": true, "revision": 7, "failing": ["set cali40s:x"], "problems": {
        "profiles/net": ["selector x has more than 5 members: rules with it allow nothing"],
        "globalnetworkpolicies/p": ["it is skipped: P(p) cannot be read: no JSON", "another"]}}""",
        type=FelixState,
    )
    assert trouble(state) == [
        "globalnetworkpolicies/p: it is skipped: P(p) cannot be read: no JSON",
        "globalnetworkpolicies/p: another",
        "profiles/net: selector x has more than 5 members: rules with it allow nothing",
        "set cali40s:x could not be written; felix tries again",
    ]


def test_a_speaker_that_waits_for_its_record_says_so_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    assert unready() == []
    health = Health("this node's record in the datastore")
    health.serve(paths.health_socket("bgpd"))
    assert unready() == [
        "calico-bgpd is not ready: waiting for this node's record in the datastore; "
        "to start it anew: calicoctl node stop, then calicoctl node run"
    ]
    health.done("this node's record in the datastore")
    assert unready() == []


def test_daemons_that_are_there_and_do_not_answer_are_not_said_to_be_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    assert status(io.StringIO()) == 1
    assert capsys.readouterr().err.startswith("Calico process is not running.\n")
    with socket.socket(socket.AF_UNIX) as felix, socket.socket(socket.AF_UNIX) as bgpd:
        felix.bind(str(paths.health_socket("felix")))
        felix.listen()  # and nobody ever accepts, as with a process that was stopped
        assert status(io.StringIO()) == 1
        said = capsys.readouterr().err
        assert said.startswith("Calico process is there and does not answer: ")
        assert "calicoctl node stop, then calicoctl node run" in said
        paths.health_socket("felix").unlink()
        Health().serve(paths.health_socket("felix"))
        bgpd.bind(str(tmp_path / "bird.ctl"))
        bgpd.listen()
        out = io.StringIO()
        assert status(out) == 0
        first, second = out.getvalue().split("IPv6 BGP status")
        assert "The BGP backend process is there and does not answer: " in first
        assert "The BGP backend process is not running: " in second
