"""Commands for people, called by the Makefile: ``python -m bed demo|down|shell|list``."""

import argparse
import json
import os
import sys

from bed.claim import FOLDER, claims, down
from bed.command import clean_environment
from bed.demo.play import main as play
from bed.host import enter_words


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bed", description="Beds of test hosts on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    take_down = commands.add_parser("down", help="remove a bed, or all whose owner was killed")
    take_down.add_argument("id", nargs="?")
    shell = commands.add_parser("shell", help="a shell on a host of a bed that is up")
    shell.add_argument("id")
    shell.add_argument("host")
    shell.add_argument("argv", nargs=argparse.REMAINDER, help="a command instead of the shell")
    commands.add_parser("list", help="the beds and their hosts")
    demo = commands.add_parser("demo", help="the deployment record, on three hosts")
    demo.add_argument("--keep", action="store_true", help="leave the hosts up")
    chosen = parser.parse_args(arguments)
    if chosen.command == "down":
        return _down(chosen.id)
    if chosen.command == "shell":
        return _shell(chosen.id, chosen.host, chosen.argv)
    if chosen.command == "demo":
        return play(keep=chosen.keep)
    return _list()


def _down(id: str | None) -> int:
    removed = down(id)
    print(f"removed: {', '.join(removed)}" if removed else "nothing to remove")
    return 0


def _shell(id: str, host: str, argv: list[str]) -> int:
    folder = FOLDER / id / host
    try:
        pid = int((folder / "pid").read_text())
        environment = {**clean_environment(), **json.loads((folder / "env").read_text())}
    except OSError:
        print(f"the bed {id!r} has no host {host!r} that is up; `make demo KEEP=1` leaves some", file=sys.stderr)
        return 1
    environment["PS1"] = f"[{host} as \\h] \\w# "
    words = [*enter_words(pid), *(argv or ["bash", "--norc"])]
    os.execvpe(words[0], words, environment)
    raise AssertionError("exec does not return")


def _list() -> int:
    for claim in claims():
        owner = claim.owner
        state = (
            "?" if owner is None else "kept" if owner.kept else "in use" if owner.alive else "left by a killed process"
        )
        hosts = sorted(path.parent.name for path in claim.folder.glob("*/pid"))
        print(f"{claim.id}  {state}  {' '.join(hosts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
