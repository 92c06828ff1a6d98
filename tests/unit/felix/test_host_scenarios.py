"""The scenarios of reference felix.md 8.4 (63 to 68) and 8.5, by a walk through the rendered rules."""

import ipaddress
from dataclasses import replace

import pytest

from fakes.felix_records import host_endpoint, policy, profile, rule, settings, tier
from fakes.packets import Machine, Packet
from fakes.scenario import ADDRESSES, HOST, OUTSIDE, Scenario
from felix.desired import ChainKey
from resources.datastore.keys import ResourceKey
from resources.kinds.felixconfiguration import FelixConfiguration, FelixConfigurationSpec, ProtoPort
from resources.kinds.rule import EntityRule, Rule
from resources.names import IfName

ALLOW, DENY, PASS = (Rule(action=action) for action in ("Allow", "Deny", "Pass"))
ETH0 = host_endpoint("eth0", "eth0", labels={"host": ""})
ALL = host_endpoint("all", "*", labels={"host": ""})
OPEN = profile("open", [ALLOW], [ALLOW])
HOSTS = "has(host)"
Setting = tuple[ResourceKey, FelixConfiguration]
DROP = settings(FelixConfigurationSpec())
RETURN = settings(FelixConfigurationSpec(default_endpoint_to_host_action="Return"))
ACCEPT = settings(FelixConfigurationSpec(default_endpoint_to_host_action="Accept"))


def to(port: int) -> EntityRule:
    return EntityRule(ports=[port])


def tables(world: Scenario) -> Machine:
    """The rules of IPv4, all of which can be loaded; those of IPv6 can be, too."""
    Machine(world.desired, 6).check_all()
    return world.machine


def comes(world: Scenario, port: int = 80, *, protocol: int = 6, interface: str = "eth0", **fields: object) -> bool:
    """Tell whether a packet from outside gets in to the host; INPUT's own policy is ACCEPT."""
    packet = Packet(source=OUTSIDE, destination=HOST, protocol=protocol, destination_port=port, in_interface=interface)
    return tables(world).to_host(replace(packet, **fields), policy="ACCEPT")  # type: ignore[arg-type]


def goes(world: Scenario, port: int = 80, *, protocol: int = 6, interface: str = "eth0", **fields: object) -> bool:
    """Tell whether a packet of the host gets out."""
    packet = Packet(source=HOST, destination=OUTSIDE, protocol=protocol, destination_port=port, out_interface=interface)
    return tables(world).from_host(replace(packet, **fields))  # type: ignore[arg-type]


def chains(world: Scenario) -> set[tuple[str, str]]:
    return {(key.table, key.chain) for key in world.desired.chains if key.version == 4}


