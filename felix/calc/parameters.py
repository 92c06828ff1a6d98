"""Felix's parameters: declared once, taken from many places, frozen.

Strongest first: what the program itself insists on, environment ``FELIX_<PARAMETER>`` in any case, the file,
FelixConfiguration ``node.<host>``, FelixConfiguration ``default``, built in (reference felix.md 5, resources.md 2.11).
"""

# ruff: noqa: RUF009  (the defaults are declarations, made once)

import dataclasses
import enum
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec

from felix.calc.model import PortRange
from felix.calc.mtu import DEFAULT_PATTERN, LEAST_MTU
from resources.kinds.felixconfiguration import ROUTES_OF_OTHERS
from resources.names import IPAddress, IPNetwork
from resources.runtime.options import Option, Refused, Source, boolean, choice, integer, resolve, seconds

T = TypeVar("T")

ENVIRONMENT_PREFIX = "felix_"
ANNOTATION_PREFIX = "config.projectcalico.org/"
MARK_BITS = 5


class EndpointToHostAction(enum.Enum):
    """What becomes of a workload's packet to its own host that policy let pass."""

    DROP = "DROP"
    RETURN = "RETURN"
    ACCEPT = "ACCEPT"
    REJECT = "REJECT"


class AllowAction(enum.Enum):
    ACCEPT = "ACCEPT"
    RETURN = "RETURN"


class DenyAction(enum.Enum):
    DROP = "DROP"
    REJECT = "REJECT"


class InsertMode(enum.Enum):
    """Where our rules stand in the kernel's chains."""

    INSERT = "insert"
    APPEND = "append"


class NatExclusions(enum.Enum):
    """Destinations that are not masqueraded."""

    POOLS = "IPPoolsOnly"
    POOLS_AND_HOSTS = "IPPoolsAndHostIPs"


