"""What the settings ask for and this kernel cannot do, where felix can do without."""

from felix.calc.parameters import Parameters
from felix.daemon import lacking
from kernel.probe import NFLOG, Finding


def finding(*, works: bool) -> Finding:
    return Finding(NFLOG, works, "" if works else "Extension NFLOG revision 0 not supported, missing kernel module?")


def test_nothing_is_tried_while_flow_logs_are_off() -> None:
    asked: list[str] = []

    def never(setting: str) -> Finding:
        asked.append(setting)
        return finding(works=False)

    assert lacking(Parameters(), never) == {}
    assert asked == []


def test_a_kernel_with_nflog_lacks_nothing() -> None:
    assert lacking(Parameters(flow_logs=True), lambda _: finding(works=True)) == {}


def test_a_kernel_without_is_told_with_what_the_tool_said_and_the_way_out() -> None:
    (found,) = lacking(Parameters(flow_logs=True), lambda _: finding(works=False)).items()
    name, lack = found
    assert (name, lack.instead) == ("FlowLogsEnabled", "false")
    assert "missing kernel module" in lack.error
    assert "modprobe xt_NFLOG" in lack.hint
