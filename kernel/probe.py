"""Whether this kernel and its tools can do what we need, found by doing it in a throw-away network namespace.

Looking for modules would be wrong both ways: a kernel may have everything built in, or a module that does not load
(reference start.md 4.1).
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from kernel.programs import is_installed, search_path
from kernel.xtables import BackEnd

TIMEOUT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Feature:
    """`script` is run by sh in a fresh network namespace; exit status 0 means that the feature works.

    In it $IPTABLES is the program of the back end that is asked about.
    """

    name: str
    script: str
    purpose: str
    required: bool = True
    without: str = ""
    """What becomes of the purpose without it, if it is not required."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What trying a feature gave; `detail` is the tool's last line if it failed."""

    feature: Feature
    works: bool
    detail: str


def _rule(match: str, table: str = "filter", chain: str = "PREROUTING") -> str:
    return f"$IPTABLES -t {table} -A {chain} {match}"


_RULES = {
    BackEnd.NFT: Feature("nf_tables", "$IPTABLES -N p", "rules (iptables with the nft back end)"),
    BackEnd.LEGACY: Feature("ip_tables", "$IPTABLES -N p", "rules (iptables with the legacy back end)"),
}
LINKS = (
    Feature("veth", "ip link add p0 type veth peer name p1", "the link to each container"),
    Feature(
        "ipip", "ip link show tunl0 2>/dev/null || ip link add p0 type ipip local 127.0.0.1", "pools with IPIP",
        required=False, without="whose routes are withheld",
    ),
    Feature(
        "vxlan", "ip link add p0 type vxlan id 1 dstport 4789", "pools with VXLAN",
        required=False, without="whose routes are withheld",
    ),
)
_SETS = (
    Feature("ip_set", "ipset create p hash:net", "sets of addresses for selectors"),
    Feature("ip_set_hash_ipport", "ipset create p hash:ip,port", "named ports"),
)
NFLOG = Feature(
    "xt_NFLOG", _rule("-j NFLOG --nflog-group 1 --nflog-prefix p --nflog-size 80", chain="INPUT"),
    "flow logs (FlowLogsEnabled)", required=False, without="which stay off",
)
_MATCHES = (
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
        "xt_CT", _rule("-j NOTRACK", "raw"), "doNotTrack policy of host endpoints, and pools with VXLAN",
        required=False, without="which must not be written",
    ),
    NFLOG,
)


def rules_feature(back_end: BackEnd) -> Feature:
    """Return the feature without which a back end can do nothing."""
    return _RULES[back_end]


def rule_programs(back_end: BackEnd) -> tuple[str, ...]:
    """Return the programs that a back end runs."""
    return tuple(f"{family}-{back_end}-{verb}" for family in ("iptables", "ip6tables") for verb in ("save", "restore"))


def features(back_end: BackEnd) -> tuple[Feature, ...]:
    """Return what felix needs of the kernel with a back end."""
    return (LINKS[0], *_SETS, _RULES[back_end], *_MATCHES, *LINKS[1:])


def programs(back_end: BackEnd) -> tuple[str, ...]:
    """Return the programs that we run with a back end."""
    return ("ip", "ipset", *rule_programs(back_end)[:2], "conntrack")


def try_features(wanted: Sequence[Feature] | None = None, back_end: BackEnd = BackEnd.NFT) -> list[Finding]:
    """Try each feature, or all, in a network namespace of its own. Needs root; the host's own is not touched."""
    return [_try(feature, back_end) for feature in wanted or features(back_end)]


def missing_programs(back_end: BackEnd = BackEnd.NFT) -> list[str]:
    """Return which of the programs we run are not installed."""
    return [program for program in programs(back_end) if not is_installed(program)]


def _try(feature: Feature, back_end: BackEnd) -> Finding:
    try:
        answer = subprocess.run(
            ["unshare", "--net", "--", "sh", "-c", f"ip link set lo up; {feature.script}"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            env={"PATH": search_path(), "IPTABLES": f"iptables-{back_end}"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(feature, False, str(error))
    lines = [line for line in answer.stderr.strip().splitlines() if line.strip()]
    return Finding(feature, answer.returncode == 0, lines[-1].strip() if lines else "")
