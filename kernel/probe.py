"""Whether this kernel and its tools can do what we need, found by doing it in a throw-away network namespace.

Looking for modules would be wrong both ways: a kernel may have everything built in, or a module that does not load
(reference start.md 4.1).
"""

import shutil
import subprocess
from dataclasses import dataclass

TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Feature:
    """`script` is run by sh in a fresh network namespace; exit status 0 means that the feature works."""

    name: str
    script: str
    purpose: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What trying a feature gave; `detail` is the tool's last line if it failed."""

    feature: Feature
    works: bool
    detail: str


def _rule(match: str, table: str = "filter", chain: str = "PREROUTING") -> str:
    return f"iptables-nft -t {table} -A {chain} {match}"


FEATURES = (
    Feature("veth", "ip link add p0 type veth peer name p1", "the link to each container"),
    Feature("ip_set", "ipset create p hash:net", "sets of addresses for selectors"),
    Feature("ip_set_hash_ipport", "ipset create p hash:ip,port", "named ports"),
    Feature("nf_tables", "iptables-nft -N p", "rules (iptables with the nft back end)"),
    Feature(
        "xt_set", "ipset create p hash:net && " + _rule("-m set --match-set p src -j ACCEPT", chain="INPUT"),
        "rules that ask sets",
    ),
    Feature("xt_comment", _rule("-m comment --comment p -j ACCEPT", chain="INPUT"), "marks on our rules"),
    Feature("xt_conntrack", _rule("-m conntrack --ctstate ESTABLISHED -j ACCEPT", chain="INPUT"), "replies"),
    Feature("xt_mark", _rule("-m mark --mark 0x1/0x1 -j ACCEPT", chain="INPUT"), "verdicts between chains"),
    Feature("xt_MARK", _rule("-j MARK --set-mark 0x1/0x1", "mangle"), "verdicts between chains"),
    Feature("xt_multiport", _rule("-p tcp -m multiport --dports 1,2:3 -j ACCEPT", chain="INPUT"), "ports"),
    Feature("xt_addrtype", _rule("-m addrtype --dst-type LOCAL -j ACCEPT", chain="INPUT"), "local addresses"),
    Feature("xt_rpfilter", _rule("-m rpfilter --invert --validmark -j DROP", "raw"), "spoof protection"),
    Feature("xt_MASQUERADE", _rule("-j MASQUERADE --random-fully", "nat", "POSTROUTING"), "NAT to the outside"),
    Feature(
        "ipip", "ip link show tunl0 2>/dev/null || ip link add p0 type ipip local 127.0.0.1", "pools with IPIP",
        required=False,
    ),
    Feature("vxlan", "ip link add p0 type vxlan id 1 dstport 4789", "pools with VXLAN", required=False),
)

PROGRAMS = ("ip", "ipset", "iptables-nft-save", "iptables-nft-restore", "conntrack")


def try_features(features: tuple[Feature, ...] = FEATURES) -> list[Finding]:
    """Try each feature in a network namespace of its own. Needs root; the host's own namespace is not touched."""
    return [_try(feature) for feature in features]


def missing_programs() -> list[str]:
    """Return which of the programs we run are not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]


def _try(feature: Feature) -> Finding:
    try:
        answer = subprocess.run(
            ["unshare", "--net", "--", "sh", "-c", f"ip link set lo up; {feature.script}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(feature, False, str(error))
    lines = [line for line in answer.stderr.strip().splitlines() if line.strip()]
    return Finding(feature, answer.returncode == 0, lines[-1].strip() if lines else "")
