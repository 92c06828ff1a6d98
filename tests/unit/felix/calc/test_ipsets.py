"""Members of sets: counted, by family, as deltas (reference felix.md 4.4 to 4.6, scenarios 52 to 57)."""

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from felix.calc.endpoints import DeclaredPort, Member
from felix.calc.ipsets import MemberSets, SetUse, nets_by_version
from felix.calc.model import (
    Action,
    MembersChange,
    NamedPort,
    PolicyRule,
    Rules,
    SetSpec,
    Side,
    named_port_set,
    selector_set,
)
from resources.datastore.keys import ResourceKey
from resources.names import ProfileName, parse_network
from resources.selector import parse

HAS_A, HAS_B = selector_set(parse("has(a)")), selector_set(parse("has(b)"))
HTTP = named_port_set(parse("has(a)"), NamedPort("tcp", "http"))
MANY = 1_000_000


def key(name: str) -> ResourceKey:
    return ResourceKey("workloadendpoints", name, "libnetwork")


def member(*addresses: str, labels: Mapping[str, str] | None = None, ports: tuple[DeclaredPort, ...] = ()) -> Member:
    return Member(
        {"a": ""} if labels is None else labels,
        (ProfileName("p"),),
        tuple(a for a in dict.fromkeys(addresses) if ":" not in a),
        tuple(a for a in dict.fromkeys(addresses) if ":" in a),
        ports,
    )


def whole(*ipv4: str, ipv6: tuple[str, ...] = ()) -> MembersChange:
    return MembersChange({4: frozenset(ipv4), 6: frozenset(ipv6)}, {}, whole=True)


def delta(added: tuple[str, ...] = (), removed: tuple[str, ...] = ()) -> MembersChange:
    return MembersChange({4: frozenset(added), 6: frozenset()}, {4: frozenset(removed), 6: frozenset()})


def test_a_set_is_announced_whole_then_by_delta() -> None:
    sets = MemberSets()
    sets.set_endpoint(key("1"), member("10.0.0.1", "fd00::1"))
    sets.want(HAS_A)
    assert sets.flush(MANY) == {HAS_A.id: whole("10.0.0.1", ipv6=("fd00::1",))}
    sets.set_endpoint(key("2"), member("10.0.0.2"))
    sets.set_endpoint(key("1"), None)
    changes = sets.flush(MANY)
    assert changes == {
        HAS_A.id: MembersChange(
            {4: frozenset({"10.0.0.2"}), 6: frozenset()}, {4: frozenset({"10.0.0.1"}), 6: frozenset({"fd00::1"})}
        )
    }
    assert sets.flush(MANY) == {}


def test_a_member_of_two_endpoints_goes_with_the_last() -> None:
    sets = MemberSets()
    sets.want(HAS_A)
    for name in ("1", "2"):
        sets.set_endpoint(key(name), member("10.0.0.1"))
    sets.flush(MANY)
    sets.set_endpoint(key("1"), None)
    assert sets.flush(MANY) == {}
    sets.set_endpoint(key("2"), member("10.0.0.1", labels={}))
    assert sets.flush(MANY) == {HAS_A.id: delta(removed=("10.0.0.1",))}


def test_what_comes_and_goes_between_flushes_is_not_told() -> None:
    sets = MemberSets()
    sets.want(HAS_A)
    sets.set_endpoint(key("1"), member("10.0.0.1"))
    sets.flush(MANY)
    sets.set_endpoint(key("2"), member("10.0.0.2"))
    sets.set_endpoint(key("2"), None)
    sets.set_endpoint(key("1"), None)
    sets.set_endpoint(key("1"), member("10.0.0.1"))
    sets.want(HAS_B)
    sets.unwant(HAS_B.id)
    assert {name: change for name, change in sets.flush(MANY).items() if change} == {}


