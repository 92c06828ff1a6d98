"""A kernel without nftables: felix takes the legacy tables by itself, and policy holds there."""

import json
import sys

from bed.guest import PROJECT, run_in_guest

# What happens in the guest: one host with two networks, as the tests of felix have it.
JOB = """
import json
import sys
sys.path[:0] = [{project!r}, {project!r} + "/tests"]
from bed import Firewall, wait_until
from bed.felix import FelixLab
from fakes.felix_records import policy, rule
from kernel.xtables import BackEnd
from resources.kinds.rule import EntityRule

found = {{}}
with FelixLab(1, firewall=Firewall(), back_end=BackEnd.LEGACY) as lab:
    a0, a1, b1 = (
        lab.attach(lab.node1, name, address)
        for name, address in (("a0", "10.65.0.2"), ("a1", "10.65.0.3"), ("b1", "10.66.0.2"))
    )
    found["open"] = sorted(lab.open_pairs())
    deny = rule("Deny", source=EntityRule(selector="name == 'a1'"))
    lab.put(policy("p", "name == 'a0'", [deny, rule("Allow")], types=["Ingress"]))
    found["with policy"] = sorted(lab.open_pairs())
    lab.node1.run("iptables-legacy -F FORWARD")
    a0.await_ping(a1.address, timeout=20.0)
    wait_until("felix to say so", lambda: "rules.repaired" in lab.felix["node1"].text)
    found["rules"] = lab.node1.run("iptables-legacy -S FORWARD").stdout
    found["log"] = lab.felix["node1"].text
with open("/run/guest/found", "w") as file:
    json.dump(found, file)
"""


def test_felix_takes_the_legacy_tables_and_policy_holds() -> None:
    files = {"job.py": JOB.format(project=str(PROJECT)), "found": ""}
    run_in_guest([sys.executable, "/run/guest/job.py"], files=files, memory="1024M", timeout=240.0)
    found = json.loads(files["found"])
    [chosen] = [line for line in found["log"].splitlines() if "backend.chosen" in line]
    assert "back_end=legacy" in chosen
    assert "nft rules cannot be made here" in chosen
    assert "backend.unusable" not in found["log"]
    assert found["open"] == ["a0>a1", "a1>a0"]
    assert found["with policy"] == ["a0>a1", "b1>a0"]
    assert "-j cali-FORWARD" in found["rules"].splitlines()[1]
    assert "FORWARD: ours were missing" in found["log"]
