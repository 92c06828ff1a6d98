"""The IPIP device and the sizes of packets, followed by a whole felix on a fake host (reference felix.md 2.7)."""

import dataclasses
import ipaddress

from fakes.felix_agent import FelixAgent
from fakes.felix_host import FelixHost
from fakes.felix_records import ELSEWHERE, HERE, host, pool, settings
from fakes.links import FakeLinks
from felix.dataplane.ipip import DEVICE, LINGER_SECONDS
from felix.dataplane.sizes import HostSizes
from kernel.errors import ReadOnly, ToolFailed
from kernel.link import Link, LinkAddress
from kernel.monitor import LinkChanged
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.names import IfName

ETH0 = IfName("eth0")
NODE = host(HERE, "192.0.2.10/24", tunnel="10.0.0.64")
OTHER = host(ELSEWHERE, "192.0.2.11/24")
WITH_IPIP, WITHOUT = pool("10.0.0.0/16", ipip="Always"), pool("10.0.0.0/16")


def begun(*records: object, on: FelixHost | None = None) -> FelixAgent:
    agent = FelixAgent(host=on)
    agent.begin(*records)  # type: ignore[arg-type]
    settle(agent)
    return agent


def settle(agent: FelixAgent) -> None:
    """Let felix hear what it did to its own device."""
    if (link := device(agent)) is not None:
        agent.hear(LinkChanged(link))


def device(agent: FelixAgent) -> Link | None:
    return agent.host.kernel.links.links().get(DEVICE)


def addresses(agent: FelixAgent) -> list[str]:
    return [str(found.address) for found in agent.host.kernel.links.addresses() if found.device == DEVICE]


def size(agent: FelixAgent, mtu: int, name: IfName = ETH0) -> None:
    """Give a link another MTU."""
    agent.host.kernel.links.set_mtu(name, mtu)
    agent.hear(LinkChanged(agent.host.kernel.links.links()[name]))


def test_without_a_pool_that_wants_it_there_is_no_device() -> None:
    agent = begun(NODE, WITHOUT)
    assert device(agent) is None
    assert agent.host.mtu_file.told == 1500


def test_a_pool_with_ipip_makes_the_device_with_size_and_address() -> None:
    agent = begun(NODE, OTHER, WITH_IPIP)
    link = device(agent)
    assert link is not None
    assert (link.up, link.mtu, addresses(agent)) == (True, 1480, ["10.0.0.64/32"])
    assert agent.host.mtu_file.told == 1480
    assert agent.agent.state()["tunnels"] == {
        "mtu": {"links": 1500, "workloads": 1480, "ipip": 1480},
        "ipip": {
            "wanted": True, "device": "tunl0", "up": True, "mtu": 1480, "address": "10.0.0.64", "trouble": "",
        },
        "vxlan": {},
    }


def test_a_disabled_pool_counts_its_containers_are_still_there() -> None:
    assert device(begun(NODE, pool("10.0.0.0/16", ipip="CrossSubnet", disabled=True))) is not None


def test_the_settings_decide_against_the_pools() -> None:
    off = settings(FelixConfigurationSpec(ipip_enabled=False))
    assert device(begun(NODE, WITH_IPIP, off)) is None
    on = settings(FelixConfigurationSpec(ipip_enabled=True))
    assert device(begun(NODE, WITHOUT, on)) is not None


def test_a_device_that_loading_the_module_made_is_taken() -> None:
    on = FelixHost()
    on.kernel.links.create_ipip(DEVICE)
    agent = begun(NODE, WITH_IPIP, on=on)
    link = device(agent)
    assert link is not None
    assert (link.up, addresses(agent)) == (True, ["10.0.0.64/32"])


def test_the_size_follows_link_and_setting() -> None:
    agent = begun(NODE, WITH_IPIP)
    sizes = []
    for mtu in (9000, 1450, 1500):
        size(agent, mtu)
        link = device(agent)
        assert link is not None
        sizes.append((link.mtu, agent.host.mtu_file.told))
    assert sizes == [(8980, 8980), (1430, 1430), (1480, 1480)]
    for setting, mtu in ((1380, 1380), (0, 1480)):
        agent.put(settings(FelixConfigurationSpec(ipip_mtu=setting)))
        link = device(agent)
        assert link is not None
        assert (link.mtu, agent.host.mtu_file.told) == (mtu, mtu)


