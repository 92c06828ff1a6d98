"""Minutes of random changes at a high rate: what the daemons that live through them use (reference bgp.md 6, row 80).

    .venv/bin/python benchmarks/bgp_churn.py [--seconds 600] [--seed 1]

Run as root. Four nodes and a BIRD: blocks, filters, communities and what BIRD announces change some ten times a second;
on three of the nodes bgpd and ExaBGP are killed, links cut and records taken away. After every portion all kernels must
have what the records say, and the fourth node must have been told by BIRD, attribute by attribute, what a second BIRD
was. At the end a fresh start must come to the same. The figures are those of the fourth node, whose daemons are never
touched: at the end beside those after the first portion.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from results import Row, tell  # noqa: E402

from bed import Cluster  # noqa: E402
from bed.churn import HOSTS, NODES, Churn, Figures  # noqa: E402

PORTION_SECONDS = 40.0


def line(figures: dict[str, Figures]) -> str:
    return "  ".join(f"{name} {one.memory:.1f} MB, {one.files} files" for name, one in sorted(figures.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print what bench.py reads")
    given = parser.parse_args()
    first: dict[str, Figures] = {}
    last: dict[str, Figures] = {}
    with Cluster(HOSTS) as cluster:
        churn = Churn(cluster, given.seed)
        churn.settle()
        walked = 0.0
        while walked < given.seconds:
            churn.walk(PORTION_SECONDS)
            walked += PORTION_SECONDS
            took = churn.settle()
            last = churn.witness()
            first = first or last
            print(f"{walked:5.0f} s, {churn.steps} changes, settled in {took:.1f} s: {line(last)}", file=sys.stderr)
        for number in range(1, NODES + 1):
            churn.start_afresh(f"node{number}")
        churn.settle()
    tell([
        Row(name=f"memory of {name} after {walked:.0f} s of changes, beside its first {PORTION_SECONDS:.0f} s",
            samples=[last[name].memory], unit="MB", aim=1.1, reference=[first[name].memory], reference_name="itself")
        for name in sorted(last)
    ])  # fmt: skip


if __name__ == "__main__":
    main()
