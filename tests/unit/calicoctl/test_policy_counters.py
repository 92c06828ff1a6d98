"""`calicoctl policy counters`: what is shown of what felix tells."""

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from calicoctl import policy_counters
from calicoctl.main import main
from calicoctl.policy_counters import (
    Counters,
    FelixSilent,
    NoSuchEndpoint,
    NoSuchPolicy,
    NoSuchTier,
    chosen,
    during,
    tables,
)
from resources.errors import Transient
from resources.runtime import paths
from resources.runtime.health import Health


def rule(number: int, packets: int, action: str = "Allow", matches: str = "anything") -> dict[str, object]:
    return {"direction": "ingress", "rule": number, "action": action, "matches": matches, "packets": packets,
            "bytes": packets * 60}  # fmt: skip


def who(name: str, namespace: str = "") -> dict[str, str]:
    return {"kind": "NetworkPolicy" if namespace else "GlobalNetworkPolicy", "namespace": namespace, "name": name}


def endpoint(name: str, address: str, *policies: dict[str, str], dropped: int = 0) -> dict[str, object]:
    return {
        "kind": "workload", "name": name, "interface": f"cali{name}", "direction": "ingress", "note": "",
        "addresses": [address], "policies": list(policies), "profiles": ["net"],
        "established": {"packets": 90, "bytes": 900}, "allowed": {"packets": 4, "bytes": 240},
        "dropped": {"packets": dropped, "bytes": dropped * 60},
    }  # fmt: skip


def drop(name: str, reason: str, where: str, packets: int, tier: str = "", by: tuple[dict[str, str], ...] = (),
         kind: str = "workload") -> dict[str, object]:  # fmt: skip
    return {
        "kind": kind, "name": name, "interface": f"cali{name}" if name else "", "direction": "ingress", "note": "",
        "reason": reason, "where": where, "tier": tier, "by": list(by), "rules": [], "packets": packets,
        "bytes": packets * 60,
    }  # fmt: skip


BLOCK, WEB, SHOP = who("block"), who("web"), who("web", "shop")
TOLD: dict[str, Any] = {
    "node": "node1", "read_at": "2026-01-01T03:00:00+00:00",
    "policies": [
        {"tier": "security", **BLOCK, "rules": [rule(1, 3, "Deny", "from 192.0.2.0/24"), rule(2, 9, "Pass")]},
        {"tier": "default", **WEB, "rules": [rule(1, 4, matches='tcp from role == "web" to ports 80,443')]},
        {"tier": "default", **SHOP, "rules": [rule(1, 0)]},
    ],
    "profiles": [{"kind": "Profile", "namespace": "", "name": "net", "rules": [rule(1, 2)]}],
    "endpoints": [endpoint("web1", "10.0.0.1", BLOCK, WEB, SHOP, dropped=8), endpoint("db1", "10.0.0.2", BLOCK)],
    "drops": [
        drop("web1", "rule", "rule 1 of policy block (tier security)", 3, "security", (BLOCK,)),
        drop("web1", "end-of-tier", "end of tier default: no policy matched", 5, "default"),
        drop("db1", "no-profile", "no profile matched", 0),
        drop("", "unknown-interface", "unknown interface", 7, kind="host"),
    ],
    "missing": [],
}  # fmt: skip


def told() -> Counters:
    return msgspec.convert(TOLD, type=Counters)


def select(**asked: str | bool | None) -> Counters:
    nothing: dict[str, str | bool | None] = {"policy": None, "tier": None, "endpoint": None, "nonzero": False}
    return chosen(told(), **(nothing | asked))  # type: ignore[arg-type]  # each word has its type


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_the_tables_tell_rules_in_order_with_the_end_of_each_tier_endpoints_and_drops() -> None:
    assert tables(told()) == """\
Counters of node1 at 2026-01-01T03:00:00+00:00, IPv4 and IPv6 together.

Packets by rule, of all endpoints here together:
TIER       POLICY                 DIRECTION   RULE   ACTION   MATCHES                                  PACKETS   BYTES
security   block                  ingress        1   Deny     from 192.0.2.0/24                              3     180
security   block                  ingress        2   Pass     anything                                       9     540
default    web                    ingress        1   Allow    tcp from role == "web" to ports 80,443         4     240
default    shop/web               ingress        1   Allow    anything                                       0       0
default    (no policy matched)    ingress            Deny     anything                                       5     300
           profile net            ingress        1   Allow    anything                                       2     120
           (no profile matched)   ingress            Deny     anything                                       0       0

Packets by endpoint; the first of a connection is new, the others are established:
ENDPOINT   ADDRESS    INTERFACE   DIRECTION   NEW   ESTABLISHED   DROPPED
web1       10.0.0.1   caliweb1    ingress       4            90         8
db1        10.0.0.2   calidb1     ingress       4            90         0

Dropped:
ENDPOINT   INTERFACE   DIRECTION   PACKETS   BYTES   DROPPED BY
(any)                  ingress           7     420   unknown interface
web1       caliweb1    ingress           5     300   end of tier default: no policy matched
web1       caliweb1    ingress           3     180   rule 1 of policy block (tier security)

"""


