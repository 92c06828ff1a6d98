"""BGPPeer, BGPFilter and what BGPConfiguration and Node say of BGP (reference resources.md 2.2 to 2.5, 4, 6)."""

import json
from ipaddress import ip_address

import pytest

from resources.codec import BadRecord, decode, encode, shown_v1_document
from resources.datastore.sync import Change
from resources.documents import Document, InvalidFile, load
from resources.kinds.bgpfilter import KIND as FILTER
from resources.kinds.bgpfilter import BGPFilterSpec, FilterRule
from resources.kinds.bgppeer import KIND as PEER
from resources.kinds.bgppeer import BGPPeer, peer_address
from resources.kinds.secret import key_fault
from resources.typed_sync import TypedReader

SECRET = {"secretKeyRef": {"name": "bgp", "key": "password"}}
MANY = {"add": [{"addCommunity": {"value": "1:1"}}] * 11}


def v3(kind: str, spec: object, name: str = "x") -> str:
    document = {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return json.dumps(document)


def peer(**spec: object) -> str:
    return v3("BGPPeer", {"peerIP": "10.0.0.1", "asNumber": 64513} | spec)


def filtering(rule: object, direction: str = "importV4") -> str:
    return v3("BGPFilter", {direction: [{"action": "Accept"}, rule]})


def within(cidr: str = "10.0.0.0/8", **fields: object) -> dict[str, object]:
    return {"cidr": cidr, "matchOperator": "In", "action": "Accept"} | fields


def doing(*operations: object, action: str = "Accept") -> str:
    return filtering({"action": action, "operations": list(operations)})


def told(text: str) -> list[tuple[str, str]]:
    with pytest.raises(InvalidFile) as caught:
        load(text.encode(), "f")
    return [(str(f.problem).partition(":")[0].partition(" = ")[0], str(f.problem)) for f in caught.value.findings]


def one(text: str) -> Document:
    (document,) = load(text.encode(), "f").documents
    return document


ADDRESS = "must be an IP address, or one with a port: 10.0.0.1:179, [fd00::1]:179"
BAD = [
    *((peer(peerIP=text), "peerIP", ADDRESS) for text in (
        "192.168.0.256", "fd5f::6::ee", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:", "[10.0.0.1]:179", "[fd00::1]",
        "[fd00::1]:0", "10.0.0.1:1:1", "10.0.0.0/24", "host", "[fd00::1%eth0]:179", "10.0.0.1:٣", "::ffff:10.0.0.1",
    )),
    (peer(peerIP="2001:db8:1:2:3:4:5:6:179"), "peerIP", "did you mean [2001:db8:1:2:3:4:5:6]:179?"),
    (peer(peerIP="[fd00::1]"), "peerIP", "did you mean fd00::1?"),
    (peer(peerIP="0.0.0.0"), "peerIP", "is the address of no host"),
    (peer(peerIP="[ff02::1]:179"), "peerIP", "is the address of no host"),
    (peer(node="a", nodeSelector="all()"), "node", "Node field must be empty when NodeSelector is specified"),
    (peer(node="Bad Node"), "node", "name must consist of lower case"),
    (peer(nodeSelector="rack = 'x'"), "nodeSelector", "expected =="),
    (peer(nodeSelector="global()"), "nodeSelector", "global() can only be used"),
    (peer(asNumber=0, peerSelector="all()"), "peerIP", "PeerIP field must be empty when PeerSelector is specified"),
    (v3("BGPPeer", {"peerSelector": "all()", "asNumber": 1}), "asNumber",
     "ASNumber field must be empty when PeerSelector is specified; the AS number is that of the node"),
    (v3("BGPPeer", {}), "peerIP", "the BGPPeer names no peer"),
    (v3("BGPPeer", {"asNumber": 5, "filters": []}), "peerIP", "write peerIP and asNumber, or peerSelector"),
    *((peer(asNumber=value), "asNumber", "AS ") for value in (4294967296, -1, "65536.1", "abc")),
    (peer(localASNumber=0), "localASNumber", "0 is no AS number"),
    (peer(localWorkloadSelector="all()"), "peerIP", "must be empty when LocalWorkloadSelector is specified"),
    (v3("BGPPeer", {"localWorkloadSelector": "all()"}), "asNumber", "ASNumber field is required"),
    (peer(reachableBy="fd00::1"), "reachableBy", "ReachableBy and PeerIP address family mismatched"),
    (peer(reachableBy="x"), "reachableBy", "must be an IP address"),
    (v3("BGPPeer", {"peerSelector": "all()", "reachableBy": "10.0.0.1"}), "reachableBy",
     "ReachableBy field must be empty when PeerIP is empty"),
    (peer(keepOriginalNextHop=True, nextHopMode="Self"), "keepOriginalNextHop",
     "It must not be set to true when NextHopMode is configured."),
    (peer(nextHopMode="self"), "nextHopMode", "did you mean 'Self'?"),
    (peer(sourceAddress="x"), "sourceAddress", "allowed are UseNodeIP, None"),
    (peer(reversePeering="Never"), "reversePeering", "allowed are Auto, Manual"),
    (peer(maxRestartTime="-1s"), "maxRestartTime", "must not be negative"),
    (peer(maxRestartTime=120), "maxRestartTime", "did you mean 120s?"),
    (peer(keepaliveTime="-1s"), "keepaliveTime", "must not be negative"),
    (peer(numAllowedLocalASNumbers=-1), "numAllowedLocalASNumbers", "between 0 and 2147483647"),
    (peer(ttlSecurity=256), "ttlSecurity", "between 0 and 255"),
    (peer(ttlSecurity=0), "ttlSecurity", "between 1 and 255"),
    (peer(filters=[""]), "filters[0]", "must be the name of a BGPFilter"),
    (peer(filters=["a", "B_"]), "filters[1]", "name must consist of lower case"),
    (peer(password={"secretKeyRef": {"name": "../a", "key": "b"}}), "password.secretKeyRef.name", "name must consist"),
    (peer(password={"secretKeyRef": {"name": "a"}}), "password.secretKeyRef.key", "a key has letters"),
    (peer(password="s3cret"), "password", "must be a mapping with secretKeyRef"),
    *((v3("BGPConfiguration", {"nodeMeshPassword": {"secretKeyRef": {"name": "a", "key": key}}}, "default"),
       "nodeMeshPassword.secretKeyRef.key", "a key has letters, digits and") for key in ("..", ".", "a/b", "..a")),
    # BGPFilter
    (filtering({}), "importV4[1].action", "must be set: Accept or Reject"),
    (filtering({"action": "Deny"}), "importV4[1].action", "allowed are Accept, Reject"),
    (filtering({"cidr": "10.0.0.0/8", "action": "Accept"}), "importV4[1].cidr",
     "MatchOperator cannot be empty when CIDR is not; write one of Equal"),
    (filtering({"matchOperator": "In", "action": "Accept"}), "importV4[1].matchOperator",
     "CIDR cannot be empty when MatchOperator is not"),
    (filtering(within(matchOperator="Near")), "importV4[1].matchOperator", "allowed are Equal, NotEqual, In, NotIn"),
    (filtering(within("fd00::/8")), "importV4[1].cidr", "must be an IPv4 CIDR"),
    (filtering(within(), "exportV6"), "exportV6[1].cidr", "must be an IPv6 CIDR"),
    (filtering(within("10.0.0.1/8")), "importV4[1].cidr", "did you mean 10.0.0.0/8?"),
    (filtering(within("10.0.0.1")), "importV4[1].cidr", "write 10.0.0.1/32"),
    (filtering(within(prefixLength={"min": 40})), "importV4[1].prefixLength.min", "between 0 and 32"),
    (filtering(within("fd00::/8", prefixLength={"max": 129}), "importV6"), "importV6[1].prefixLength.max", "0 and 128"),
    (filtering({"action": "Accept", "prefixLength": {"max": 24}}), "importV4[1].prefixLength",
     "CIDR cannot be empty when PrefixLength is set; for any prefix of a length write the cidr 0.0.0.0/0"),
    (filtering({"action": "Accept", "source": "x"}), "importV4[1].source", "allowed are RemotePeers"),
    (filtering({"action": "Accept", "interface": "a b"}), "importV4[1].interface", "an interface name, with *"),
    (filtering({"action": "Accept", "interface": "x" * 16}), "importV4[1].interface", "1 to 15 characters"),
    (filtering({"action": "Accept", "peerType": "ebgp"}), "importV4[1].peerType", "did you mean 'eBGP'?"),
    (filtering({"action": "Accept", "communities": {"values": ["1:1", "1:2"]}}), "importV4[1].communities.values",
     "exactly one community is needed; write one rule for each"),
    (filtering({"action": "Accept", "communities": {}}), "importV4[1].communities.values", "exactly one"),
    (filtering({"action": "Accept", "communities": {"values": ["70000:1"]}}), "importV4[1].communities.values[0]",
     "expected 16 bit value"),
    (filtering({"action": "Accept", "asPathPrefix": ["x"]}), "importV4[1].asPathPrefix[0]", "AS "),
    (filtering({"action": "Accept", "priority": 0}), "importV4[1].priority", "between 1 and 2147483646"),
    (doing({"addCommunity": {"value": "1:1"}}, action="Reject"), "importV4[1].operations", "with Accept only"),
    (doing(*MANY["add"]), "importV4[1].operations", "at most 10 operations"),
    (doing({}), "importV4[1].operations[0]", "exactly one of addCommunity, prependASPath and setPriority"),
    (doing({"addCommunity": {"value": "1:1"}, "setPriority": {"value": 5}}), "importV4[1].operations[0]", "exactly"),
    (doing({"addCommunity": {}}), "importV4[1].operations[0].addCommunity.value", "invalid community value"),
    (doing({"prependASPath": {"prefix": []}}), "importV4[1].operations[0].prependASPath.prefix", "1 to 10 AS numbers"),
    (doing({"prependASPath": {"prefix": [1] * 11}}), "importV4[1].operations[0].prependASPath.prefix", "1 to 10"),
    (doing({"setPriority": {}}), "importV4[1].operations[0].setPriority.value", "must be set"),
    (doing({"setPriority": {"value": 2147483647}}), "importV4[1].operations[0].setPriority.value", "2147483646"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "field", "reason"), BAD, ids=[f"{n}-{b[1]}" for n, b in enumerate(BAD)])
def test_bad_input_is_refused_at_its_field(text: str, field: str, reason: str) -> None:
    found = told(text)
    assert [place for place, _ in found] == [f"spec.{field}"]
    assert reason in found[0][1]


@pytest.mark.parametrize(
    "text",
    [
        peer(),
        peer(peerIP="fd00::1"),
        peer(peerIP="[fd00::1]:1790", reachableBy="fd00::2"),
        peer(peerIP="127.0.0.1:1790"),
        peer(asNumber="1.10", password=SECRET, ttlSecurity=255, numAllowedLocalASNumbers=0, maxRestartTime="1h"),
        peer(keepOriginalNextHop=False, nextHopMode="Keep", sourceAddress="None", reversePeering="Manual"),
        v3("BGPPeer", {"peerSelector": "has(rr)", "nodeSelector": "!has(rr)"}),
        v3("BGPFilter", {}),
        filtering({"action": "Reject"}),
        filtering(within(prefixLength={"min": 32}, source="RemotePeers", interface="*", peerType="iBGP")),
        filtering(within("::/0", matchOperator="NotEqual"), "exportV6"),
        doing({"prependASPath": {"prefix": ["1.1", 64512]}}, {"setPriority": {"value": 1}}),
    ],
)
def test_what_is_right_passes_without_a_word(text: str) -> None:
    loaded = load(text.encode(), "f")
    assert (len(loaded.documents), loaded.warnings) == (1, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (v3("BGPPeer", {"peerIP": "10.0.0.1"}), "spec.asNumber: no AS number is given: a session is made only if"),
        (peer(peerIP="fd00::1:179"), "the address ends with 179, which is no port here; for the port write [fd00::1]"),
        (v3("BGPPeer", {"localWorkloadSelector": "all()", "asNumber": 1}), "nothing here peers with workloads"),
        (peer(maxRestartTime="2h"), "BGP cannot say more than 4095 s"),
        (peer(localASNumber=23456), "spec.localASNumber = '23456': this AS number is reserved"),
        (peer(password={}), "spec.password.secretKeyRef: names no secret: sessions with this password are withheld"),
        (filtering(within(prefixLength={"min": 25, "max": 24})), "no prefix inside 10.0.0.0/8 has such a length"),
        (filtering(within(prefixLength={"max": 7})), "no prefix inside 10.0.0.0/8 has such a length"),
        (v3("BGPConfiguration", {"asNumber": 65535}, "default"), "spec.asNumber = '65535': this AS number is reserved"),
        (v3("BGPConfiguration", {"nodeMeshMaxRestartTime": "1h8m16s"}, "default"), "BGP cannot say more than 4095 s"),
        (v3("Node", {"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 65535}}), "spec.bgp.asNumber = '65535'"),
        (v3("Node", {"bgp": {"ipv4Address": "127.0.0.1/8"}}), "127.0.0.1 cannot be a node's address"),
        (v3("Node", {"bgp": {"ipv6Address": "ff02::1"}}), "BGP leaves this address out"),
    ],
)
def test_what_passes_with_a_warning(text: str, words: str) -> None:
    loaded = load(text.encode(), "f")
    assert len(loaded.documents) == 1
    assert [words in str(warning) for warning in loaded.warnings] == [True]


def test_a_password_in_the_clear_is_never_told_again() -> None:
    found = told(peer(password={"secretKeyRef": {"name": "a", "key": "b"}, "password": "s3cret"}))
    assert "s3cret" not in str(found)


def test_durations_and_numbers_are_stored_in_one_form() -> None:
    document = one(peer(asNumber="1.1", maxRestartTime="300s", keepaliveTime="1.5s", localASNumber="64700"))
    assert json.loads(encode(document.kind, document.resource))["spec"] == {
        "peerIP": "10.0.0.1", "asNumber": 65537, "localASNumber": 64700, "maxRestartTime": "5m0s",
        "keepaliveTime": "1.5s",
    }  # fmt: skip


def test_an_empty_key_of_a_secret_is_written() -> None:
    for kind, spec in (("BGPPeer", {"peerIP": "10.0.0.1", "asNumber": 1, "password": {"secretKeyRef": {}}}),
                       ("BGPConfiguration", {"nodeMeshPassword": {"secretKeyRef": {}}})):  # fmt: skip
        document = one(v3(kind, spec, "default"))
        assert b'assword":{"secretKeyRef":{"key":""}}' in encode(document.kind, document.resource)


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("10.0.0.1", "10.0.0.1", None), ("10.0.0.1:1790", "10.0.0.1", 1790), ("fd00:0::1", "fd00::1", None),
     ("[fd00::1]:65535", "fd00::1", 65535), ("fd00::1:179", "fd00::1:179", None)],
)  # fmt: skip
def test_addresses_of_peers(text: str, address: str, port: int | None) -> None:
    assert peer_address(text) == (ip_address(address), port)


@pytest.mark.parametrize("key", ["a", ".a", "a..b", "A_b-c.d", "k" * 253])
def test_keys_of_secrets(key: str) -> None:
    assert key_fault(key) is None
    assert key_fault(key + "/") is not None
    assert key_fault("k" * 253 + key) == f"key is too long by {len(key)} bytes"


# --- records that are wrong in the store


def stored(kind: str, spec: object) -> bytes:
    return json.dumps({"metadata": {"name": "x"}, "spec": spec}).encode()


def test_a_peer_of_which_something_is_wrong_can_still_be_read() -> None:
    """So that it can be shown and mended; whoever makes sessions checks each of its fields."""
    spec = {"peerIP": "nonsense", "node": "a", "nodeSelector": "(((", "filters": ["B_"], "nextHopMode": "x", "new": 1}
    found = decode(PEER, stored("BGPPeer", spec), 3)
    assert (found.resource.spec.peer_ip, found.resource.spec.node) == ("nonsense", "a")
    assert len(list(PEER.check(found.resource))) >= 5
    with pytest.raises(BadRecord, match=r"spec\.asNumber = 'abc'"):
        decode(PEER, stored("BGPPeer", {"asNumber": "abc"}), 3)


REJECT_ALL = [FilterRule(action="Reject")]


@pytest.mark.parametrize(
    "bad",
    [{"action": "Maybe"}, {}, 5, None, {"action": "Accept", "cidr": "10.0.0.0/99", "matchOperator": "In"},
     {"action": "Accept", "asPathPrefix": "x"}, {"action": "Accept", "communities": {"values": ["x"]}},
     {"action": "Accept", "cidr": "fd00::/8", "matchOperator": "In"}],
)  # fmt: skip
def test_a_filter_that_cannot_be_read_rejects_from_there_on(bad: object) -> None:
    first = {"action": "Accept", "cidr": "10.0.0.0/8", "matchOperator": "In"}
    rules = {"importV4": [first, bad, {"action": "Accept"}], "exportV6": [{"action": "Accept"}]}
    key = "/calico/resources/v3/projectcalico.org/bgpfilters/x"
    change = TypedReader([FILTER]).read(Change(key, stored("BGPFilter", rules), 3))
    assert change is not None
    assert change.bad is not None
    assert "spec.importV4[1]" in str(change.bad)
    accepted = FilterRule(action="Accept", cidr="10.0.0.0/8", match_operator="In")
    assert change.value is not None
    assert change.value.spec == BGPFilterSpec(
        import_v4=[accepted, *REJECT_ALL], export_v6=[FilterRule(action="Accept")]
    )


@pytest.mark.parametrize(
    ("spec", "directions"),
    [(None, ()), ({}, ()), ({"importV4": None}, ()), ({"importV4": 5}, ("import_v4",)),
     ("x", ("export_v4", "import_v4", "export_v6", "import_v6"))],
)  # fmt: skip
def test_what_is_no_list_of_rules_rejects_all_of_its_direction(spec: object, directions: tuple[str, ...]) -> None:
    closed = FILTER.closed({"spec": spec})  # type: ignore[dict-item]
    assert closed is not None
    assert closed.spec == BGPFilterSpec(**dict.fromkeys(directions, REJECT_ALL))


# --- v1


def v1(metadata: object, spec: object = None) -> str:
    document = {"apiVersion": "v1", "kind": "bgpPeer", "metadata": metadata, "spec": spec or {"asNumber": 64513}}
    return json.dumps(document)


@pytest.mark.parametrize(
    ("metadata", "name", "spec"),
    [
        ({"scope": "global", "peerIP": "172.16.60.1"}, "172-16-60-1", {"peerIP": "172.16.60.1"}),
        ({"scope": "node", "node": "Node_1", "peerIP": "172.16.60.1"}, "node-1.172-16-60-1",
         {"node": "node-1", "peerIP": "172.16.60.1"}),
        ({"node": "node1", "peerIP": "172.16.60.1"}, "node1.172-16-60-1", {"node": "node1", "peerIP": "172.16.60.1"}),
        ({"scope": "global", "peerIP": "FD80::1"}, "fd80-0000-0000-0000-0000-0000-0000-0001", {"peerIP": "fd80::1"}),
    ],
)  # fmt: skip
def test_a_peer_of_v1(metadata: object, name: str, spec: dict[str, str]) -> None:
    document = one(v1(metadata, {"asNumber": "1.1"}))
    assert (document.kind, document.resource.metadata.name) == (PEER, name)
    assert json.loads(encode(document.kind, document.resource))["spec"] == {**spec, "asNumber": 65537}
    shown = shown_v1_document(document.kind, document.resource)
    scope = "node" if "node" in spec else "global"
    assert shown["metadata"] == {"scope": scope, **spec}
    assert one(json.dumps(shown)).resource == document.resource


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (v1({"scope": "global", "node": "a", "peerIP": "10.0.0.1"}),
         "metadata.node = 'a': no BGP Peer node name should be specified when scope is global"),
        (v1({"scope": "node", "peerIP": "10.0.0.1"}), "metadata.node: insufficient identifiers, missing 'node'"),
        (v1({"peerIP": "10.0.0.1"}), "missing 'node'; write scope: global, or scope: node and the node"),
        (v1({"scope": "foo", "peerIP": "10.0.0.1"}), "metadata.scope = 'foo': allowed are global, node"),
        (v1({"scope": "global"}), "metadata.peerIP: insufficient identifiers, missing 'peerIP'"),
        (v1({"scope": "global", "peerIP": "10.0.0.1:179"}), "metadata.peerIP = '10.0.0.1:179': must be an IP address"),
        (v1({"scope": "global", "peerIP": "224.0.0.1"}), "metadata.peerIP = '224.0.0.1': is the address of no host"),
        (v1({"scope": "node", "node": "a b", "peerIP": "10.0.0.1"}), "metadata.node = 'a b': a name has 1 to 128"),
        (v1({"scope": "global", "peerIP": "10.0.0.1"}, {"asNumber": "x"}), "spec.asNumber"),
        (v1({"scope": "global", "peerIP": "10.0.0.1"}, {"password": "x"}), "spec.password: field in document is not"),
    ],
)
def test_bad_peers_of_v1(text: str, said: str) -> None:
    found = told(text)
    assert len(found) == 1, found
    assert said in found[0][1]


def test_an_update_by_v1_keeps_what_v1_cannot_say() -> None:
    stored_peer = one(peer(password=SECRET, ttlSecurity=1, node="a", filters=["f"])).resource
    new = one(v1({"scope": "node", "node": "a", "peerIP": "10.0.0.1"}, {"asNumber": 7})).resource
    assert isinstance(stored_peer, BGPPeer)
    assert isinstance(new, BGPPeer)
    assert PEER.v1 is not None
    kept = json.loads(encode(PEER, PEER.v1.keep(stored_peer, new)))["spec"]
    assert kept == {"node": "a", "peerIP": "10.0.0.1", "asNumber": 7, "password": SECRET, "ttlSecurity": 1,
                    "filters": ["f"]}  # fmt: skip


def test_a_document_of_v1_that_stands_for_a_selector_is_no_way_back() -> None:
    """v1 has no word for it: it is shown as it is, and refused rather than taken for something else."""
    document = one(peer(nodeSelector="rack == 'r1'"))
    shown = shown_v1_document(document.kind, document.resource)
    assert shown["metadata"] == {"scope": "node", "node": "rack == 'r1'", "peerIP": "10.0.0.1"}
    assert told(json.dumps(shown))[0][0] == "metadata.node"
