"""Room that clients share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.shares import Shares


def grabbed(room: Shares, client: str | None, amount: int) -> int:
    """What a client gets that takes `amount` again and again."""
    got = 0
    while room.fits(amount, client):
        room.take(amount, client)
        got += amount
    return got


def test_without_a_name_one_client_may_take_everything_and_nothing_more() -> None:
    room = Shares(100)
    assert room.most() == 100
    assert grabbed(room, None, 10) == 100
    assert room.used == 100


def test_a_named_client_leaves_as_much_free_as_it_holds() -> None:
    room = Shares(100)
    assert room.most("greedy") == 50
    assert not room.fits(51, "greedy")
    assert grabbed(room, "greedy", 1) == 50
    assert room.fits(25, "thrifty")  # half of what is free, whatever the other one does
    assert not room.fits(26, "thrifty")


def test_greedy_ones_end_with_equal_parts() -> None:
    room, held = Shares(120), dict.fromkeys("abc", 0)
    for client in "abc":
        held[client] += grabbed(room, client, 1)
    for _ in range(200):  # each is answered a piece, and asks for more
        for client in "abc":
            room.give_back(1, client)
            held[client] += grabbed(room, client, 1) - 1
    assert held == {"a": 30, "b": 30, "c": 30}


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 60), st.booleans()), max_size=80))
def test_whatever_others_do_one_who_holds_nothing_gets_half_of_what_is_free(
    steps: list[tuple[str, int, bool]],
) -> None:
    room = Shares(100)
    held: list[tuple[str, int]] = []
    for client, amount, back in steps:
        if back and held:
            room.give_back(*reversed(held.pop(0)))  # type: ignore[arg-type]
        elif room.fits(amount, client):
            room.take(amount, client)
            held.append((client, amount))
        assert room.used == sum(amount for _, amount in held) < 100
        assert room.fits((100 - room.used) // 2, "newcomer")
    for client, amount in held:
        room.give_back(amount, client)
    assert room.used == 0
    assert room.fits(50, "a")


@pytest.mark.parametrize("client", [None, "a"])
def test_what_is_given_back_can_be_taken_again(client: str | None) -> None:
    room = Shares(10)
    for _ in range(5):
        room.take(5, client)
        room.give_back(5, client)
    assert room.used == 0
    assert room.fits(5, client)