def test_a_policy_by_name_brings_its_rules_its_endpoints_and_its_drops() -> None:
    found = select(policy="block")
    assert [one.name for one in found.policies] == ["block"]
    assert [one.name for one in found.endpoints] == ["web1", "db1"]
    assert [one.where for one in found.drops] == ["rule 1 of policy block (tier security)"]
    web = select(policy="web")
    assert [one.path for one in web.policies] == ["web", "shop/web"]
    assert [one.where for one in web.drops] == ["end of tier default: no policy matched"]  # nor did this one
    assert [one.path for one in select(policy="shop/web").policies] == ["shop/web"]


@pytest.mark.parametrize("asked", ["web1", "caliweb1", "10.0.0.1"])
def test_an_endpoint_by_name_interface_or_address(asked: str) -> None:
    found = select(endpoint=asked)
    assert [one.name for one in found.endpoints] == ["web1"]
    assert [one.packets for one in found.drops] == [3, 5]
    assert [one.path for one in found.policies] == ["block", "web", "shop/web"]
    assert [one.path for one in select(endpoint="db1").policies] == ["block"]


def test_a_tier() -> None:
    found = select(tier="default")
    assert [one.path for one in found.policies] == ["web", "shop/web"]
    assert [one.reason for one in found.drops] == ["end-of-tier"]


def test_only_what_counted_something() -> None:
    found = select(nonzero=True)
    assert [one.path for one in found.policies] == ["block", "web"]
    assert all(one.packets for one in found.drops)


def test_what_is_not_there_is_an_error_that_names_what_is() -> None:
    with pytest.raises(NoSuchPolicy, match="no policy 'wbe' is in force on node1; these are: web, block, shop/web"):
        select(policy="wbe")
    with pytest.raises(NoSuchTier, match="these tiers are: default, security"):
        select(tier="x")
    with pytest.raises(NoSuchTier, match=r"that is policy 'web' is in force on node1; these tiers are: default$"):
        select(policy="web", tier="security")
    with pytest.raises(NoSuchEndpoint, match="these are: db1, web1"):
        select(endpoint="x")


def test_long_matches_are_cut_in_a_table_only_and_control_characters_never_reach_the_terminal() -> None:
    long = "from " + "a" * 200
    other = msgspec.convert(
        TOLD | {"policies": [{"tier": "t", **who("x\x1b[2J"), "rules": [rule(1, 1, matches=long)]}]}, type=Counters
    )
    shown = tables(other)
    assert "\x1b" not in shown
    assert "x?[2J" in shown
    assert long not in shown
    assert long in tables(other, wide=True)
    assert "from aaa" in shown


@pytest.fixture
def felix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr(paths, "RUN", tmp_path)
    return Health()


def serve(health: Health) -> None:
    health.serve(paths.health_socket("felix"))


def test_a_felix_that_does_not_answer_is_an_error_with_the_way_out(felix: Health) -> None:
    with pytest.raises(FelixSilent, match="does not answer") as silent:
        policy_counters.ask()
    assert "calicoctl node run" in str(silent.value.hint)
    serve(felix)
    with pytest.raises(FelixSilent, match="older than this command"):
        policy_counters.ask()


def test_why_felix_cannot_tell_is_told(felix: Health) -> None:
    class NotYet(Transient):
        reference = "not-yet"

    def page() -> object:
        raise NotYet("felix has not read the datastore yet")

    felix.pages["/counters"] = page
    serve(felix)
    with pytest.raises(FelixSilent, match="cannot tell its counters: felix has not read the datastore yet"):
        policy_counters.ask()


