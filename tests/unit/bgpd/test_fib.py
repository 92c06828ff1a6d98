"""The effector for routes, on a fake kernel, also where the kernel says no in between."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from bgpd.fib import RETRY_SECONDS, Applied, Fib
from fakes.kernel import FakeKernel
from kernel.errors import AlreadyThere, KernelFailure, OutcomeUnknown
from kernel.route import PROTOCOL_BGPD, PROTOCOL_FELIX, PROTOCOL_STATIC, NextHop, Route, RouteKey
from resources.names import IfName

ETH0 = IfName("eth0")
A, B, C = (ip_network(f"10.65.{n}.0/26") for n in (1, 2, 3))


def via(gateway: str, protocol: int = PROTOCOL_BGPD) -> Route:
    return Route(protocol=protocol, next_hops=(NextHop(gateway=ip_address(gateway), device=ETH0),))


ONE, TWO = via("10.0.0.2"), via("10.0.0.3")


@pytest.fixture
def kernel() -> FakeKernel:
    kernel = FakeKernel()
    kernel.links.add(ETH0, ip_interface("10.0.0.1/24"))
    return kernel


@pytest.fixture
def fib(kernel: FakeKernel) -> Fib:
    fib = Fib(kernel.routes)
    fib.read()
    return fib


def ours(kernel: FakeKernel) -> dict[str, Route]:
    return {str(key): route for key, route in kernel.routes.routes.items() if route.protocol == PROTOCOL_BGPD}


def test_it_makes_the_kernel_have_what_is_wanted(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.want(B, ONE)
    assert fib.apply(0).added == 2
    fib.want(A, TWO)
    fib.want(B, None)
    done = fib.apply(1)
    assert (done.added, done.replaced, done.removed) == (0, 1, 1)
    assert ours(kernel) == {str(A): TWO}
    assert fib.apply(2) == Applied()
    assert fib.is_settled


def test_additions_come_before_removals(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(B, ONE)
    fib.apply(0)
    kernel.routes.log.clear()
    fib.want(A, ONE)
    fib.want(B, None)
    fib.apply(0)
    assert kernel.routes.log == [f"add {A}", f"delete {B}"]


def test_before_it_has_read_it_writes_nothing(kernel: FakeKernel) -> None:
    fib = Fib(kernel.routes)
    fib.want(A, ONE)
    assert fib.apply(0) == Applied()
    assert kernel.routes.log == []
    assert not fib.is_settled


def test_what_is_there_and_right_is_not_written(kernel: FakeKernel) -> None:
    kernel.routes.put(RouteKey(A), ONE)
    fib = Fib(kernel.routes)
    fib.want(A, ONE)
    fib.read()
    fib.apply(0)
    assert kernel.routes.log == []
    assert fib.is_settled


def test_what_an_earlier_one_wrote_is_kept_until_swept(kernel: FakeKernel) -> None:
    for prefix in (A, B, C):
        kernel.routes.put(RouteKey(prefix), ONE)
    fib = Fib(kernel.routes)
    fib.read()
    assert {key.destination for key in fib.inherited} == {A, B, C}
    fib.want(A, ONE)
    fib.want(B, None)
    fib.apply(0)
    assert kernel.routes.log == [f"delete {B}"]
    fib.read()
    fib.apply(1)
    assert set(ours(kernel)) == {str(A), str(C)}
    assert fib.sweep() == 1
    fib.apply(2)
    assert set(ours(kernel)) == {str(A)}


def test_one_that_was_confirmed_and_withdrawn_is_not_inherited_any_more(kernel: FakeKernel) -> None:
    kernel.routes.put(RouteKey(A), ONE)
    fib = Fib(kernel.routes)
    fib.read()
    fib.want(A, ONE)
    fib.apply(0)
    fib.want(A, None)
    fib.apply(1)
    assert ours(kernel) == {}


@pytest.mark.parametrize("protocol", [PROTOCOL_STATIC, PROTOCOL_FELIX])
def test_a_route_of_somebody_else_stays(kernel: FakeKernel, protocol: int) -> None:
    theirs = via("10.0.0.9", protocol)
    kernel.routes.put(RouteKey(A), theirs)
    fib = Fib(kernel.routes)
    fib.want(A, ONE)
    fib.want(B, ONE)
    fib.read()
    done = fib.apply(0)
    assert (done.added, done.failed or {}) == (1, {})  # where it stands nothing is even tried
    assert kernel.routes.routes[RouteKey(A)] == theirs
    assert fib.conflicts == {RouteKey(A): (theirs,)}
    assert fib.is_settled
    fib.want(A, None)
    fib.apply(1)
    assert kernel.routes.routes[RouteKey(A)] == theirs
    assert fib.conflicts == {}


def test_a_route_that_appears_between_reading_and_writing_stays(kernel: FakeKernel, fib: Fib) -> None:
    theirs = via("10.0.0.9", PROTOCOL_STATIC)
    kernel.routes.put(RouteKey(A), theirs)
    fib.want(A, ONE)
    done = fib.apply(0)
    assert done.failed is not None
    assert isinstance(done.failed[RouteKey(A)], AlreadyThere)
    assert fib.needs_read()
    fib.read()
    assert not fib.needs_read()
    fib.apply(1)
    assert kernel.routes.routes[RouteKey(A)] == theirs
    assert list(fib.conflicts) == [RouteKey(A)]


def test_one_bad_route_does_not_stop_the_others_and_is_tried_again(kernel: FakeKernel, fib: Fib) -> None:
    kernel.routes.refuse.add(RouteKey(A))
    fib.want(A, ONE)
    fib.want(B, ONE)
    fib.apply(0)
    assert set(ours(kernel)) == {str(B)}
    assert fib.due(0) == RETRY_SECONDS
    assert not fib.is_settled
    kernel.routes.log.clear()
    fib.apply(1)
    assert kernel.routes.log == []
    kernel.routes.refuse.clear()
    fib.apply(RETRY_SECONDS)
    assert set(ours(kernel)) == {str(A), str(B)}
    assert fib.due(RETRY_SECONDS) is None
    assert fib.failed == {}


def test_a_removal_that_fails_is_tried_again(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.apply(0)
    kernel.routes.refuse.add(RouteKey(A))
    fib.want(A, None)
    fib.apply(1)
    assert set(ours(kernel)) == {str(A)}
    kernel.routes.refuse.clear()
    fib.apply(1 + RETRY_SECONDS)
    assert ours(kernel) == {}
    assert fib.failed == {}


def test_a_failed_write_that_is_no_longer_wanted_is_forgotten(kernel: FakeKernel, fib: Fib) -> None:
    kernel.routes.refuse.add(RouteKey(A))
    fib.want(A, ONE)
    fib.apply(0)
    fib.want(A, None)
    fib.apply(0)
    assert fib.failed == {}
    assert fib.due(0) is None


def test_other_routes_are_written_while_one_waits_to_be_tried_again(kernel: FakeKernel, fib: Fib) -> None:
    kernel.routes.refuse.add(RouteKey(A))
    fib.want(A, ONE)
    fib.apply(0)
    fib.want(B, ONE)
    kernel.routes.log.clear()
    fib.apply(0.5)
    assert kernel.routes.log == [f"add {B}"]


def test_an_unreadable_kernel_changes_nothing(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.apply(0)
    kernel.routes.unreadable = KernelFailure("no")
    with pytest.raises(KernelFailure):
        fib.read()
    assert fib.actual == {RouteKey(A): ONE}


def test_a_lost_answer_asks_for_a_reading(kernel: FakeKernel, fib: Fib) -> None:
    fib.failed[RouteKey(A)] = OutcomeUnknown("lost")
    assert fib.needs_read()
    fib.read()
    assert not fib.needs_read()


def test_a_route_that_was_deleted_by_hand_is_written_again(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.apply(0)
    kernel.routes.lose(RouteKey(A))
    fib.lost(RouteKey(A), 1)
    fib.apply(1)
    assert ours(kernel) == {str(A): ONE}
    assert fib.repairs == 1


def test_a_route_that_is_deleted_again_and_again_is_written_ten_times_a_second(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.apply(0)
    for step in range(100):
        if RouteKey(A) in kernel.routes.routes:
            kernel.routes.lose(RouteKey(A))
            fib.lost(RouteKey(A), 1 + step / 100)
        fib.apply(1 + step / 100)
    assert kernel.routes.log.count(f"add {A}") == 11
    wait = fib.due(1.99)
    assert wait is not None
    fib.apply(1.99 + wait + 0.001)
    assert ours(kernel) == {str(A): ONE}


def test_a_route_of_ours_that_somebody_changed_is_put_right(kernel: FakeKernel, fib: Fib) -> None:
    fib.want(A, ONE)
    fib.apply(0)
    kernel.routes.put(RouteKey(A), TWO)
    fib.saw(RouteKey(A), TWO)
    fib.apply(1)
    assert ours(kernel) == {str(A): ONE}


def test_one_that_nobody_wants_and_somebody_wrote_goes(kernel: FakeKernel, fib: Fib) -> None:
    kernel.routes.put(RouteKey(B), TWO)
    fib.saw(RouteKey(B), TWO)
    fib.apply(1)
    assert ours(kernel) == {}
