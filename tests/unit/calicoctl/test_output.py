from calicoctl.output import boxed_table, plain_table


def test_a_get_table_has_the_widths_of_the_reference() -> None:
    rows = [("17.16.10.0/24", "true", "true"), ("fd80:24e2:f998:72d6::/64", "false", "false")]
    assert plain_table(("CIDR", "NAT", "IPIP"), rows) == (
        "CIDR                       NAT     IPIP    \n"
        "17.16.10.0/24              true    true    \n"
        "fd80:24e2:f998:72d6::/64   false   false   \n"
        "\n"
    )


def test_an_empty_get_table_is_its_heading() -> None:
    assert plain_table(("NAME",), []) == "NAME   \n\n"


def test_a_boxed_table_has_centred_headings_and_left_cells() -> None:
    row = ("172.16.60.216", "node-to-node mesh", "up", "15:46:49", "Established")
    assert boxed_table(("Peer address", "Peer type", "State", "Since", "Info"), [row]) == (
        "+---------------+-------------------+-------+----------+-------------+\n"
        "| PEER ADDRESS  |     PEER TYPE     | STATE |  SINCE   |    INFO     |\n"
        "+---------------+-------------------+-------+----------+-------------+\n"
        "| 172.16.60.216 | node-to-node mesh | up    | 15:46:49 | Established |\n"
        "+---------------+-------------------+-------+----------+-------------+"
    )