def test_the_interface_with_the_nodes_address_counts_whatever_it_is_called() -> None:
    agent = FelixAgent()
    links = agent.host.kernel.links
    links.set_mtu(ETH0, 9000)
    links.add(IfName("bond0"), ipaddress.ip_interface("198.51.100.1/24"))
    agent.begin(host(HERE, "198.51.100.1/24"), WITHOUT)
    assert agent.host.mtu_file.told == 1500
    agent.take_address("bond0", "198.51.100.1/24")
    assert agent.host.mtu_file.told == 9000


def test_an_operators_pattern_chooses_the_links() -> None:
    agent = FelixAgent()
    agent.host.kernel.links.add(IfName("vlan7"))
    agent.begin(NODE, WITHOUT, settings(FelixConfigurationSpec(mtu_iface_pattern="^vlan.*")))
    size(agent, 1400, IfName("vlan7"))
    assert agent.host.mtu_file.told == 1400


def test_foreign_addresses_go_and_what_was_changed_by_hand_is_put_right() -> None:
    agent = begun(NODE, WITH_IPIP)
    agent.give_address("tunl0", "203.0.113.9/24")
    assert addresses(agent) == ["10.0.0.64/32"]
    agent.take_address("tunl0", "10.0.0.64/32")
    assert addresses(agent) == ["10.0.0.64/32"]
    size(agent, 1000, DEVICE)
    agent.host.kernel.links.set_down(DEVICE)
    settle(agent)
    link = device(agent)
    assert link is not None
    assert (link.mtu, link.up) == (1480, True)
    agent.host.kernel.links.delete(DEVICE)
    agent.unplug("tunl0")
    assert addresses(agent) == ["10.0.0.64/32"]


def test_the_address_follows_the_record() -> None:
    agent = begun(host(HERE, "192.0.2.10/24"), WITH_IPIP)
    assert addresses(agent) == []
    agent.put(NODE)
    assert addresses(agent) == ["10.0.0.64/32"]
    agent.put(host(HERE, "192.0.2.10/24", tunnel="10.0.0.128"))
    assert addresses(agent) == ["10.0.0.128/32"]


def test_when_no_pool_wants_it_any_more_its_address_goes_and_a_little_later_it_is_off() -> None:
    agent = begun(NODE, WITH_IPIP)
    agent.put(WITHOUT)
    link = device(agent)
    assert link is not None
    assert (link.up, addresses(agent), agent.host.mtu_file.told) == (True, [], 1500)
    agent.later(LINGER_SECONDS + 0.1)
    link = device(agent)
    assert link is not None
    assert not link.up


def test_one_that_wants_it_again_before_that_keeps_it() -> None:
    agent = begun(NODE, WITH_IPIP)
    agent.put(WITHOUT)
    agent.later(1.0)
    agent.put(WITH_IPIP)
    agent.later(LINGER_SECONDS + 1)
    link = device(agent)
    assert link is not None
    assert (link.up, addresses(agent)) == (True, ["10.0.0.64/32"])


def test_what_a_felix_left_that_was_ended_meanwhile_is_cleared() -> None:
    before = begun(NODE, WITH_IPIP)
    agent = begun(NODE, WITHOUT, on=before.host)
    agent.later(LINGER_SECONDS + 0.1)
    link = device(agent)
    assert link is not None
    assert (link.up, addresses(agent)) == (False, [])


def test_a_tunnel_that_somebody_else_has_stays_while_no_pool_wants_ours() -> None:
    on = FelixHost()
    on.kernel.links.create_ipip(DEVICE)
    on.kernel.links.set_up(DEVICE)
    on.kernel.links.add_address(DEVICE, ipaddress.ip_interface("203.0.113.9/30"))
    agent = begun(NODE, WITHOUT, on=on)
    agent.later(LINGER_SECONDS + 0.1)
    link = device(agent)
    assert link is not None
    assert (link.up, addresses(agent)) == (True, ["203.0.113.9/30"])


