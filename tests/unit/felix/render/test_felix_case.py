"""The case that the original Felix renders too: the same hashes, and with them the same text, rule for rule."""

from fakes.felix_case import EMPTY_CHAINS, OURS_ALONE, SAVED, of_the_original, pipeline, tags_by_chain
from felix.desired import IPSet, LocalInterface
from resources.names import IfName, parse_network


def test_every_rule_has_the_hash_of_the_original() -> None:
    desired = pipeline().desired()
    rendered = {
        (key.table, key.chain): list(chain.tags)
        for key, chain in desired.chains.items()
        if key.version == 4 and chain.tags
    }
    for key, kernel_chain in desired.kernel_chains.items():
        if key.version == 4:
            rendered[key.table, key.chain] = [*kernel_chain.inserts.tags, *kernel_chain.appends.tags]
    saved = tags_by_chain(SAVED.read_text().splitlines())
    assert sum(map(len, saved.values())) == 83
    assert of_the_original(rendered) == saved
    assert sum(map(len, rendered.values())) == 83 + sum(OURS_ALONE.values())


def test_chains_that_others_jump_to_are_declared_though_empty() -> None:
    desired = pipeline().desired()
    for version in (4, 6):
        for table, chains in EMPTY_CHAINS.items():
            empty = {
                key.chain
                for key, chain in desired.chains.items()
                if key.version == version and key.table == table and not chain.rules
            }
            assert empty - {"cali-nat-outgoing"} == chains


def test_sets_and_interface() -> None:
    desired = pipeline().desired()
    assert {name: members for name, members in desired.sets.items() if name.startswith("cali40")} == {
        "cali40all-hosts-net": IPSet(
            "hash:net", 4, frozenset({"172.16.60.215", "172.16.60.216", "172.16.60.217"})
        ),
        "cali40all-ipam-pools": IPSet("hash:net", 4, frozenset({"17.16.10.0/24"})),
        "cali40masq-ipam-pools": IPSet("hash:net", 4, frozenset({"17.16.10.0/24"})),
        "cali40s:70oCjYvCAK9T6PVCzCInFuu": IPSet("hash:net", 4, frozenset({"17.16.10.64", "17.16.10.128"})),
        "cali40s:MR9Dy5iWW0UxNKyRkM6UiRI": IPSet("hash:net", 4, frozenset({"17.16.10.64"})),
    }
    assert desired.interfaces == {
        IfName("cali61dbcdeb9d0"): LocalInterface(
            frozenset({parse_network("17.16.10.128/32")}), "ee:ee:ee:ee:ee:ee"
        )
    }
