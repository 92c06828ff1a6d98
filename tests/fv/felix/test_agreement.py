"""Random clusters on the real kernel agree with the verdict, packet by packet. Longer runs: python -m agreement."""

from collections.abc import Iterator

import pytest

from agreement.field import BACK_ENDS, Field
from agreement.trial import USUAL, Range, Tally, run
from fakes.random_world import Shape

LONG = Shape(policies=32, least_policies=24, rules=2)
"""Endpoints with so many policies share chains of jumps (felix.render.groups)."""


@pytest.fixture(params=BACK_ENDS)
def back_end(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=[False, True], ids=["one-host", "two-hosts"])
def ground(request: pytest.FixtureRequest, back_end: str) -> Iterator[Field]:
    with Field(back_end=back_end, two_hosts=request.param) as ground:
        yield ground


def test_kernel_and_verdict_agree_on_every_packet(ground: Field) -> None:
    ranged, tally = Range(ground), Tally()
    for seed in range(8):
        run(ranged, seed, packets=400, tally=tally, shape=LONG if seed % 4 == 3 else USUAL)
    assert tally.packets > 3000
    assert 0.1 < tally.allowed / tally.packets < 0.9
    assert {1, 6, 17, 47, 50, 58, 132} <= tally.by_protocol.keys()


def test_what_the_verdict_does_not_know_is_found_out() -> None:
    with Field() as ground:
        ranged, tally = Range(ground), Tally()
        run(ranged, 0, packets=200, tally=tally)
        (host,) = ground.machines.values()
        host.net.run("iptables-nft -t mangle -A POSTROUTING -p udp -j DROP")
        ranged.patience_seconds = 0.3  # what is dropped is waited for in vain
        with pytest.raises(AssertionError, match="the kernel: dropped"):
            run(ranged, 0, packets=1000, tally=tally, shrinking_tries=5)