def test_a_kernel_without_ipip_is_told_and_everything_else_goes_on() -> None:
    agent = FelixAgent()
    agent.host.kernel.links.has_ipip = False
    agent.begin(NODE, WITH_IPIP)
    assert agent.health.waiting_for() == []
    state = agent.agent.state()
    assert state["failing"] == []
    assert state["troubles"] == {
        "ipip": "this kernel has no IPIP (cannot make the IPIP device tunl0); load it (modprobe ipip), take a kernel "
        "that has it, or set ipipMode of the pools to Never, or use vxlanMode"
    }
    agent.later(200.0)
    assert len(agent.events("tunnel.unavailable")) == 1
    assert agent.host.mtu_file.told == 1480  # what comes from the other hosts' tunnels is of that size
    agent.host.kernel.links.has_ipip = True
    agent.later(100.0)
    assert device(agent) is not None
    assert agent.agent.state()["troubles"] == {}


def test_a_device_of_another_kind_with_that_name_stays() -> None:
    on = FelixHost()
    on.kernel.links.add(DEVICE, ipaddress.ip_interface("203.0.113.9/32"), kind="bridge")
    agent = begun(NODE, WITH_IPIP, on=on)
    assert addresses(agent) == ["203.0.113.9/32"]
    troubles = agent.agent.state()["troubles"]
    assert troubles == {"ipip": "tunl0 is no IPIP device but of kind bridge, and stays as it is"}


def test_no_tunnel_is_opened_before_the_rules_say_who_may_send() -> None:
    on = FelixHost()
    on.kernel.tables.unwritable = ToolFailed("cannot write table ipv4 filter")
    agent = begun(NODE, WITH_IPIP, on=on)
    assert device(agent) is None
    on.kernel.tables.unwritable = None
    agent.later(10.0)
    assert device(agent) is not None


def test_a_felix_that_starts_on_a_host_that_is_right_writes_nothing() -> None:
    before = begun(NODE, WITH_IPIP)
    again = begun(NODE, WITH_IPIP, on=before.host)
    link = device(again)
    assert link is not None
    assert again.agent.state()["tunnels"]["ipip"]["up"] is True  # type: ignore[index]
    assert dataclasses.replace(link) == device(before)
    assert "tunnels" not in again.events("dataplane.applied")[0]


def test_a_file_that_cannot_be_written_is_tried_again() -> None:
    agent = FelixAgent()
    agent.host.mtu_file.failure = ReadOnly("cannot write /var/lib/calico/mtu")
    agent.begin(NODE, WITH_IPIP)
    assert agent.agent.state()["failing"] == ["mtu file"]
    agent.host.mtu_file.failure = None
    agent.later(10.0)
    assert (agent.host.mtu_file.told, agent.agent.state()["failing"]) == (1480, [])


def test_only_what_leads_to_other_hosts_is_a_reason_to_look_at_the_sizes_again() -> None:
    kernel = FakeLinks()
    own = ipaddress.ip_interface("192.0.2.10/24")
    for name in ("eth0", "cali1", "temp1"):
        kernel.add(IfName(name))
    kernel.add(IfName("bond0"), own)
    sizes = HostSizes(kernel)
    sizes.want(frozenset({own.ip}))

    def looks_after(*changed: str) -> bool:
        before = kernel.dumps
        sizes.links_changed(kernel.links(), tuple(map(IfName, changed)))
        sizes.refresh()
        return kernel.dumps > before

    assert looks_after("eth0", "bond0", "cali1")
    assert not looks_after("cali1", "temp1", "docker0")
    assert looks_after("eth0")
    assert looks_after("bond0")
    other = LinkAddress(device=IfName("bond0"), address=ipaddress.ip_interface("192.0.2.11/24"))
    assert not sizes.address_changed(other)
    assert sizes.address_changed(LinkAddress(device=IfName("br0"), address=own))
