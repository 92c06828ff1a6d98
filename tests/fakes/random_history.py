"""Random histories of a store and of a host's interfaces: records come, change, repeat and go, with flushes between."""

from dataclasses import dataclass

import msgspec

from fakes.felix_records import HERE, host, policy, pool
from fakes.felix_records import settings as configuration
from fakes.random_world import HOSTS, Dice
from fakes.shrinking import told
from resources.datastore.keys import ResourceKey
from resources.kinds.base import Resource
from resources.kinds.felixconfiguration import FelixConfigurationSpec
from resources.kinds.rule import EntityRule, Rule
from resources.kinds.workloadendpoint import WorkloadEndpoint


@dataclass(frozen=True, slots=True)
class Put:
    """A record as it is now, None: gone."""

    key: ResourceKey
    value: Resource | None


@dataclass(frozen=True, slots=True)
class Interface:
    """The addresses of an interface of the host as they are now, None: it is gone."""

    name: str
    addresses: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Flush:
    pass


Event = Put | Interface | Flush


class Historian(Dice):
    """Draws histories."""

    def events(self, count: int) -> list[Event]:
        drawn: list[Event] = []
        pending = list(self.world().items())
        there: dict[ResourceKey, Resource] = {}
        for _ in range(count):
            what = self.random.randrange(20)
            if what < 3:
                drawn.append(Flush())
            elif what < 5:
                drawn.append(self.interface())
            elif what < 11 and pending:
                drawn.append(Put(*pending.pop(self.random.randrange(len(pending)))))
            elif what < 14 and there:
                drawn.append(Put(self.one(sorted(there)), None))
            elif what < 15 and there:
                key = self.one(sorted(there))
                drawn.append(Put(key, there[key]))
            else:
                drawn.append(Put(*self.any_record()))
            match drawn[-1]:
                case Put(key, None):
                    there.pop(key, None)
                case Put(key, value) if value is not None:
                    there[key] = value
        return [*drawn, Flush()]

    def interface(self) -> Interface:
        addresses = tuple(self.some([*HOSTS[HERE], "192.0.2.77"], 3))
        return Interface(self.one(["eth0", "eth1"]), None if self.chance(4) else addresses)

    def any_record(self) -> tuple[ResourceKey, Resource]:
        """Draw a record under a name that is likely to be there already."""
        number = self.random.randrange(3)
        return self.one(
            [
                self.moving_endpoint, lambda: self.profile(f"p{number}"),
                lambda: self.tier(self.one(["default", "first", "last", "gone"])), lambda: self.policy(f"p{number}"),
                lambda: self.network_policy(f"p{number}"), lambda: self.network_set(f"set{number}"),
                lambda: self.host_endpoint(f"hep{number}"), lambda: self.early_policy(f"early{number}"),
                self.unusable_policy, self.limit, self.pool, self.node,
            ]
        )()  # fmt: skip

    def moving_endpoint(self) -> tuple[ResourceKey, WorkloadEndpoint]:
        """Draw an endpoint that may claim another's interface, or be on another host than before."""
        key, endpoint = self.endpoint(HERE, self.random.randrange(3))
        interface = self.one([endpoint.spec.interface_name, endpoint.spec.interface_name, "calih0", "eth9"])
        node = self.one([HERE, HERE, "node2"])
        spec = msgspec.structs.replace(endpoint.spec, interface_name=interface, node=node)
        return key, msgspec.structs.replace(endpoint, spec=spec)

    def unusable_policy(self) -> tuple[ResourceKey, Resource]:
        """Draw a policy with something that cannot be understood."""
        wrong = Rule(action=self.one(["Allow", "Deny", "Pass", "Log"]), destination=EntityRule(ports=[80]))
        selector = self.one(["has(role)", "broken (("])
        return policy("p0", selector, [wrong, *self.rules()], [*self.rules(), wrong], order=self.order())

    def pool(self) -> tuple[ResourceKey, Resource]:
        cidr = self.one(["10.0.0.0/16", "10.1.0.0/16", "fd00::/64", "0.0.0.0/0"])
        return pool(cidr, nat=self.chance(2), ipip=self.one(["Never", "Always"]), disabled=self.chance(3))

    def node(self) -> tuple[ResourceKey, Resource]:
        addresses = {"ipv4": self.one(["", "172.16.0.1/24"]), "ipv6": self.one(["", "fd99::1/64"])}
        return host(self.one([HERE, "node2"]), tunnel=self.one(["", "10.0.0.9"]), **addresses)

    def limit(self) -> tuple[ResourceKey, Resource]:
        return configuration(FelixConfigurationSpec(max_ipset_size=self.one([None, 1, 2, 4])))


def shown(event: Event) -> str:
    return told({event.key: event.value}) if isinstance(event, Put) and event.value is not None else str(event)