class TestNamed:
    """69 to 76."""

    def test_without_policy_and_profile_only_failsafe_ports_pass(self) -> None:
        world = Scenario().put(ETH0)
        assert [port for port in (22, 80, 179, 2379, 9091) if comes(world, port)] == [22, 179, 2379]
        assert [port for port in (22, 80, 179, 2379) if goes(world, port)] == [179, 2379]
        assert comes(world, 68, protocol=17)
        assert goes(world, 53, protocol=17)
        assert not comes(world, 22, protocol=17)
        assert not comes(world, protocol=1)
        assert comes(world, state="ESTABLISHED")
        assert not comes(world, 22, state="INVALID")

    def test_other_interfaces_workloads_and_their_host_are_unaffected(self) -> None:
        world, without = Scenario().put(ETH0, RETURN), Scenario().put(RETURN)
        assert comes(world, interface="eth1")
        assert goes(world, interface="eth1")
        assert world.reachable() == without.reachable()
        for name in ("a0", "b1"):
            assert goes(world, interface=f"cali{name}")
            assert comes(world, interface=f"cali{name}", source=ADDRESSES[name])

    def test_a_profile_opens_it(self) -> None:
        world = Scenario().put(host_endpoint("eth0", "eth0", profiles=["open"]))
        assert not comes(world)  # the profile is missing
        world.put(OPEN)
        assert comes(world)
        assert goes(world)
        assert comes(world, protocol=1)

    def test_a_policy_decides_for_its_direction(self) -> None:
        world = Scenario().put(host_endpoint("eth0", "eth0", profiles=["open"], labels={"host": ""}), OPEN)
        world.put(policy("p", HOSTS, [rule("Allow", "TCP", destination=to(80))], types=["Ingress"]))
        assert comes(world, 80)
        assert not comes(world, 81)
        assert comes(world, 22)
        assert goes(world, 81)
        world.put(policy("p", HOSTS, [], [rule("Deny", "TCP", destination=to(179)), PASS], types=["Egress"]))
        assert comes(world, 81)
        assert goes(world, 81)
        assert goes(world, 179), "failsafe ports come first"

    def test_without_failsafe_ports_nothing_new_passes(self) -> None:
        nothing = FelixConfigurationSpec(failsafe_inbound_host_ports=[], failsafe_outbound_host_ports=[])
        world = Scenario().put(ETH0, settings(nothing))
        assert not any(comes(world, port) or goes(world, port) for port in (22, 179, 2379))
        assert comes(world, 22, state="ESTABLISHED")

    def test_a_failsafe_port_of_a_net(self) -> None:
        nets = {22: "192.0.2.0/30", 23: "fd00::/8"}
        ports = [ProtoPort(protocol="TCP", port=port, net=net) for port, net in nets.items()]
        world = Scenario().put(ETH0, settings(FelixConfigurationSpec(failsafe_inbound_host_ports=ports)))
        assert comes(world, 22)
        assert not comes(world, 22, source="192.0.2.5")
        assert not comes(world, 23)

    def test_an_expected_address(self) -> None:
        world = Scenario().put(host_endpoint("x", "", HOST))
        assert comes(world)
        world.pipeline.set_interface(IfName("eth0"), frozenset({ipaddress.ip_address(HOST)}))
        assert not comes(world)
        assert comes(world, 22)
        world.pipeline.set_interface(IfName("eth0"), frozenset())
        world.flush()
        assert comes(world)

    def test_of_two_the_first_by_name_and_then_the_other(self) -> None:
        second = host_endpoint("zz", "eth0", profiles=["open"])
        world = Scenario().put(ETH0, second, OPEN)
        assert not comes(world)
        world.remove(ETH0[0])
        assert comes(world)

    def test_nothing_is_left_when_it_is_gone(self) -> None:
        before = Scenario().desired
        world = Scenario().put(ETH0, ALL, OPEN, policy("p", HOSTS, [ALLOW], [DENY], apply_on_forward=True),
                               policy("q", HOSTS, [ALLOW], [DENY], do_not_track=True),
                               policy("r", HOSTS, [ALLOW], pre_dnat=True))  # fmt: skip
        world.flush()
        world.remove(ETH0[0], ALL[0], OPEN[0], *(ResourceKey("globalnetworkpolicies", name) for name in "pqr"))
        assert world.desired == before

    def test_a_rejecting_setting_rejects_where_the_kernel_can(self) -> None:
        world = Scenario().put(ETH0, settings(FelixConfigurationSpec(iptables_filter_deny_action="Reject")))
        world.put(policy("p", HOSTS, [DENY], [DENY]), policy("q", HOSTS, [DENY], [DENY], do_not_track=True),
                  policy("r", HOSTS, [DENY], pre_dnat=True))  # fmt: skip
        assert not comes(world)
        rejecting = {key.table for key, made in world.desired.chains.items() if "REJECT" in str(made.rules)}
        assert rejecting == {"filter"}

    @pytest.mark.parametrize("action", ["Accept", "Return"])
    def test_what_is_allowed_may_be_returned_to_the_hosts_own_rules(self, action: str) -> None:
        world = Scenario().put(ETH0, settings(FelixConfigurationSpec(iptables_filter_allow_action=action)))
        packet = Packet(source=OUTSIDE, destination=HOST, in_interface="eth0", state="ESTABLISHED")
        assert tables(world).to_host(packet, policy="DROP") is (action == "Accept")
        assert tables(world).to_host(packet, policy="ACCEPT")


