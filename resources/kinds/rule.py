"""Rules, as policies and profiles carry them (reference resources.md 2.9). Not a kind by itself."""

import msgspec

PROTOCOLS = ("TCP", "UDP", "ICMP", "ICMPv6", "SCTP", "UDPLite")
ACTIONS = ("Allow", "Deny", "Log", "Pass")

Protocol = int | str
"""A number 1 to 255, or one of PROTOCOLS."""
Port = int | str
"""A number, a range ``"8080:8090"``, or the name of a port."""


class ICMP(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    type: int | None = None
    code: int | None = None


class Services(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str = ""
    namespace: str = ""


class ServiceAccounts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    names: list[str] = []
    selector: str = ""


class EntityRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One side of a rule: all conditions must hold; an empty one matches everything."""

    nets: list[str] = []
    selector: str = ""
    namespace_selector: str = ""
    services: Services | None = None
    ports: list[Port] = []
    not_nets: list[str] = []
    not_selector: str = ""
    not_ports: list[Port] = []
    service_accounts: ServiceAccounts | None = None


class HTTPPath(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    exact: str = ""
    prefix: str = ""


class HTTPMatch(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    methods: list[str] = []
    paths: list[HTTPPath] = []


class RuleMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    annotations: dict[str, str] = {}


class Rule(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"ip_version": "ipVersion", "not_protocol": "notProtocol", "not_icmp": "notICMP"},
):
    action: str
    ip_version: int | None = None
    protocol: Protocol | None = None
    icmp: ICMP | None = None
    not_protocol: Protocol | None = None
    not_icmp: ICMP | None = None
    source: EntityRule = EntityRule()
    destination: EntityRule = EntityRule()
    http: HTTPMatch | None = None
    metadata: RuleMetadata | None = None