def test_a_set_dropped_and_wanted_again_is_announced_whole() -> None:
    sets = MemberSets()
    sets.want(HAS_A)
    sets.set_endpoint(key("1"), member("10.0.0.1"))
    sets.flush(MANY)
    sets.unwant(HAS_A.id)
    sets.set_endpoint(key("1"), None)
    sets.want(HAS_A)
    assert sets.flush(MANY) == {HAS_A.id: whole()}
    sets.unwant(HAS_A.id)
    assert sets.flush(MANY) == {HAS_A.id: None}


def test_named_ports() -> None:
    sets = MemberSets()
    sets.want(HTTP)
    ports = (DeclaredPort("tcp", "http", 80), DeclaredPort("udp", "http", 81), DeclaredPort("tcp", "http", 82),
             DeclaredPort("tcp", "other", 83), DeclaredPort("tcp", "http", 80))  # fmt: skip
    sets.set_endpoint(key("1"), member("10.0.0.1", ports=ports))
    sets.set_endpoint(key("2"), member("10.0.0.2", ports=ports, labels={}))
    assert sets.flush(MANY) == {HTTP.id: whole("10.0.0.1,tcp:80", "10.0.0.1,tcp:82")}
    sets.set_endpoint(key("1"), member("10.0.0.1", ports=ports[1:3]))
    assert sets.flush(MANY) == {HTTP.id: delta(removed=("10.0.0.1,tcp:80",))}


def test_labels_of_a_profile_move_its_endpoints() -> None:
    sets = MemberSets()
    sets.want(HAS_B)
    sets.set_endpoint(key("1"), member("10.0.0.1"))
    sets.flush(MANY)
    sets.set_profile(ProfileName("p"), {"b": ""})
    assert sets.flush(MANY) == {HAS_B.id: delta(added=("10.0.0.1",))}
    sets.set_profile(ProfileName("p"), {})
    assert sets.flush(MANY) == {HAS_B.id: delta(removed=("10.0.0.1",))}


def test_a_set_beyond_the_limit_is_refused_until_it_fits() -> None:
    sets = MemberSets()
    sets.want(HAS_A)
    for number in range(3):
        sets.set_endpoint(key(str(number)), member(f"10.0.0.{number}"))
    assert sets.flush(2) == {}
    assert sets.refused == {HAS_A.id}
    sets.set_endpoint(key("0"), None)
    assert sets.flush(2) == {HAS_A.id: whole("10.0.0.1", "10.0.0.2")}
    assert sets.refused == frozenset()
    assert sets.flush(1) == {HAS_A.id: None}
    assert sets.members() == {}
    sets.unwant(HAS_A.id)
    assert sets.flush(1) == {}
    assert sets.refused == frozenset()


def naming(spec: SetSpec) -> Rules:
    return Rules(ingress=(PolicyRule(action=Action.ALLOW, source=Side(sets=(spec,))),), egress=None)


def test_a_set_lives_while_somebody_uses_it() -> None:
    sets, use = MemberSets(), SetUse()
    first, second = ResourceKey("profiles", "1"), ResourceKey("profiles", "2")
    for owner in (first, second):
        use.replace(owner, naming(HAS_A))
    use.settle(sets)
    assert set(use.owners(HAS_A.id)) == {first, second}
    use.replace(first, None)
    use.settle(sets)
    assert len(sets) == 1
    use.replace(second, naming(HAS_B))
    use.settle(sets)
    assert sets.members().keys() == {HAS_B.id}


def test_zero_length_networks_are_written_as_their_halves() -> None:
    nets = [parse_network(text) for text in ("0.0.0.0/0", "10.0.0.1/32", "10.0.0.0/8", "::/0", "fd00::1/128")]
    assert nets_by_version(nets) == {
        4: {"0.0.0.0/1", "128.0.0.0/1", "10.0.0.1", "10.0.0.0/8"},
        6: {"::/1", "8000::/1", "fd00::1"},
    }