class TestForward:
    """77 to 79."""

    def test_without_policy_about_it_forwarding_is_unaffected(self) -> None:
        world, without = Scenario().put(ETH0, ALL), Scenario()
        assert world.reachable() == without.reachable()
        world.put(policy("p", HOSTS, [DENY], [DENY]))
        assert world.reachable() == without.reachable()

    def test_what_passes_it_is_allowed_as_in_the_original_whatever_the_policy_of_the_kernel_chain(self) -> None:
        """Not only unaffected: an endpoint without policy about it opens FORWARD where others keep that closed."""
        strangers = Packet(source=OUTSIDE, destination="172.17.0.2", in_interface="eth0", out_interface="docker0")
        assert not tables(Scenario()).forward(strangers, policy="DROP")
        assert tables(Scenario().put(ETH0)).forward(strangers, policy="DROP")
        closed = Scenario().put(ETH0, policy("p", HOSTS, [DENY], types=["Ingress"], apply_on_forward=True))
        assert not tables(closed).forward(strangers, policy="ACCEPT")

    def test_a_named_one_stops_what_passes_it_only(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [DENY], [DENY], apply_on_forward=True))
        assert not world.reaches("a0", OUTSIDE)
        assert not world.reaches("a2", "a0")
        assert world.reaches("a0", "a1")
        assert world.reaches("a0", OUTSIDE, state="ESTABLISHED")

    def test_one_direction_leaves_the_other(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [DENY], types=["Ingress"], apply_on_forward=True))
        assert world.reaches("a0", OUTSIDE)
        assert not world.reaches("a2", "a0")

    def test_all_interfaces_are_those_of_workloads_too(self) -> None:
        world = Scenario().put(ALL, policy("p", HOSTS, [DENY], [DENY], apply_on_forward=True))
        assert not world.reaches("a0", "a1")
        assert not world.reaches("a0", OUTSIDE)

    def test_it_does_not_open_what_the_workload_denies(self) -> None:
        world = Scenario().put(ALL, policy("p", HOSTS, [ALLOW], [ALLOW], apply_on_forward=True))
        assert world.reachable() == Scenario().reachable()

    def test_end_of_tier_and_pass(self) -> None:
        some = policy("p", HOSTS, [rule("Allow", "TCP", destination=to(80))], types=["Ingress"], apply_on_forward=True)
        world = Scenario().put(ETH0, some)
        assert world.reaches("a2", "a0")
        assert not world.reaches("a2", "a0", destination_port=81)


class TestWild:
    """63 to 68, 75."""

    @pytest.mark.parametrize("action", [ALLOW, DENY])
    @pytest.mark.parametrize(("setting", "reached"), [(RETURN, False), (ACCEPT, True), (DROP, False)])
    def test_normal_policy_says_nothing_about_a_workload_and_its_host(
        self, action: Rule, setting: Setting, reached: bool
    ) -> None:
        world = Scenario().put(ALL, setting, policy("p", HOSTS, [action], [action]))
        packet = Packet(source=ADDRESSES["a0"], destination=HOST, in_interface="calia0")
        assert tables(world).to_host(packet, policy="DROP") is reached
        assert goes(world, interface="calia0")

    @pytest.mark.parametrize(("action", "setting", "reached"), [
        (DENY, ACCEPT, False), (DENY, RETURN, False), (ALLOW, RETURN, False), (ALLOW, ACCEPT, True),
        (ALLOW, DROP, False),
    ])  # fmt: skip
    def test_policy_before_nat_closes_and_does_not_open(self, action: Rule, setting: Setting, reached: bool) -> None:
        world = Scenario().put(ALL, setting, policy("p", HOSTS, [action], pre_dnat=True))
        packet = Packet(source=ADDRESSES["a0"], destination=HOST, in_interface="calia0")
        assert tables(world).to_host(packet, policy="DROP") is reached

    def test_ports_of_the_host_are_closed_but_for_what_is_allowed(self) -> None:
        assert comes(Scenario(), 9091)
        world = Scenario().put(ALL)
        assert not comes(world, 9091)
        assert not comes(world, 9091, interface="eth7")
        world.put(policy("p", HOSTS, [rule("Allow", "TCP", destination=to(9091))], types=["Ingress"]))
        assert comes(world, 9091, interface="eth7")

    def test_a_named_interface_has_its_own(self) -> None:
        world = Scenario().put(ALL, host_endpoint("eth0", "eth0", profiles=["open"], labels={"named": ""}), OPEN)
        assert comes(world)
        assert not comes(world, interface="eth1")
        world.put(policy("p", HOSTS, [DENY], pre_dnat=True))
        assert comes(world), "before NAT too the named one is asked, which has no policy there"
        assert not comes(world, interface="eth1")
        world.put(policy("q", "has(named)", [DENY], pre_dnat=True))
        assert not comes(world)

    def test_untracked_policy_is_ignored_and_told(self) -> None:
        world = Scenario().put(ALL, policy("p", HOSTS, [DENY], [DENY], do_not_track=True), OPEN)
        update = world.flush()
        assert update.problems[ALL[0]] == (
            "policy p is doNotTrack and ignored: this endpoint is for all interfaces, and that needs a named one",
        )
        assert not any("gnp/p" in chain for _, chain in chains(world))
        world.put(ETH0)
        assert ("raw", "cali-pi-gnp/p") in chains(world)
        world.remove(ResourceKey("globalnetworkpolicies", "p"))
        assert world.flush().problems[ALL[0]] == ()


