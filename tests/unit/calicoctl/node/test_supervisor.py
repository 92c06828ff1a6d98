import configparser

from calicoctl.node.supervisor import Program, configuration

PROGRAMS = (
    Program("felix", ("/opt/calico/bin/calico-felix",)),
    Program("agent", ("/opt/calico/bin/calico-node", "agent")),
)


def parsed() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(configuration(PROGRAMS))
    return parser


def test_each_daemon_is_a_program_that_is_restarted_and_logs_to_a_folder_of_its_own() -> None:
    file = parsed()
    assert file["program:felix"]["command"] == "setpriv --pdeathsig TERM -- /opt/calico/bin/calico-felix"
    assert file["program:agent"]["command"] == "setpriv --pdeathsig TERM -- /opt/calico/bin/calico-node agent"
    for name in ("felix", "agent"):
        assert file[f"program:{name}"]["autorestart"] == "true"
        assert file[f"program:{name}"]["stdout_logfile"] == f"/var/log/calico/{name}/current"


def test_the_control_socket_is_for_root_alone() -> None:
    assert parsed()["unix_http_server"]["chmod"] == "0600"


def test_what_a_daemon_leaves_running_is_not_killed_with_it() -> None:
    for name in ("felix", "agent"):
        section = parsed()[f"program:{name}"]
        assert (section["stopasgroup"], section["killasgroup"]) == ("false", "false")
