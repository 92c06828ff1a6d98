"""Which updates give an effector something to do."""

from ipaddress import ip_address
from typing import Any

import pytest

from felix.calc.model import Surroundings
from felix.calc.remote import RemoteChanges
from felix.desired import Chain, ChainKey, Update
from resources.datastore.keys import ResourceKey
from resources.names import IfName

NOTHING: dict[int, frozenset[str]] = {4: frozenset(), 6: frozenset()}
KEY, ETH0 = ChainKey(4, "filter", "cali-x"), IfName("eth0")


@pytest.mark.parametrize(
    "changed",
    [
        {"sets": {"cali40x": None}},
        {"chains": {KEY: None}},
        {"chains": {KEY: Chain((), ())}},
        {"kernel_chains": {KEY: None}},
        {"interfaces": {ETH0: None}},
        {"surroundings": Surroundings(
            pools=NOTHING, masqueraded_pools=NOTHING, hosts=NOTHING, ipip=False, tunnel_address=None,
            addresses=frozenset({ip_address("192.0.2.1")}),
        )},
    ],
)  # fmt: skip
def test_each_of_these_is_for_the_kernel_alone(changed: dict[str, Any]) -> None:
    assert Update(**changed).is_for_the_kernel


def test_what_only_people_read_is_not() -> None:
    told = {ResourceKey("tiers", "t"): ("no",)}
    assert not Update(host_endpoints={ETH0: "h"}, problems=told, remote=RemoteChanges()).is_for_the_kernel
