import pytest

from calicoctl.node.checks import name_in_hosts, openings


@pytest.mark.parametrize(
    ("name", "known"), [("web-a", True), ("WEB-A", True), ("web", False), ("commented", False), ("127.0.1.1", False)]
)
def test_a_name_in_the_hosts_file(name: str, known: bool) -> None:
    assert name_in_hosts(name, "127.0.0.1 localhost\n127.0.1.1\tweb-a.example web-a # commented\n") is known


def test_only_what_is_used_is_to_be_opened() -> None:
    assert [o.what for o in openings(docker=False)] == ["loopback", "established", "icmp echo", "tcp 179"]
    assert [o.what for o in openings(etcd_ports=[2379, 2379], ipip=True, vxlan=True)][4:] == [
        "tcp 2379", "protocol 4", "udp 4789", "tcp 7946", "udp 7946",
    ]