class TestBeforeNat:
    """80."""

    def world(self) -> Scenario:
        # the workload takes what comes from anywhere, to the port that the other end does not know of
        inside = policy("a0", "name == 'a0'", [rule("Allow", "TCP", destination=to(8055))], types=["Ingress"])
        outside = policy("p", HOSTS, [rule("Allow", "TCP", destination=to(32010)), DENY], pre_dnat=True)
        return Scenario().put(ETH0, inside, outside)

    def sent(self, port: int, **fields: object) -> Packet:
        packet = Packet(source=OUTSIDE, destination=HOST, destination_port=port, in_interface="eth0",
                        out_interface="calia0", sent_to=(ADDRESSES["a0"], 8055))  # fmt: skip
        return replace(packet, **fields)  # type: ignore[arg-type]

    def test_the_port_that_is_translated_decides(self) -> None:
        machine = tables(self.world())
        assert machine.forward(self.sent(32010))
        assert not machine.forward(self.sent(32011))
        assert not machine.forward(self.sent(8055, destination=ADDRESSES["a0"], sent_to=None))

    def test_the_workloads_own_policy_still_counts(self) -> None:
        world = self.world().put(policy("a0", "name == 'a0'", [DENY], types=["Ingress"]))
        assert not tables(world).forward(self.sent(32010))

    def test_what_it_allows_needs_no_normal_policy_and_failsafe_ports_are_open(self) -> None:
        world = self.world()
        assert comes(world, 32010)
        assert not comes(world, 32011)
        assert comes(world, 22)
        assert not goes(world, 32010)

    def test_a_pass_or_no_match_goes_on_to_normal_policy(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [PASS], pre_dnat=True))
        assert not comes(world)
        world.put(policy("q", HOSTS, [ALLOW], types=["Ingress"]))
        assert comes(world)

    def test_it_stands_in_one_table_only(self) -> None:
        assert {table for table, chain in chains(self.world()) if chain == "cali-pi-gnp/p"} == {"mangle"}


class TestUntracked:
    """81 to 83."""

    def test_allowed_in_only_no_answer_gets_out(self) -> None:
        web = rule("Allow", "TCP", destination=to(80))
        world = Scenario().put(ETH0, policy("p", HOSTS, [web], types=["Ingress"], do_not_track=True))
        assert comes(world, 80)
        answer = Packet(source=HOST, destination=OUTSIDE, source_port=80, destination_port=40000, out_interface="eth0")
        assert not tables(world).from_host(answer)
        back = rule("Allow", "TCP", source=to(80))
        world.put(policy("p", HOSTS, [web], [back], do_not_track=True))
        assert tables(world).from_host(answer)

    def test_what_is_allowed_is_not_tracked_and_not_asked_again(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [ALLOW], [ALLOW], do_not_track=True),
                               policy("q", HOSTS, [DENY], [DENY]))  # fmt: skip
        machine = tables(world)
        packet = Packet(source=OUTSIDE, destination=HOST, in_interface="eth0")
        assert machine.to_host(packet)
        assert machine.untracked

    def test_denied_failsafe_ports_still_pass_both_halves(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [DENY], [DENY], do_not_track=True))
        assert [port for port in (22, 80, 2379) if comes(world, port)] == [22, 2379]
        assert [port for port in (22, 80, 2379) if goes(world, port)] == [2379]
        assert not comes(world, state="ESTABLISHED"), "nothing is tracked yet"
        assert goes(world, 40000, source_port=22, state="ESTABLISHED")
        assert comes(world, 40000, source_port=2379, state="ESTABLISHED")

    def test_it_may_deny_what_is_forwarded_too(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [DENY], [DENY], do_not_track=True))
        assert not world.reaches("a2", "a0")
        assert world.reaches("a0", "a1")

    def test_it_stands_in_one_table_only_and_selects_no_workload(self) -> None:
        world = Scenario().put(policy("p", "all()", [DENY], [DENY], do_not_track=True))
        assert world.reachable() == Scenario().reachable()
        assert not any("gnp/p" in chain for _, chain in chains(world))
        world.put(ETH0)
        assert {(table, chain) for table, chain in chains(world) if "gnp/p" in chain} == {
            ("raw", "cali-pi-gnp/p"), ("raw", "cali-po-gnp/p"),
        }  # fmt: skip


