"""What the BGP processes of a host use: memory and processor time, by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from bed import Host

_READ = r"""
import json, os, re
NAMES = {"bgpd": r"calico-bgpd", "exabgp": r"bin/exabgp server", "relay": r"relay\.py --socket", "bird": r"^bird -f"}
ticks, found = os.sysconf("SC_CLK_TCK"), {}
for entry in filter(str.isdigit, os.listdir("/proc")):
    if entry == str(os.getpid()):
        continue  # the patterns are in this program's own arguments
    try:
        words = open(f"/proc/{entry}/cmdline", "rb").read().replace(b"\0", b" ").decode()
        fields = open(f"/proc/{entry}/stat").read().rpartition(")")[2].split()
        pages = int(open(f"/proc/{entry}/statm").read().split()[1])
    except OSError:
        continue
    for name, pattern in NAMES.items():
        if re.search(pattern, words):
            seconds, memory = found.get(name, (0.0, 0.0))
            found[name] = (seconds + (int(fields[11]) + int(fields[12])) / ticks,
                           memory + pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """By process name: processor seconds so far, and MB of memory."""

    cpu: Mapping[str, float]
    memory: Mapping[str, float]

    @property
    def seconds(self) -> float:
        """Processor time of all."""
        return sum(self.cpu.values())


def usage(host: Host) -> Usage:
    found = json.loads(host.run(["python3", "-c", _READ]).stdout)
    return Usage({name: one[0] for name, one in found.items()}, {name: one[1] for name, one in found.items()})
