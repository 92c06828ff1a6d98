"""All benchmarks, or some: one table of ours beside a reference of the same minutes, kept in RESULTS.md.

    make bench
    make bench ROWS="up policy"     # some rows
    make bench ROWS=list            # which there are
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import felix_rows  # noqa: E402
from results import Row, keep, table  # noqa: E402

FELIX = {
    "up": "felix: endpoint up", "policy": "felix: policy change", "label": "felix: label change",
    "memory": "felix: memory", "idle": "felix: CPU when idle",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="which rows; all by default; 'list' shows them")
    parser.add_argument("--back-ends", default="NFT")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    wanted = set(given.rows) or set(FELIX)
    rows: list[Row] = []
    began = time.monotonic()
    for back_end in given.back_ends.split(","):
        for row in felix_rows.change_rows(back_end, wanted & FELIX.keys()):
            rows.append(row)
            print(table([row]).splitlines()[-1], file=sys.stderr, flush=True)
    print(table(rows))
    if given.keep:
        keep(rows, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
