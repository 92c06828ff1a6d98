"""A long run by hand."""

import argparse
import sys
import time

from agreement.field import BACK_ENDS, Field
from agreement.trial import USUAL, Range, Tally, run
from fakes.random_world import Shape


def main() -> int:
    """Run worlds until one disagrees, time is up, or all agreed."""
    parser = argparse.ArgumentParser(prog="agreement", description=__doc__)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--packets", type=int, default=400, help="in each world")
    parser.add_argument("--seed", type=int, default=0, help="of the first world; the next has the next number")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop after so many; 0: never")
    parser.add_argument("--back-end", choices=BACK_ENDS, default="nft")
    parser.add_argument("--two-hosts", action="store_true")
    parser.add_argument("--policies", type=int, default=USUAL.policies, help="of a world at most")
    parser.add_argument("--rules", type=int, default=USUAL.rules, help="of a list at most")
    given = parser.parse_args()
    tally = Tally()
    began = time.monotonic()
    with Field(back_end=given.back_end, two_hosts=given.two_hosts) as ground:
        up = time.monotonic()
        ranged = Range(ground)
        try:
            for seed in range(given.seed, given.seed + given.worlds):
                shape = Shape(policies=given.policies, rules=given.rules)
                run(ranged, seed, packets=given.packets, tally=tally, shape=shape)
                if given.seconds and time.monotonic() - began > given.seconds:
                    break
        except AssertionError as error:
            print(error)
            return 1
        finally:
            took = time.monotonic() - up
            print(
                f"{tally.worlds} worlds, {tally.packets} packets, {tally.allowed} of them passed, "
                f"{ranged.answers} answers, "
                f"in {took:.1f} s: {(tally.packets + ranged.answers) / took:.0f} packets a second"
            )
            print("protocols:", dict(sorted(tally.by_protocol.items())))
            print("answers:", dict(sorted(tally.by_reason.items(), key=lambda one: -one[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
