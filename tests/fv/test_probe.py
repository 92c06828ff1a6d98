from kernel import probe


def test_this_machine_has_what_felix_needs() -> None:
    found = {finding.feature.name: finding for finding in probe.try_features()}
    assert [f.feature.name for f in found.values() if f.feature.required and not f.works] == []


def test_a_feature_that_is_not_there_is_reported_with_the_tools_own_words() -> None:
    (finding,) = probe.try_features((probe.Feature("nosuch", "ip link add p0 type nosuchtype", "nothing"),))
    assert not finding.works
    assert finding.detail


def test_a_probe_leaves_nothing_in_the_namespace_it_was_called_from() -> None:
    probe.try_features((probe.Feature("veth", "ip link add cali-probe0 type veth peer name cali-probe1", "x"),))
    (after,) = probe.try_features((probe.Feature("look", "! ip link show cali-probe0", "x"),))
    assert after.works
