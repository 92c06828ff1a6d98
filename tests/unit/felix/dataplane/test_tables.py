import pytest

from fakes.tables import FakeTables
from felix.dataplane.tables import TRIES, TableEffector
from felix.desired import Chain, KernelChain
from kernel.errors import TableRefused, ToolFailed, ToolTimedOut
from kernel.xtables import TableKey

FILTER = TableKey(4, "filter")


def chain(*bodies: str) -> Chain:
    tags = tuple(f"{abs(hash((bodies, i))):016x}"[:16] for i in range(len(bodies)))
    return Chain(tuple(f'-m comment --comment "cali:{t}" {b}' for t, b in zip(tags, bodies, strict=True)), tags)


TOP = KernelChain(inserts=chain("-j cali-FORWARD"), appends=chain("-m mark --mark 1 -j ACCEPT"))


@pytest.fixture
def kernel() -> FakeTables:
    return FakeTables()


@pytest.fixture
def table(kernel: FakeTables) -> TableEffector:
    effector = TableEffector(kernel, FILTER)
    effector.want("cali-FORWARD", chain("-j DROP"))
    effector.want_in_kernel_chain("FORWARD", TOP)
    return effector


def forward(kernel: FakeTables) -> list[str]:
    return list(kernel.rules(FILTER)["FORWARD"])


def test_chains_and_jumps_are_written_at_once(kernel: FakeTables, table: TableEffector) -> None:
    assert table.apply() == {}
    assert len(kernel.log) == 1
    assert list(kernel.rules(FILTER)["cali-FORWARD"]) == list(chain("-j DROP").rules)
    assert forward(kernel) == [*TOP.inserts.rules, *TOP.appends.rules]


def test_foreign_rules_stay_between_ours(kernel: FakeTables, table: TableEffector) -> None:
    kernel.put(FILTER, "FORWARD", "-j DOCKER-USER", "-o docker0 -j ACCEPT")
    kernel.put(FILTER, "DOCKER-USER", "-j RETURN")
    table.apply()
    assert forward(kernel) == [*TOP.inserts.rules, "-j DOCKER-USER", "-o docker0 -j ACCEPT", *TOP.appends.rules]


def test_a_restart_writes_nothing(kernel: FakeTables, table: TableEffector) -> None:
    table.apply()
    kernel.log.clear()
    again = TableEffector(kernel, FILTER)
    again.want("cali-FORWARD", chain("-j DROP"))
    again.want_in_kernel_chain("FORWARD", TOP)
    assert again.apply() == {}
    assert kernel.log == []


def test_a_rule_put_above_ours_is_passed_again(kernel: FakeTables, table: TableEffector) -> None:
    table.apply()
    kernel.put(FILTER, "FORWARD", "-j ACCEPT", *forward(kernel))
    table.resync()
    table.apply()
    assert forward(kernel) == [*TOP.inserts.rules, "-j ACCEPT", *TOP.appends.rules]


@pytest.mark.parametrize("left", [[], ["-j ACCEPT"]])
def test_a_flushed_chain_gets_ours_back(kernel: FakeTables, table: TableEffector, left: list[str]) -> None:
    table.apply()
    kernel.put(FILTER, "FORWARD", *left)
    kernel.put(FILTER, "cali-FORWARD")
    table.resync()
    table.apply()
    assert forward(kernel) == [*TOP.inserts.rules, *left, *TOP.appends.rules]
    assert kernel.rules(FILTER)["cali-FORWARD"] == chain("-j DROP").rules


def test_a_doubled_jump_is_made_one(kernel: FakeTables, table: TableEffector) -> None:
    table.apply()
    kernel.put(FILTER, "FORWARD", *TOP.inserts.rules, *forward(kernel))
    table.resync()
    table.apply()
    assert forward(kernel) == [*TOP.inserts.rules, *TOP.appends.rules]


def test_only_the_chain_that_changed_is_written(kernel: FakeTables, table: TableEffector) -> None:
    for number in range(50):
        table.want(f"cali-tw-{number}", chain("-j DROP"))
    table.apply()
    kernel.log.clear()
    table.want("cali-tw-7", chain("-j RETURN", "-j DROP"))
    table.apply()
    assert [sorted(change.chains) for _, change in kernel.log] == [["cali-tw-7"]]


def test_a_chain_that_is_not_wanted_goes_with_those_of_old_releases(kernel: FakeTables, table: TableEffector) -> None:
    kernel.put(FILTER, "cali-tw-old", "-j DROP")
    kernel.put(FILTER, "felix-FORWARD", "-j DROP")
    kernel.put(FILTER, "operators-own", "-j DROP")
    table.apply()
    assert {"cali-tw-old", "felix-FORWARD"}.isdisjoint(kernel.rules(FILTER))
    assert "operators-own" in kernel.rules(FILTER)