def test_the_command_prints_json_yaml_and_tables(felix: Health, capsys: pytest.CaptureFixture[str]) -> None:
    felix.pages["/counters"] = lambda: TOLD | {"missing": ["filter cali-pi-x (IPv4)"]}
    serve(felix)
    assert main(["policy", "counters", "block", "-o", "json"]) == 0
    printed = capsys.readouterr()
    assert [one["name"] for one in json.loads(printed.out)["policies"]] == ["block"]
    assert "Warning: filter cali-pi-x (IPv4) is not in the kernel" in printed.err
    assert main(["policy", "counters", "-o", "yaml"]) == 0
    assert "node: node1\n" in capsys.readouterr().out
    assert main(["policy", "counters", "--endpoint", "db1", "--nonzero"]) == 0
    assert ["db1", "10.0.0.2", "calidb1", "ingress", "4", "90", "0"] in cells(capsys.readouterr().out)
    assert main(["policy", "counters", "-o", "text"]) == 1
    assert "unrecognized output format 'text'" in capsys.readouterr().err


def test_only_what_was_counted_meanwhile(felix: Health, capsys: pytest.CaptureFixture[str]) -> None:
    later = copy.deepcopy(TOLD)
    later["policies"][0]["rules"][0] |= {"packets": 5, "bytes": 300}  # 3 before
    later["policies"][1]["rules"][0] |= {"packets": 1, "bytes": 60}  # 4 before: it was written anew
    later["endpoints"][0]["dropped"] |= {"packets": 10, "bytes": 600}
    later["drops"][0] |= {"packets": 5, "bytes": 300}
    answers = iter([TOLD, later])
    felix.pages["/counters"] = lambda: next(answers)
    serve(felix)
    assert main(["policy", "counters", "--during", "0.1", "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["name"], rule["rule"], rule["packets"], rule["bytes"]) for one in shown["policies"]
            for rule in one["rules"]] == [("block", 1, 2, 120), ("web", 1, 1, 60)]  # fmt: skip
    assert [(one["name"], one["dropped"]["packets"], one["established"]["packets"]) for one in shown["endpoints"]] == [
        ("web1", 2, 0)
    ]
    assert [(one["where"], one["packets"]) for one in shown["drops"]] == [("rule 1 of policy block (tier security)", 2)]


def dropped(*drops: tuple[str, int]) -> Counters:
    """Answers with drops in one tier of one endpoint, by where it was."""
    lines = [
        {"kind": "workload", "name": "web1", "interface": "caliweb1", "direction": "ingress", "reason": "rule",
         "where": where, "tier": "t", "by": [who(where)], "packets": packets, "bytes": packets * 60}
        for where, packets in drops
    ]  # fmt: skip
    return msgspec.convert(TOLD | {"drops": lines}, type=Counters)


@pytest.mark.parametrize(
    ("before", "after", "meanwhile"),
    [
        ([("p", 3)], [("p", 5), ("q", 4)], [("p", 2), ("q", 4)]),
        ([("p", 3)], [("p or q", 5)], [("p or q", 2)]),
        ([("p or q", 5)], [("p", 3), ("q", 4)], [("one of these: p; q", 2)]),
        ([("p", 3), ("q", 1)], [("p", 2), ("q", 4)], [("one of these: p; q", 2)]),
        ([("p", 3)], [("q", 3)], [("q", 0)]),
        ([("p", 3)], [("p", 1)], [("p", 1)]),
        ([("p", 3), ("q", 1)], [("q", 2)], [("q", 2)]),
        ([("p", 3)], [], []),
        ([], [("p", 3)], [("p", 3)]),
    ],
)
def test_drops_that_are_told_apart_otherwise_than_before_are_subtracted_together(
    before: list[tuple[str, int]], after: list[tuple[str, int]], meanwhile: list[tuple[str, int]]
) -> None:
    found = during(dropped(*before), dropped(*after), 1.0).drops
    assert [(one.where, one.packets, one.bytes) for one in found] == [(text, n, n * 60) for text, n in meanwhile]


def test_an_error_names_what_is_alike_first_and_not_a_thousand_names() -> None:
    many = msgspec.convert(
        TOLD | {"policies": [{"tier": "t", **who(f"policy-{n}"), "rules": []} for n in range(1000)]}, type=Counters
    )
    with pytest.raises(NoSuchPolicy, match=r"these are: policy-77, .* and 980 more$"):
        chosen(many, policy="polcy-77", tier=None, endpoint=None, nonzero=False)
