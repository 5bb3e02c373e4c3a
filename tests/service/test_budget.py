"""A key's budget, on a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.budget import Budget
from service.errors import RateLimited, TooManyPixels


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refusal(budget: Budget, pixels: int) -> RateLimited | None:
    try:
        budget.spend(pixels)
    except RateLimited as exc:
        return exc
    return None


def test_the_burst_may_be_spent_at_once_and_comes_back_at_the_rate() -> None:
    clock = Clock()
    budget = Budget(10, 40, clock)
    budget.spend(15)
    budget.spend(25)
    refused = refusal(budget, 25)
    assert refused is not None
    assert refused.status == 429
    assert refused.retry_after == 3  # 2.5 s
    clock.now += 2.4
    assert refusal(budget, 25) is not None
    clock.now += 0.1
    assert refusal(budget, 25) is None
    assert refusal(budget, 1) is not None


def test_no_more_than_the_burst_is_saved_up() -> None:
    clock = Clock()
    budget = Budget(10, 40, clock)
    budget.spend(40)
    clock.now += 1e6
    budget.spend(40)
    assert refusal(budget, 1) is not None


def test_a_request_that_is_refused_costs_nothing() -> None:
    budget = Budget(10, 40, Clock())
    budget.spend(30)
    assert refusal(budget, 20) is not None
    budget.spend(10)


def test_what_can_never_be_spent_is_told_so() -> None:
    with pytest.raises(TooManyPixels, match=r"your key may spend 0\.4 at once"):
        Budget(100_000, 400_000, Clock()).spend(400_001)


@given(
    rate=st.floats(1e3, 1e9),
    burst=st.floats(1e3, 1e9),
    asked=st.lists(st.tuples(st.floats(0, 30), st.floats(0, 1)), min_size=1, max_size=50),
)
def test_retry_after_is_true_and_no_longer_than_need_be(
    rate: float, burst: float, asked: list[tuple[float, float]]
) -> None:
    clock = Clock()
    budget, spent, begun = Budget(rate, burst, clock), 0, clock.now
    for after, part in asked:
        clock.now += after
        pixels = int(part * burst)
        refused = refusal(budget, pixels)
        if refused is not None:
            asked_at = clock.now
            if refused.retry_after > 1:
                clock.now = asked_at + refused.retry_after - 1 - 1e-3
                assert refusal(budget, pixels) is not None
            clock.now = asked_at + refused.retry_after
            assert refusal(budget, pixels) is None
        spent += pixels
        assert spent <= burst + rate * (clock.now - begun + 1e-3)
