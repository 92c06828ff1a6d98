from collections.abc import Iterator, Sequence
from typing import NoReturn

import pytest

from calicoctl.node.checks import checksystem, name_in_hosts, openings, way_out
from calicoctl.session import STORE
from kernel.probe import Finding, features
from kernel.xtables import BackEnd
from kernel.xtables_detect import Choice
from resources.datastore.etcdconfig import EtcdConfig
from resources.errors import StoreUnavailable


@pytest.mark.parametrize(
    ("name", "known"), [("web-a", True), ("WEB-A", True), ("web", False), ("commented", False), ("127.0.1.1", False)]
)
def test_a_name_in_the_hosts_file(name: str, known: bool) -> None:
    assert name_in_hosts(name, "127.0.0.1 localhost\n127.0.1.1\tweb-a.example web-a # commented\n") is known


def test_only_what_is_used_is_to_be_opened() -> None:
    assert [o.what for o in openings(docker=False)] == [
        "loopback", "established", "icmp echo", "icmpv6 133-136", "icmpv6 echo", "tcp 179",
    ]  # fmt: skip
    assert [o.what for o in openings(etcd_ports=[2379, 2379], ipip=True, vxlan=True)][6:] == [
        "tcp 2379", "protocol 4", "udp 4789", "tcp 7946", "udp 7946",
    ]


NFT = Choice(BackEnd.NFT, "nobody uses another")


def found(back_end: BackEnd = BackEnd.NFT, **broken: str) -> list[Finding]:
    return [Finding(each, each.name not in broken, broken.get(each.name, "")) for each in features(back_end)]


@pytest.fixture(autouse=True)
def nowhere() -> Iterator[None]:
    """A datastore that does not answer."""

    def refuse(_: EtcdConfig) -> NoReturn:
        raise StoreUnavailable("no answer from etcd")

    token = STORE.set(refuse)
    yield
    STORE.reset(token)


def checked(
    capsys: pytest.CaptureFixture[str], findings: list[Finding], missing: Sequence[str] = (), choice: Choice = NFT
) -> tuple[int, str, str]:
    exit = checksystem(
        None,
        choose_back_end=lambda _: choice,
        try_features=lambda asked: findings if asked is choice.back_end else [],
        missing_programs=lambda asked: missing if asked is choice.back_end else ["another"],
    )
    said = capsys.readouterr()
    return exit, said.out, said.err


def test_a_host_that_has_everything_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    exit, out, _ = checked(capsys, found())
    assert exit == 0
    assert "\t\txt_set              \t\t\t\t\tOK\n" in out
    assert "\t\ttcp 179             from the other nodes: BGP\n" in out
    assert out.endswith("System meets minimum system requirements to run Calico!\n")


def test_a_feature_that_is_needed_and_missing_fails_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    exit, out, err = checked(capsys, found(xt_set="Couldn't load match `set'"))
    assert exit == 1
    assert "\t\txt_set              \t\t\t\t\tFAIL\n" in out
    assert out.endswith("System doesn't meet one or more minimum systems requirements to run Calico\n")
    assert "xt_set (rules that ask sets) does not work: Couldn't load match `set'; load it (modprobe xt_set)" in err


def test_only_what_the_chosen_back_end_needs_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    legacy = Choice(BackEnd.LEGACY, "nft rules cannot be made here: no")
    exit, out, _ = checked(capsys, found(BackEnd.LEGACY), choice=legacy)
    assert exit == 0
    assert "\t\tlegacy back end     \t\t\t\t\tOK\n\t\t  nft rules cannot be made here: no\n" in out
    assert "\t\tip_tables           \t\t\t\t\tOK\n" in out
    assert "\t\tiptables-legacy-save" in out
    assert "nf_tables" not in out
    assert "iptables-nft" not in out


def test_a_host_on_which_no_rule_can_be_made_fails_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    neither = Choice(BackEnd.NFT, "legacy rules cannot be made here: no", "not installed: iptables-nft-save", "get it")
    exit, out, err = checked(capsys, found(), choice=neither)
    assert exit == 1
    assert "\t\tnft back end        \t\t\t\t\tFAIL\n" in out
    assert "rules by the nft back end: not installed: iptables-nft-save; get it" in err


def test_a_tunnel_that_is_missing_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    exit, out, err = checked(capsys, found(ipip="Error: Unknown device type."))
    assert exit == 0
    assert "\t\tipip                \t\t\t\t\tMISSING (optional)\n" in out
    assert "needed only for pools with IPIP, whose routes are withheld without it" in err


def test_a_program_that_is_missing_fails_and_names_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    exit, out, err = checked(capsys, found(), missing=["ipset"])
    assert exit == 1
    assert "\t\tipset               \t\t\t\t\tFAIL\n" in out
    assert "install what is missing: ipset (Debian: iptables ipset iproute2 conntrack)" in err


def test_a_store_that_cannot_be_asked_has_every_tunnel_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = checked(capsys, found())
    assert "protocol 4" in out
    assert "udp 4789" in out
    assert "the store cannot be asked which tunnels are used" in err


def test_every_check_that_fails_says_what_it_is_for_and_what_to_do() -> None:
    for feature in {*features(BackEnd.NFT), *features(BackEnd.LEGACY)}:
        text = way_out(Finding(feature, False, "no"))
        assert feature.purpose in text
        assert "modprobe" in text
