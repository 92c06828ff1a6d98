"""All benchmarks, or some: one table of ours beside a reference of the same minutes, kept in RESULTS.md.

    make bench
    make bench ROWS="up policy"       # some rows
    make bench ROWS=list              # which there are
    make bench BACK_ENDS=NFT          # one back end; both by default

Run as root on a machine that does nothing else. All of it is in network namespaces that it makes and takes away.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import felix_rows  # noqa: E402
from results import Row, keep, table, told  # noqa: E402

CHANGES = {
    "up": "felix: endpoint up",
    "policy": "felix: one policy changed",
    "label": "felix: one label changed",
}
REST = {"memory": "felix: memory", "idle": "felix: CPU when idle"}
ROWS = {
    **CHANGES,
    **REST,
    "start": "felix: start at the larger size",
    "crowd": "felix: a policy of 1,000 rules, 1,000 policies on one endpoint",
    "sets": "felix: a set of 50,000 members",
    "routes": "kernel: 10,000 routes",
    "addresses": "ipam: addresses per second",
    "table": "bgpd: 10,000 routes of one peer",
    "sessions": "bgpd: 50 sessions, idle",
    "ping": "docker run on one host to the first ping from another",
    "mesh": "bgpd: a mesh of 50 nodes restarted at once",
    "churn": "bgpd: memory after ten minutes of changes",
    "reflector": "bgpd: a reflector for 20 clients with 500 routes each",
}
SCRIPTS = {
    "routes": "kernel_routes.py",
    "addresses": "ipam_addresses.py",
    "table": "bgp_table.py",
    "sessions": "bgp_sessions.py",
    "ping": "first_ping.py",
    "mesh": "bgp_mesh.py",
    "churn": "bgp_churn.py",
    "reflector": "bgp_reflector.py",
}


def rows_of(wanted: set[str], back_ends: list[str]) -> Iterator[Row]:
    for back_end in back_ends:
        if wanted & CHANGES.keys():
            yield from felix_rows.change_rows(back_end, wanted)
        if wanted & REST.keys():
            yield from felix_rows.rest_rows(back_end, wanted)
        if "start" in wanted:
            yield from felix_rows.start_rows(back_end)
        if "crowd" in wanted:
            yield from felix_rows.crowd_rows(back_end)
    if "sets" in wanted:
        yield from felix_rows.set_rows()
    for name, script in SCRIPTS.items():
        if name in wanted:
            yield from rows_of_script(script)


def rows_of_script(script: str) -> Iterator[Row]:
    name, *options = script.split()
    command = [sys.executable, str(Path(__file__).with_name(name)), "--json", *options]
    yield from told(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=3600).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="which rows; all by default; 'list' shows them")
    parser.add_argument("--back-ends", default="NFT,Legacy", help="NFT, Legacy or both, with a comma")
    parser.add_argument("--keep", action="store_true", help="add the table to RESULTS.md")
    given = parser.parse_args()
    if unknown := set(given.rows) - ROWS.keys() - {"list"}:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if "list" in given.rows:
        for name, title in ROWS.items():
            print(f"{name:10} {title}")
        return 0
    found: list[Row] = []
    began = time.monotonic()
    for row in rows_of(set(given.rows) or set(ROWS), given.back_ends.split(",")):
        found.append(row)
        print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    if given.keep:
        keep(found, time.monotonic() - began)
    print(f"\n{table(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
