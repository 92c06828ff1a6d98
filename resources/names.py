"""Names that must not mix, addresses, and the checks on both.

Name rules: reference resources.md 1.4; label rules 7.4. Addresses are ``ipaddress`` objects inside the program and text
only at its borders.
"""

import ipaddress
import re
from typing import NewType

NodeName = NewType("NodeName", str)
IfName = NewType("IfName", str)
"""Kernel interface name, 15 bytes at most."""
PoolName = NewType("PoolName", str)
ProfileName = NewType("ProfileName", str)
HandleId = NewType("HandleId", str)
AsNumber = NewType("AsNumber", int)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME_PATTERN = rf"{_LABEL}(\.{_LABEL})*"
NAME_REGEX = re.compile(rf"{NAME_PATTERN}\Z")
NAME_MAX = 253
DNS_LABEL_PATTERN = _LABEL
DNS_LABEL_REGEX = re.compile(rf"{_LABEL}\Z")
DNS_LABEL_MAX = 63
CONTAINER_ID_PATTERN = r"[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?"
INTERFACE_REGEX = re.compile(r"[a-zA-Z0-9_.-]{1,15}\Z")
LABEL_NAME_REGEX = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z")
LABEL_VALUE_REGEX = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?\Z")
_ADDRESS_TEXT = re.compile(r"[0-9a-fA-F:.]+\Z")
_NETWORK_TEXT = re.compile(r"[0-9a-fA-F:.]+(/[0-9]{1,3})?\Z")

DEFAULT_NAMESPACE = "default"
GATEWAY = ipaddress.IPv4Address("169.254.1.1")
"""Next hop of every container; the host answers for it by proxy ARP (reference felix.md 2.2)."""


def name_fault(name: str) -> str | None:
    """Return why `name` is not a resource name (DNS-1123 subdomain, 253 bytes), or None."""
    if len(name) > NAME_MAX:
        return f"name is too long by {len(name) - NAME_MAX} bytes"
    if not NAME_REGEX.match(name):
        return f"name must consist of lower case alphanumeric characters, '-' or '.' (regex: {NAME_PATTERN})"
    return None


def label_key_fault(key: str) -> str | None:
    """Return why `key` is not a label key, or None."""
    prefix, slash, name = key.rpartition("/")
    if slash and (len(prefix) > NAME_MAX or not NAME_REGEX.match(prefix)):
        return f"the prefix {prefix!r} of a label key must be a lower-case DNS name"
    if not LABEL_NAME_REGEX.match(name):
        return "a label key has 1 to 63 letters, digits, '-', '_' or '.', and begins and ends with a letter or digit"
    return None


def label_value_fault(value: str) -> str | None:
    """Return why `value` is not a label value, or None."""
    if not LABEL_VALUE_REGEX.match(value):
        return "a label value has at most 63 letters, digits, '-', '_' or '.', and letters or digits at its ends"
    return None


def parse_network(text: str) -> IPNetwork:
    """Parse a strictly masked CIDR; a bare address means /32 or /128.

    Raises:
        ValueError: not an address, host bits set, a netmask instead of a length, or an IPv4-mapped IPv6 address.
    """
    if not _NETWORK_TEXT.match(text):
        raise ValueError(f"{text!r} is no network: write address/length")
    network = ipaddress.ip_network(text)
    _refuse_mapped(network.network_address, text)
    return network


def parse_interface(text: str) -> IPInterface:
    """Parse ``address/length`` whose host bits are kept; a bare address means /32 or /128. Raises ValueError."""
    if not _NETWORK_TEXT.match(text):
        raise ValueError(f"{text!r} is no address: write address/length")
    interface = ipaddress.ip_interface(text)
    _refuse_mapped(interface.ip, text)
    return interface


def parse_address(text: str) -> IPAddress:
    """Parse one bare address. Raises ValueError."""
    if not _ADDRESS_TEXT.match(text):
        raise ValueError(f"{text!r} is no IP address")
    address = ipaddress.ip_address(text)
    _refuse_mapped(address, text)
    return address


def _refuse_mapped(address: IPAddress, text: str) -> None:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"{text} is an IPv4-mapped IPv6 address: write {address.ipv4_mapped}")
