"""What `calicoctl ipam check` prints: Calico's words and order (reference ipam.md 7.3), with a way out of each finding.

Pure. What Calico does not look for comes behind, and is not counted as a problem: old tools read the last line.
"""

from collections import Counter
from collections.abc import Iterable

from ipam.audit import Audit, Evidence, Finding, Kind, allocations, described
from ipam.block import Block

_TOP = 20
_UNCOUNTED = tuple(kind for kind in Kind if not kind.is_problem and kind not in (Kind.SHARED, Kind.MISSING_HANDLE))


def lines(audit: Audit, *, names_all: bool = False, names_problems: bool = False) -> list[str]:
    """Return the report, line by line.

    Args:
        names_all: name every address and who uses it.
        names_problems: name what is wrong, with what to do.
    """

    def named(kind: Kind) -> list[str]:
        return _named(audit.of(kind)) if names_problems else []

    def count(kind: Kind) -> int:
        return len(audit.of(kind))

    evidence = audit.evidence
    with_matches = len(evidence.handles) - count(Kind.LEAKED_HANDLE)
    return [
        "Checking IPAM for inconsistencies...",
        "",
        *_what_there_is(evidence, names_all=names_all),
        *(_named(audit.of(Kind.SHARED)) if names_problems else []),
        "",
        *_by_node(evidence),
        "Scanning for IPs that are allocated but not actually in use...",
        *named(Kind.LEAKED),
        f"Found {count(Kind.LEAKED)} IPs that are allocated in IPAM but not actually in use.",
        "Scanning for IPs that are in use by a workload or node but not allocated in IPAM...",
        *named(Kind.OUTSIDE_POOLS),
        *named(Kind.UNALLOCATED),
        f"Found {count(Kind.OUTSIDE_POOLS)} in-use IPs that are not in active IP pools.",
        f"Found {count(Kind.UNALLOCATED)} in-use IPs that are in active IP pools but have no corresponding IPAM "
        "allocation.",
        "",
        "Scanning for IPAM handles with no matching IPs...",
        *named(Kind.LEAKED_HANDLE),
        f"Found {count(Kind.LEAKED_HANDLE)} handles with no matching IPs (and {with_matches} handles with matches).",
        "Scanning for IPs with missing handle...",
        *named(Kind.MISSING_HANDLE),
        f"Found {count(Kind.MISSING_HANDLE)} handles mentioned in blocks with no matching handle resource.",
        "Validating IPAMBlock structures...",
        *_named(audit.of(Kind.INVALID_BLOCK)),
        f"Found {count(Kind.INVALID_BLOCK)} invalid IPAMBlocks.",
        *_named(audit.of(Kind.OVERLAPPING_BLOCKS)),
        *_besides(audit, names_problems),
        f"Check complete; found {audit.problems} problems.",
    ]


def _named(findings: Iterable[Finding]) -> list[str]:
    found: list[str] = []
    for finding in findings:
        found += [f"  {finding.detail}", f"    {finding.remedy}"]
    return found


def _what_there_is(evidence: Evidence, *, names_all: bool) -> list[str]:
    held = [(address, handle, attrs) for block in evidence.readable for _, address, handle, attrs in allocations(block)]
    active = [str(pool.network) for pool in evidence.pools if not pool.disabled]
    of_nodes = sum(who.startswith("Node(") for owners in evidence.users.values() for who in owners)
    of_workloads = sum(not who.startswith("Node(") for owners in evidence.users.values() for who in owners)
    blocks = sorted(evidence.blocks.items(), key=lambda item: (item[0].version, item[0]))
    users = sorted(evidence.users.items(), key=lambda item: (item[0].version, item[0]))
    return [
        "Loading all IPAM blocks...",
        f"Found {len(blocks)} IPAM blocks.",
        *(f" IPAM block {cidr} affinity={_affinity(block)}:" for cidr, block in blocks),
        *(f"  {address} allocated; {described(handle, attrs)}" for address, handle, attrs in held if names_all),
        f"IPAM blocks record {len(held)} allocations.",
        "",
        "Loading all IPAM pools...",
        *(f"  {cidr}" for cidr in active),
        f"Found {len(active)} active IP pools.",
        "",
        "Loading all nodes.",
        f"Found {of_nodes} node tunnel IPs.",
        "",
        "Loading all workload endpoints.",
        f"Found {of_workloads} workload IPs.",
        *(f"  {address} belongs to {', '.join(owners)}" for address, owners in users if names_all),
        f"Workloads and nodes are using {len(users)} IPs.",
        "",
        "Loading all handles",
    ]


def _affinity(block: Block | str) -> str:
    if isinstance(block, str):
        return "<unreadable>"
    return block.affinity or "<none>"


def _by_node(evidence: Evidence) -> list[str]:
    """Return who has most addresses."""
    counts: Counter[str] = Counter()
    for block in evidence.readable:
        for _, _, _, attributes in allocations(block):
            if node := attributes.get("node", ""):
                counts[node] += 1
    found = [f"Looking for top (up to {_TOP}) nodes by allocations..."]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found += [f"  {node} has {count} allocations" for node, count in ordered[:_TOP]]
    if ordered:
        numbers = [count for _, count in ordered]
        found.append(f"Node with most allocations has {numbers[0]}; median is {numbers[len(numbers) // 2]}")
    return [*found, ""]


def _besides(audit: Audit, names_problems: bool) -> list[str]:
    """Return what else does not fit: it mends itself, or waits for somebody to say that a host is gone."""
    found: list[str] = []
    for kind in _UNCOUNTED:
        if some := audit.of(kind):
            found.append(f"Also, not counted as a problem: {kind.value}: {len(some)}")
            found += _named(some) if names_problems else []
    return found
