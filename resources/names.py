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
NAME_PATTERN = rf"^{_LABEL}(\.{_LABEL})*$"
NAME_REGEX = re.compile(NAME_PATTERN.replace("$", r"\Z"))
NAME_MAX = 253
CONTAINER_ID_REGEX = re.compile(r"^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?\Z")
INTERFACE_REGEX = re.compile(r"^[a-zA-Z0-9_.-]{1,15}\Z")
LABEL_NAME_REGEX = re.compile(r"^([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]\Z")
LABEL_VALUE_REGEX = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?\Z")

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
        ValueError: not an address, host bits set, or an IPv4-mapped IPv6 address.
    """
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError(f"{text} is an IPv4-mapped IPv6 address")
    return network


def parse_interface(text: str) -> IPInterface:
    """Parse ``address/length`` whose host bits are kept; a bare address means /32 or /128."""
    return ipaddress.ip_interface(text)


def parse_address(text: str) -> IPAddress:
    """Parse one bare address."""
    return ipaddress.ip_address(text)