@pytest.mark.parametrize("bad", ["cali-pi-bad", "cali-pro-bad", "cali-fw-bad", "cali-gi-bad", "cali-go-bad"])
def test_a_chain_the_kernel_refuses_drops_and_harms_nobody_else(bad: str) -> None:
    class Naming(FakeTables):
        """Names the guilty chain, as the real thing does."""

        def _check(self, key: TableKey, table: dict[str, list[str]]) -> None:
            if any("nosuch" in rule for rule in table.get(bad, [])):
                raise TableRefused("refused: no chain cali-nosuch", chain=bad)

    naming = Naming()
    effector = TableEffector(naming, FILTER)
    effector.want(bad, chain("-j cali-nosuch"))
    effector.want("cali-tw-good", chain("-j RETURN"))
    assert effector.apply().keys() == {bad}
    assert [rule.endswith("-j DROP") for rule in naming.rules(FILTER)[bad]] == [True]
    assert naming.rules(FILTER)["cali-tw-good"] == chain("-j RETURN").rules
    effector.want(bad, chain("-j RETURN"))
    assert effector.apply() == {}
    assert naming.rules(FILTER)[bad] == chain("-j RETURN").rules


@pytest.mark.parametrize("many", [TRIES // 2, TRIES * 3])
def test_many_chains_the_kernel_refuses_do_not_keep_the_others_from_being_written(many: int) -> None:
    bad = {f"cali-pi-bad{number}" for number in range(many)}

    class Naming(FakeTables):
        def _check(self, key: TableKey, table: dict[str, list[str]]) -> None:
            for chain in bad & table.keys():
                if any("nosuch" in rule for rule in table[chain]):
                    raise TableRefused("refused: no chain cali-nosuch", chain=chain)

    naming = Naming()
    effector = TableEffector(naming, FILTER)
    for name in bad:
        effector.want(name, chain("-j cali-nosuch"))
    effector.want("cali-tw-good", chain("-j RETURN"))
    assert effector.apply().keys() == bad
    assert naming.rules(FILTER)["cali-tw-good"] == chain("-j RETURN").rules
    assert all(rule.endswith("-j DROP") for name in bad for rule in naming.rules(FILTER)[name])


class Deleting(FakeTables):
    """Another program deletes a chain between our reading and our writing, a number of times."""

    times = 1

    def _check(self, key: TableKey, table: dict[str, list[str]]) -> None:
        if self.times:
            self.times -= 1
            raise TableRefused("Chain 'cali-pi-p' does not exist", chain="cali-tw-a")


def test_what_another_program_spoiled_in_between_is_read_back_and_written_again() -> None:
    kernel = Deleting()
    effector = TableEffector(kernel, FILTER)
    effector.want("cali-pi-p", chain("-j RETURN"))
    effector.want("cali-tw-a", chain("-j cali-pi-p"))
    assert effector.apply() == {}
    assert kernel.rules(FILTER)["cali-tw-a"] == chain("-j cali-pi-p").rules


@pytest.mark.parametrize("name", ["cali-INPUT", "cali-FORWARD", "cali-from-wl-dispatch", "cali-wl-to-host"])
def test_a_chain_that_is_not_one_endpoints_never_becomes_a_drop(name: str) -> None:
    """A DROP in cali-INPUT would cut the host off."""

    class Refusing(FakeTables):
        def _check(self, key: TableKey, table: dict[str, list[str]]) -> None:
            if any("nosuch" in rule for rule in table.get(name, [])):
                raise TableRefused("no such match", chain=name)

    kernel = Refusing()
    effector = TableEffector(kernel, FILTER)
    effector.want(name, chain("-j RETURN"))
    effector.apply()
    effector.want(name, chain("-m nosuch -j RETURN"))
    effector.want("cali-tw-new", chain("-j DROP"))
    with pytest.raises(TableRefused):
        effector.apply()
    assert kernel.rules(FILTER)[name] == chain("-j RETURN").rules
    effector.want(name, chain("-j ACCEPT"))
    assert effector.apply() == {}
    assert "cali-tw-new" in kernel.rules(FILTER)


def test_a_refusal_without_a_culprit_is_tried_again_and_then_raised(kernel: FakeTables, table: TableEffector) -> None:
    class Refusing(FakeTables):
        tries = 0

        def _check(self, key: TableKey, table: dict[str, list[str]]) -> None:
            self.tries += 1
            raise TableRefused("no")

    refusing = Refusing()
    effector = TableEffector(refusing, FILTER)
    effector.want("cali-a", chain("-j DROP"))
    with pytest.raises(TableRefused):
        effector.apply()
    assert refusing.tries == TRIES


def test_a_failed_write_is_read_back_and_repeated(kernel: FakeTables, table: TableEffector) -> None:
    kernel.unwritable = ToolFailed("iptables-nft-restore: killed")
    with pytest.raises(ToolFailed):
        table.apply()
    kernel.unwritable = None
    assert table.apply() == {}
    assert forward(kernel) == [*TOP.inserts.rules, *TOP.appends.rules]


def test_our_jumps_leave_a_kernel_chain_that_is_not_wanted_any_more(kernel: FakeTables, table: TableEffector) -> None:
    kernel.put(FILTER, "FORWARD", "-j ACCEPT")
    table.apply()
    table.want_in_kernel_chain("FORWARD", None)
    table.want("cali-FORWARD", None)
    table.apply()
    assert forward(kernel) == ["-j ACCEPT"]
    assert "cali-FORWARD" not in kernel.rules(FILTER)


LAST = KernelChain(appends=chain("-j cali-FORWARD", "-m mark --mark 1 -j ACCEPT"))


def test_rules_that_are_to_be_last_are_put_last_again(kernel: FakeTables, table: TableEffector) -> None:
    kernel.put(FILTER, "FORWARD", "-j ACCEPT")
    table.want_in_kernel_chain("FORWARD", LAST)
    table.apply()
    kernel.put(FILTER, "FORWARD", *forward(kernel), "-j DROP")
    table.resync()
    table.apply()
    assert forward(kernel) == ["-j ACCEPT", "-j DROP", *LAST.appends.rules]
    drift = table.take_drift()
    assert drift is not None
    assert (drift.found, drift.lost) == ("FORWARD: ours were not in place", False)


@pytest.mark.parametrize(
    ("chains", "found", "lost"),
    [
        ({"FORWARD": ["-j ACCEPT", *TOP.inserts.rules, *TOP.appends.rules]}, "FORWARD: ours were not in place", False),
        ({"FORWARD": []}, "FORWARD: ours were missing", True),
        ({"FORWARD": list(TOP.appends.rules)}, "FORWARD: ours were changed", True),
        ({"FORWARD": [*TOP.inserts.rules * 2, *TOP.appends.rules]}, "FORWARD: ours were changed", True),
        ({"cali-FORWARD": []}, "chains changed: cali-FORWARD", True),
        ({"FORWARD": [], "cali-FORWARD": []}, "FORWARD: ours were missing; chains changed: cali-FORWARD", True),
        ({"cali-old": []}, "chains not of this felix: cali-old", False),
    ],
)
def test_what_others_did_to_ours_is_told_once_and_mended(
    kernel: FakeTables, table: TableEffector, chains: dict[str, list[str]], found: str, lost: bool
) -> None:
    table.apply()
    assert table.take_drift() is None
    wanted = kernel.rules(FILTER)
    for name, rules in chains.items():
        kernel.put(FILTER, name, *rules)
    table.resync()
    table.apply()
    drift = table.take_drift()
    assert drift is not None
    assert (drift.found, drift.lost) == (found, lost)
    assert table.take_drift() is None
    assert {name: [r for r in rules if "cali" in r] for name, rules in kernel.rules(FILTER).items()} == {
        name: list(rules) for name, rules in wanted.items()
    }


def test_what_only_concerns_others_and_what_we_were_told_to_change_is_no_drift(
    kernel: FakeTables, table: TableEffector
) -> None:
    table.apply()
    kernel.put(FILTER, "INPUT", "-j DROP")
    kernel.put(FILTER, "DOCKER", "-j ACCEPT")
    table.want("cali-FORWARD", chain("-j RETURN"))
    table.want("cali-new", chain("-j RETURN"))
    table.want_in_kernel_chain("FORWARD", LAST)
    table.resync()
    table.apply()
    table.want("cali-new", None)
    table.resync()
    table.apply()
    assert table.take_drift() is None


def test_a_write_whose_end_is_not_known_is_no_drift(kernel: FakeTables, table: TableEffector) -> None:
    table.apply()
    table.want("cali-new", chain("-j RETURN"))
    kernel.unwritable = ToolTimedOut("no end")
    with pytest.raises(ToolTimedOut):
        table.apply()
    kernel.unwritable = None
    kernel.put(FILTER, "cali-new", *chain("-j RETURN").rules)
    table.apply()
    assert table.take_drift() is None


def test_a_chain_that_could_only_be_emptied_is_no_drift(kernel: FakeTables, table: TableEffector) -> None:
    table.want("cali-x", chain("-j DROP"))
    table.apply()
    kernel.put(FILTER, "MINE", "-j cali-y", "-j DROP")
    kernel.put(FILTER, "cali-y", "-j cali-x")
    table.want("cali-x", None)
    assert list(table.apply()) == ["cali-x"]
    table.resync()
    table.apply()
    drift = table.take_drift()
    assert drift is not None
    assert "cali-x" not in drift.found