@dataclass(frozen=True, slots=True)
class HostPort:
    """A port of the host that stays open whatever policy says."""

    protocol: str
    port: int
    net: IPNetwork | None = None

    def __str__(self) -> str:
        parts = (self.protocol, self.net, self.port)
        return ":".join(str(part) for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Marks:
    """The packet mark's bits that are ours, lowest of the mask first (reference felix.md 3.1)."""

    accept: int
    passed: int
    drop: int
    scratch0: int
    scratch1: int
    unasked: int = 0
    """A new flow of a workload that policy is still to be asked about; 0 where the mask has only five bits."""

    @property
    def lasting(self) -> int:
        """All bits that are cleared when a packet enters; the drop bit never outlives its chain."""
        return self.accept | self.passed | self.scratch0 | self.scratch1


def marks_of(mask: int) -> Marks:
    """Return the bits of a mask that has at least five; the sixth is of use, and can be done without."""
    bits = [1 << position for position in range(32) if mask >> position & 1]
    return Marks(*bits[: MARK_BITS + 1])


def _word(kind: type[T]) -> Callable[[str], T]:
    parse = choice(*(member.value for member in cast("type[enum.Enum]", kind)))
    return lambda text: cast("T", cast("type[enum.Enum]", kind)(parse(text)))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names or not all(re.fullmatch(r"[A-Za-z0-9_.-]{1,14}", name) for name in names):
        raise ValueError("it must be a list of interface prefixes separated by commas")
    return names


def _mask(text: str) -> int:
    try:
        mask = int(text, 0)
    except ValueError:
        raise ValueError("it must be a number, such as 0xffff0000") from None
    if not 0 <= mask <= 0xFFFFFFFF or mask.bit_count() < MARK_BITS:
        raise ValueError(f"it must have at least {MARK_BITS} of 32 bits set")
    return mask


def _port_range(text: str) -> PortRange | None:
    low, _, high = text.partition(":")
    try:
        ports = int(low), int(high or low)
    except ValueError:
        raise ValueError("it must be a port or a range such as 32768:61000") from None
    if ports == (0, 0):
        return None
    if not 1 <= ports[0] <= ports[1] <= 65535:
        raise ValueError("it must be a range of ports between 1 and 65535")
    return ports


def _address(version: int) -> Callable[[str], IPAddress | None]:
    def parse(text: str) -> IPAddress | None:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        if address is None or address.version != version:
            raise ValueError(f"it must be an IPv{version} address")
        return address

    return parse


def _networks(text: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
    except ValueError:
        raise ValueError("it must be a list of networks separated by commas") from None


def _host_ports(text: str) -> tuple[HostPort, ...]:
    return tuple(_host_port(part.strip()) for part in text.split(",") if part.strip())


def _host_port(text: str) -> HostPort:
    head, _, port = text.rpartition(":")
    protocol, _, net = (head or "tcp").partition(":")
    try:
        parsed = HostPort(protocol.lower(), int(port), ipaddress.ip_network(net, strict=False) if net else None)
    except ValueError:
        raise ValueError("it must be a list of proto:port or proto:net:port") from None
    if parsed.protocol not in ("tcp", "udp", "sctp") or not 1 <= parsed.port <= 65535:
        raise ValueError("each protocol must be tcp, udp or sctp, each port between 1 and 65535")
    return parsed


def _log_prefix(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9%: /_-]*", text):
        raise ValueError("it may have letters, digits, blanks and %:/_-")
    return text


def _route_protocol(text: str) -> int:
    number = integer(1, 255)(text)
    if number in ROUTES_OF_OTHERS:
        whose = ROUTES_OF_OTHERS[number]
        raise ValueError(f"{whose} marks its routes so, and felix would delete them: give a number that nobody uses")
    return number


def _mtu(text: str) -> int:
    mtu = integer(0, 65535)(text)
    if 0 < mtu < LEAST_MTU:
        raise ValueError(f"it must be 0 or between {LEAST_MTU} and 65535: workloads get it too")
    return mtu


def _switch(text: str) -> bool:
    return choice("Enabled", "Disabled")(text) == "Enabled"


def _spoofing(text: str) -> bool:
    return choice("Any", "Disabled")(text) == "Any"


def _features(text: str) -> tuple[tuple[str, bool], ...]:
    features = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError("it must be a list of Feature=true or Feature=false")
        if value:
            features.append((name, boolean(value)))
    return tuple(features)


def _interface(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:._+-]{1,15}", text):
        raise ValueError("it must be the name of an interface")
    return text


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"it must be a regular expression: {error}") from None


_DECLARED = "option"


def _option(
    name: str,
    parse: Callable[[str], T],
    default: T,
    help: str,
    *,
    spec: str = "",
    zero: T | None = None,
    unit: str = "",
    live: bool = True,
) -> T:
    """Declare a parameter. `spec`: its field in FelixConfiguration if another; `zero`: what ``none`` stands for."""

    def parse_or_zero(text: str) -> T:
        if text.lower() != "none":
            return parse(text)
        if zero is None:
            raise ValueError("it must have a value")
        return zero

    option = Option(
        name=name, parse=parse_or_zero, default=default, help=help, keys=(name,), unit=unit, live=live
    )
    metadata = {_DECLARED: option, "spec": spec or name[0].lower() + name[1:]}
    return dataclasses.field(default=default, metadata=metadata)


_FAILSAFE_BOTH = ("tcp:179", "tcp:2379", "tcp:2380", "tcp:5473", "tcp:6443", "tcp:6666", "tcp:6667")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """All parameters, in effect."""

    interface_prefixes: tuple[str, ...] = _option(
        "InterfacePrefix", _names, ("cali",), "What the host side of a workload's interface begins with."
    )
    endpoint_to_host_action: EndpointToHostAction = _option(
        "DefaultEndpointToHostAction", _word(EndpointToHostAction), EndpointToHostAction.DROP,
        "What becomes of a workload's packet to its own host that policy let pass.",
    )
    filter_allow_action: AllowAction = _option(
        "IptablesFilterAllowAction", _word(AllowAction), AllowAction.ACCEPT,
        "Accept what policy accepts at once, or return it to the host's own rules.",
    )
    mangle_allow_action: AllowAction = _option(
        "IptablesMangleAllowAction", _word(AllowAction), AllowAction.ACCEPT, "The same in the mangle table."
    )
    filter_deny_action: DenyAction = _option(
        "IptablesFilterDenyAction", _word(DenyAction), DenyAction.DROP, "How policy denies: silently or with an answer."
    )
    insert_mode: InsertMode = _option(
        "ChainInsertMode", _word(InsertMode), InsertMode.INSERT, "Whether our rules are first or last in kernel chains."
    )
    mark_mask: int = _option(
        "IptablesMarkMask", _mask, 0xFFFF0000,
        "Bits of the packet mark that are ours; at least five. By a sixth, what policy was not asked about is dropped.",
    )
    tables_refresh_seconds: float = _option(
        "IptablesRefreshInterval", seconds(), 180.0, "How often all rules are read back; 0: never.", zero=0.0, unit="s"
    )
    sets_refresh_seconds: float = _option(
        "IpsetsRefreshInterval", seconds(), 90.0, "How often all sets are read back; 0: never.", zero=0.0, unit="s"
    )
    routes_refresh_seconds: float = _option(
        "RouteRefreshInterval", seconds(), 90.0, "How often all routes are read back; 0: never.", zero=0.0, unit="s"
    )
    interfaces_refresh_seconds: float = _option(
        "InterfaceRefreshInterval", seconds(), 90.0, "How often all interfaces are read; 0: never.", zero=0.0, unit="s"
    )
    set_size_max: int = _option(
        "MaxIpsetSize", integer(1), 1048576, "Members that a set may have; a set with more closes what refers to it."
    )
    log_severity_screen: str = _option(
        "LogSeverityScreen", choice("Trace", "Debug", "Info", "Warning", "Error", "Fatal"), "Info",
        "What is logged: this level and above.", zero="Fatal",
    )
    log_prefix: str = _option(
        "LogPrefix", _log_prefix, "calico-packet", "What lines of the Log action begin with.", zero=""
    )
    failsafe_inbound: tuple[HostPort, ...] = _option(
        "FailsafeInboundHostPorts", _host_ports, _host_ports(",".join(("tcp:22", "udp:68", *_FAILSAFE_BOTH))),
        "Ports of the host that stay reachable whatever policy says.", zero=(),
    )
    failsafe_outbound: tuple[HostPort, ...] = _option(
        "FailsafeOutboundHostPorts", _host_ports, _host_ports(",".join(("udp:53", "udp:67", *_FAILSAFE_BOTH))),
        "Ports that the host can reach whatever policy says.", zero=(),
    )
    nat_ports: PortRange | None = _option(
        "NATPortRange", _port_range, None, "Source ports that masquerading uses; absent: the kernel's choice.",
        spec="natPortRange",
    )
    nat_address: IPAddress | None = _option(
        "NATOutgoingAddress", _address(4), None, "Source address of masqueraded packets; absent: the interface's.",
        spec="natOutgoingAddress",
    )
    nat_exclusions: NatExclusions = _option(
        "NATOutgoingExclusions", _word(NatExclusions), NatExclusions.POOLS, "Destinations that are not masqueraded.",
        spec="natOutgoingExclusions",
    )
    nat_interface: str = _option(
        "IptablesNATOutgoingInterfaceFilter", _interface, "", "Masquerade only what leaves here.", zero=""
    )
    ip_forwarding: bool = _option(
        "IPForwarding", _switch, True, "Whether the host's forwarding is switched on.", spec="ipForwarding"
    )
    ipv6: bool = _option("Ipv6Support", boolean, True, "Whether IPv6 rules are kept too.", spec="ipv6Support")
    ipip: bool | None = _option(
        "IpInIpEnabled", boolean, None, "Whether IPIP is used; absent: if a pool asks for it.", spec="ipipEnabled"
    )
    ipip_mtu: int = _option(
        "IpInIpMtu", _mtu, 0, "MTU of the IPIP device; 0: the host's less 20.", spec="ipipMTU", zero=0
    )
    mtu_pattern: re.Pattern[str] = _option(
        "MTUIfacePattern", _pattern, DEFAULT_PATTERN,
        "Interfaces that lead to other hosts: the least of their MTUs decides those of tunnels and workloads. The one "
        "with the node's own address counts whatever its name.",
        spec="mtuIfacePattern",
    )
    external_nodes: tuple[IPNetwork, ...] = _option(
        "ExternalNodesCIDRList", _networks, (), "Who may send us IPIP beside the nodes.",
        spec="externalNodesList", zero=(),
    )
    route_protocol: int = _option(
        "DeviceRouteProtocol", _route_protocol, 80,
        "Protocol number that marks our routes; none that others use: whatever has it is ours.",
    )
    route_source: IPAddress | None = _option(
        "DeviceRouteSourceAddress", _address(4), None, "Preferred source address of our routes."
    )
    remove_external_routes: bool = _option(
        "RemoveExternalRoutes", boolean, True, "Whether foreign routes on workload interfaces are removed."
    )
    skip_invalid_check: bool = _option(
        "DisableConntrackInvalidCheck", boolean, False, "Let packets pass that connection tracking calls invalid."
    )
    source_spoofing: bool = _option(
        "WorkloadSourceSpoofing", _spoofing, False, "Whether endpoints may be allowed to send from foreign addresses."
    )
    vxlan_from_workloads: bool = _option(
        "AllowVXLANPacketsFromWorkloads", boolean, False, "Whether workloads may send VXLAN; it evades egress policy."
    )
    ipip_from_workloads: bool = _option(
        "AllowIPIPPacketsFromWorkloads", boolean, False, "Whether workloads may send IPIP; it evades egress policy."
    )
    vxlan: bool | None = _option(
        "VXLANEnabled", boolean, None, "Whether VXLAN is used; absent: if a pool asks for it.", spec="vxlanEnabled"
    )
    vxlan_port: int = _option("VXLANPort", integer(1, 65535), 4789, "UDP port of VXLAN.", spec="vxlanPort")
    vxlan_vni: int = _option("VXLANVNI", integer(1, 0xFFFFFF), 4096, "Number of our VXLAN network.", spec="vxlanVNI")
    vxlan_mtu: int = _option(
        "VXLANMTU", _mtu, 0, "MTU of the VXLAN device; 0, or too much: the host's less 50.",
        spec="vxlanMTU", zero=0,
    )
    vxlan_mtu_v6: int = _option(
        "VXLANMTUV6", _mtu, 0, "The same for IPv6; 0, or too much: the host's less 70.",
        spec="vxlanMTUV6", zero=0,
    )
    reporting_seconds: float = _option(
        "ReportingIntervalSecs", seconds(), 30.0, "How often status is written to the store; 0: never.",
        spec="reportingInterval", zero=0.0, unit="s",
    )
    reporting_ttl_seconds: float = _option(
        "ReportingTTLSecs", seconds(), 90.0, "How long a status holds.", spec="reportingTTL", unit="s"
    )
    backend: str = _option(
        "IptablesBackend", choice("Auto", "NFT", "Legacy"), "Auto", "Which rule tables of the kernel are used.",
        live=False,
    )
    flow_logs: bool = _option(
        "FlowLogsEnabled", boolean, False,
        "Whether what ends a packet's way at a workload is handed to NFLOG: group 1 to it, group 2 from it.",
    )
    features: tuple[tuple[str, bool], ...] = _option(
        "FeatureDetectOverride", _features, (),
        "What the tools cannot do: MASQFullyRandom=false, SNATFullyRandom=false. Others have no effect.", zero=(),
    )

    @property
    def marks(self) -> Marks:
        return marks_of(self.mark_mask)

    @property
    def masquerade_random(self) -> bool:
        """Whether masquerading picks source ports at random."""
        return dict(self.features).get("MASQFullyRandom", True)

    @property
    def snat_random(self) -> bool:
        """Whether translating to NATOutgoingAddress does."""
        return dict(self.features).get("SNATFullyRandom", True)

    @property
    def versions(self) -> tuple[int, ...]:
        return (4, 6) if self.ipv6 else (4,)


OPTIONS: tuple[Option[object], ...] = tuple(field.metadata[_DECLARED] for field in dataclasses.fields(Parameters))
_ATTRIBUTES = {field.metadata[_DECLARED].name: field.name for field in dataclasses.fields(Parameters)}
_NAME_BY_LOWER = {option.name.lower(): option.name for option in OPTIONS}
NAME_BY_FIELD = {field.metadata["spec"]: field.metadata[_DECLARED].name for field in dataclasses.fields(Parameters)}

"""Parameters by their field in FelixConfiguration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Parameters in effect, where each comes from (by the parameter's name), and values that were passed over."""

    parameters: Parameters
    origins: Mapping[str, str]
    refused: tuple[Refused, ...]

    def text(self, name: str) -> str:
        """Return the effective value of a parameter for people."""
        value = getattr(self.parameters, _ATTRIBUTES[name])
        if isinstance(value, enum.Enum):
            return str(value.value)
        if isinstance(value, re.Pattern):
            return str(value.pattern)
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def environment_texts(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that an environment sets, by name; others are for somebody else."""
    texts = {}
    for key, text in sorted(environment.items()):
        lower = key.lower()
        if lower.startswith(ENVIRONMENT_PREFIX) and (name := _NAME_BY_LOWER.get(lower[len(ENVIRONMENT_PREFIX) :])):
            texts[name] = text
    return texts


def file_texts(content: str) -> dict[str, str]:
    """Return the parameters that the lines ``name = value`` of a file set; section names do not matter."""
    texts = {}
    for line in content.splitlines():
        key, equals, text = line.strip().partition("=")
        name = _NAME_BY_LOWER.get(key.strip().lower())
        if equals and name and not line.lstrip().startswith(("#", ";", "[")):
            texts[name] = text.strip()
    return texts


def spec_texts(spec: msgspec.Struct, annotations: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters that a FelixConfiguration sets; its annotations override its fields."""
    texts = {}
    for key, value in cast("dict[str, object]", msgspec.to_builtins(spec)).items():
        name = NAME_BY_FIELD.get(key)
        if name and value is not None:
            texts[name] = _text(value)
    for key, text in annotations.items():
        name = _NAME_BY_LOWER.get(key.removeprefix(ANNOTATION_PREFIX).lower())
        if key.startswith(ANNOTATION_PREFIX) and name:
            texts[name] = text
    return texts


def _text(value: object) -> str:
    """Write a field as the environment would."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return ",".join(map(_text, value)) or "none"
        case dict():
            parts = (value.get("protocol", "TCP"), value.get("net", ""), value.get("port", ""))
            return ":".join(str(part) for part in parts if part != "").lower()
        case _:
            return str(value)


def effective(sources: Sequence[Source]) -> Resolved:
    """Return the parameters in effect; `sources` strongest first, keyed by parameter names.

    Raises:
        ConfigurationError: a value of a strict source cannot be used.
    """
    settings = resolve(OPTIONS, sources)
    values = {_ATTRIBUTES[option.name]: settings[option] for option in OPTIONS}
    return Resolved(
        parameters=Parameters(**values),  # type: ignore[arg-type]  # each parsed by the option of its own field
        origins={option.name: settings.origin(option) for option in OPTIONS},
        refused=settings.refused,
    )