class TestTables:
    def test_after_nat_the_hosts_own_packets_meet_normal_policy(self) -> None:
        world = Scenario().put(ETH0, policy("p", HOSTS, [], [rule("Allow", "TCP", destination=to(81))]))
        assert not goes(world, 80, sent_to=(OUTSIDE, 82))
        assert goes(world, 80, sent_to=(OUTSIDE, 81))
        assert {table for table, chain in chains(world) if chain == "cali-po-gnp/p"} == {"filter", "mangle"}
        world.remove(ETH0[0])
        assert not any(table == "mangle" and "gnp/p" in chain for table, chain in chains(world))

    def test_a_host_sends_to_its_workloads_through_nat_whatever_the_wild_one_says(self) -> None:
        world = Scenario().put(ALL)
        assert goes(world, 80, interface="calia0", sent_to=(ADDRESSES["a0"], 8055))
        assert not goes(world, 80, sent_to=(OUTSIDE, 81))

    def test_no_failsafe_chain_where_nobody_jumps_there(self) -> None:
        def failsafe(world: Scenario) -> set[tuple[str, str]]:
            return {(table, chain[-2:]) for table, chain in chains(world) if "failsafe" in chain}

        world = Scenario()
        assert failsafe(world) == set()
        world.put(ETH0)
        assert failsafe(world) == {("filter", "in"), ("filter", "ut"), ("mangle", "ut")}
        world.put(policy("r", HOSTS, [ALLOW], pre_dnat=True), policy("q", HOSTS, [ALLOW], do_not_track=True))
        assert failsafe(world) == {(table, end) for table in ("raw", "mangle", "filter") for end in ("in", "ut")}

    def test_a_missing_tier_is_closed_at_every_stage(self) -> None:
        for stage in ({"pre_dnat": True}, {"do_not_track": True}, {}):
            world = Scenario().put(ETH0, OPEN, policy("p", HOSTS, [ALLOW], tier="gone", **stage))  # type: ignore[arg-type]
            assert not comes(world)
            world.put(tier("gone", 1))
            assert comes(world)

    def test_hashes_are_those_of_the_original(self) -> None:
        """Texts as the original writes them, hashed by the rule that the reference gives."""
        world = Scenario().put(host_endpoint("eth0", "eth0"), settings(FelixConfigurationSpec()))
        made = world.desired.chains[ChainKey(4, "filter", "cali-fhfw-eth0")]
        assert [text.split('" ', 1)[1] for text in made.rules] == [
            "-m conntrack --ctstate RELATED,ESTABLISHED --jump ACCEPT",
            "-m conntrack --ctstate INVALID --jump DROP",
            "--jump MARK --set-mark 0/0x30000",
            '-m comment --comment "Allow forwarded traffic by default" --jump MARK --set-mark 0x10000/0x10000',
            '-m comment --comment "Return for accepted forward traffic" --jump RETURN',
        ]
        failsafe = world.desired.chains[ChainKey(4, "filter", "cali-failsafe-in")]
        assert failsafe.rules[0].endswith("-p tcp -m multiport --destination-ports 22 --jump ACCEPT")

    def test_what_keeps_the_link_alive_is_in_the_failsafe_chains_of_ipv6_only(self) -> None:
        none = FelixConfigurationSpec(failsafe_inbound_host_ports=[], failsafe_outbound_host_ports=[])
        early = policy("early", HOSTS, [ALLOW], types=["Ingress", "Egress"], do_not_track=True)
        world = Scenario().put(ETH0, early, settings(none))
        found = {key: chain for key, chain in world.desired.chains.items() if "failsafe" in key.chain}
        assert sorted(key.version for key in found) == [4] * 5 + [6] * 5
        for key, chain in found.items():
            kinds = [int(text.split("--icmpv6-type ")[1].split()[0]) for text in chain.rules]
            assert kinds == ([130, 131, 132, 133, 134, 135, 136, 143] if key.version == 6 else [])


def test_named_ports_and_addresses_of_host_endpoints_are_members_of_sets() -> None:
    ports = [("pg", "TCP", 5432)]
    remote = host_endpoint("far", "eth0", "198.51.100.7", node="node2", labels={"role": "db"}, ports=ports)
    from_db = rule("Allow", source=EntityRule(selector="role == 'db'"))
    to_pg = rule("Allow", "TCP", destination=EntityRule(selector="role == 'db'", ports=["pg"]))
    world = Scenario().put(remote, policy("p", "name == 'a0'", [from_db], [to_pg]))
    assert world.reaches("198.51.100.7", "a0")
    assert not world.reaches(OUTSIDE, "a0")
    assert world.reaches("a0", "198.51.100.7", destination_port=5432)
    assert not world.reaches("a0", "198.51.100.7", destination_port=5433)
