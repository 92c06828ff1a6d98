"""What the host's own routes say: which of them others may hear of, and which networks it is connected to."""

from ipaddress import ip_address, ip_network

from bgpd.calc.surroundings import Surroundings
from kernel.route import PROTOCOL_KERNEL, PROTOCOL_STATIC, Route, RouteKey
from resources.names import IfName

ETH0 = IfName("eth0")
ON = Route.on(ETH0, protocol=PROTOCOL_KERNEL)


def key(text: str) -> RouteKey:
    return RouteKey(ip_network(text))


def test_the_hosts_routes_are_those_by_which_packets_leave() -> None:
    here = Surroundings({
        key("10.0.0.0/24"): (ON,),
        key("10.2.0.0/16"): (Route.via(ip_address("10.0.0.254"), ETH0, protocol=PROTOCOL_STATIC),),
        key("10.3.0.0/16"): (Route.blackhole(protocol=PROTOCOL_STATIC),),
        key("10.4.0.0/16"): (Route.unreachable(protocol=PROTOCOL_STATIC),),
        key("fe80::/64"): (ON,),
        key("ff00::/8"): (ON,),
        key("224.0.0.0/4"): (ON,),
    })  # fmt: skip
    expected = {ip_network("10.0.0.0/24"): ("eth0",), ip_network("10.2.0.0/16"): ("eth0",)}
    assert here.host_routes == expected


def test_two_hosts_on_a_network_that_only_a_router_leads_to_are_no_neighbours() -> None:
    here = Surroundings({
        key("10.0.0.0/24"): (ON,),
        key("10.2.0.0/16"): (Route.via(ip_address("10.0.0.254"), ETH0, protocol=PROTOCOL_KERNEL),),
    })  # fmt: skip
    assert here.are_neighbours(ip_address("10.0.0.2"), ip_address("10.0.0.3"))
    assert not here.are_neighbours(ip_address("10.2.0.2"), ip_address("10.2.0.3"))
    assert here.networks == {ip_network("10.0.0.0/24")}