MEMBERS = st.builds(
    member,
    st.sampled_from(["10.0.0.1", "10.0.0.3", "fd00::1"]),
    st.sampled_from(["10.0.0.2", "fd00::2"]),  # never the same twice: who reads records sees to that
    labels=st.dictionaries(st.sampled_from("ab"), st.just("")),
    ports=st.lists(st.builds(DeclaredPort, st.just("tcp"), st.just("http"), st.sampled_from([80, 81]))).map(tuple),
)
STEPS = st.one_of(
    st.tuples(st.just("endpoint"), st.sampled_from("123"), st.none() | MEMBERS),
    st.tuples(st.just("profile"), st.dictionaries(st.sampled_from("ab"), st.just(""))),
    st.tuples(st.just("want"), st.sampled_from([HAS_A, HAS_B, HTTP])),
    st.tuples(st.just("unwant"), st.sampled_from([HAS_A, HAS_B, HTTP])),
    st.tuples(st.just("flush"), st.sampled_from([2, MANY])),
)


def naive_members(spec: SetSpec, endpoints: Mapping[str, Member], inherited: Mapping[str, str]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {4: set(), 6: set()}
    for one in endpoints.values():
        if spec.selector.matches({**inherited, **one.labels}):
            for version in found:
                for address in one.addresses(version):
                    if spec.port is None:
                        found[version].add(address)
                    else:
                        found[version] |= {f"{address},tcp:{port.number}" for port in one.ports}
    return found


@settings(max_examples=300)
@given(st.lists(STEPS, max_size=30))
def test_all_deltas_together_are_the_members(steps: list[tuple[object, ...]]) -> None:
    sets = MemberSets()
    endpoints: dict[str, Member] = {}
    inherited: Mapping[str, str] = {}
    wanted: dict[str, SetSpec] = {}
    kernel: dict[str, dict[int, set[str]]] = {}
    for step in [*steps, ("flush", MANY)]:
        match step:
            case ("endpoint", str(name), None):
                sets.set_endpoint(key(name), None)
                endpoints.pop(name, None)
            case ("endpoint", str(name), Member() as one):
                sets.set_endpoint(key(name), one)
                endpoints[name] = one
            case ("profile", dict(labels)):
                sets.set_profile(ProfileName("p"), labels)
                inherited = labels
            case ("want", SetSpec() as spec):
                sets.want(spec)
                wanted[spec.id] = spec
            case ("unwant", SetSpec() as spec):
                sets.unwant(spec.id)
                wanted.pop(spec.id, None)
            case ("flush", int(limit)):
                for set_id, change in sets.flush(limit).items():
                    if change is None:
                        kernel.pop(set_id, None)
                        continue
                    held = {4: set[str](), 6: set[str]()} if change.whole else kernel[set_id]
                    for version in held:
                        assert not change.added[version] & held[version]
                        held[version] |= change.added[version]
                        held[version] -= change.removed.get(version, frozenset())
                    kernel[set_id] = held
    assert kernel == {set_id: naive_members(spec, endpoints, inherited) for set_id, spec in wanted.items()}


def test_a_set_of_ports_is_in_doubt_by_what_may_be_in_it() -> None:
    http, ssh = DeclaredPort("tcp", "http", 80), DeclaredPort("tcp", "ssh", 22)
    sets = MemberSets()
    sets.want(HTTP)
    sets.want(HAS_A)
    cases: list[tuple[Member, set[str]]] = [
        (member("10.0.0.1", ports=(http,)), set()),
        (replace(member("10.0.0.1", ports=(ssh,)), doubtful=True), {HAS_A.id}),
        (replace(member("10.0.0.1", ports=(http,)), doubtful=True), {HAS_A.id, HTTP.id}),
        (replace(member("10.0.0.1", ports=(ssh,)), doubtful_ports=True), {HTTP.id}),
        (member("10.0.0.1", ports=(ssh,)), set()),
    ]
    for one, doubted in cases:
        sets.set_endpoint(key("1"), one)
        assert sets.doubtful == doubted
