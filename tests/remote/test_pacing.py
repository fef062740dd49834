"""How the best setting is looked for: by measurements of lines and peers that are made up, on a clock that is made up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Final

import pytest

from aiodicom.remote.pacing import FIRST_REST, LONGEST_OPENING, MOST_UNDERWAY, ONE, Climb, Setting

MOST: Final = Setting(4, 64)
SIZE: Final = 40_000
ROUND_TRIP: Final = 0.02

Rate = Callable[[Setting], float]
"""How many instances a second a peer takes at a setting."""


class Sending:
    """Sends over a line that does not exist, to a peer that does not, and notes each setting that is used."""

    def __init__(self, climb: Climb, rate: Rate, *, sizes: tuple[int, ...] = (SIZE,), window: int = 0) -> None:
        self.climb = climb
        self.now = 1000.0
        self.used = [climb.setting]
        self._rate = rate
        self._sent = 0
        self._sizes = cycle(sizes)
        if window:
            climb.agreed(window)

    def send(self, count: int, *, in_effect: bool = True) -> None:
        for _ in range(count):
            self.now += 1 / self._rate(self.climb.setting)
            self._sent += next(self._sizes)
            before = self.climb.setting
            changed = self.climb.completed(self.now, self._sent, in_effect=in_effect)
            assert changed == (before != self.climb.setting)
            if changed:
                self.used.append(self.climb.setting)


def far(setting: Setting) -> float:
    """A long way: as many instances in a round trip as are on their way."""
    return setting.concurrency / ROUND_TRIP


def far_up_to(limit: float) -> Rate:
    """The same, to a peer that takes no more than so many a second."""
    return lambda setting: min(far(setting), limit)


def test_over_a_long_way_it_goes_up_to_all_there_may_be() -> None:
    sending = Sending(Climb(ONE, MOST), far)
    sending.send(3000)
    assert sending.used == [(1, 1), (1, 4), (1, 16), (1, 64), (2, 64), (4, 64)]
    assert sending.climb.kept == MOST


def test_what_the_peer_agreed_to_is_the_limit() -> None:
    sending = Sending(Climb(ONE, MOST), far, window=10)
    sending.send(3000)
    assert sending.used == [(1, 1), (1, 4), (1, 10), (2, 10), (4, 10)]
    sending = Sending(Climb(ONE, Setting(10, 64)), far, window=1)
    sending.send(3000)
    assert sending.used == [(1, 1), (2, 1), (4, 1), (8, 1), (10, 1)]


def test_where_a_window_is_agreed_to_later_it_is_tried_then() -> None:
    sending = Sending(Climb(ONE, MOST), far, window=1)
    sending.send(4)
    assert sending.climb.setting == (2, 1)
    sending.climb.agreed(16)
    sending.send(3000)
    assert sending.climb.kept == (4, 16)


def test_what_gains_nothing_is_taken_back_and_left_alone() -> None:
    sending = Sending(Climb(ONE, MOST), far_up_to(50))
    sending.send(1000)
    assert sending.climb.kept == sending.climb.setting == ONE
    assert sending.used == [(1, 1), (1, 4), (2, 1), (1, 1)]  # each TRIES times, one after the other


def test_it_stops_where_it_gains_no_more() -> None:
    sending = Sending(Climb(ONE, MOST), far_up_to(800))
    sending.send(3000)
    assert sending.climb.kept == sending.climb.setting == (1, 16)
    assert max(setting.concurrency for setting in sending.used) == 64


def test_after_a_rest_it_looks_again_and_then_rests_longer() -> None:
    limit = 50.0
    sending = Sending(Climb(ONE, MOST), lambda setting: min(far(setting), limit))
    sending.send(100)
    tried = len(sending.used)
    resting_until = sending.now + FIRST_REST
    while sending.now < resting_until - 3:
        sending.send(1)
    assert len(sending.used) == tried
    sending.send(400)
    again = len(sending.used)
    assert again > tried
    while sending.now < resting_until + 2 * FIRST_REST - 3:
        sending.send(1)
    assert len(sending.used) == again
    limit = 1e6
    sending.send(10_000)
    assert sending.climb.kept == MOST


@pytest.mark.parametrize("least", [Setting(1, 1), Setting(3, 1), Setting(1, 8), Setting(2, 5)])
def test_what_the_user_says_holds(least: Setting) -> None:
    fixed = Climb(least, least)
    assert fixed.is_fixed
    sending = Sending(fixed, far)
    sending.send(1000)
    assert not fixed.refused(1, sending.now)
    assert not fixed.too_much(sending.now)
    fixed.agreed(1)
    assert sending.used == [least]
    assert fixed.setting == least


def test_half_of_it_may_be_left_open() -> None:
    sending = Sending(Climb(Setting(3, 1), Setting(3, 64)), far)
    sending.send(2000)
    assert sending.used == [(3, 1), (3, 4), (3, 16), (3, 64)]
    sending = Sending(Climb(Setting(1, 8), Setting(4, 8)), far)
    sending.send(2000)
    assert sending.used == [(1, 8), (2, 8), (4, 8)]


def test_it_begins_where_it_got_before() -> None:
    sending = Sending(Climb(ONE, MOST, Setting(2, 16)), far)
    sending.send(2000)
    assert sending.used[0] == (2, 16)
    assert Climb(ONE, Setting(2, 8), Setting(4, 16)).setting == (2, 8)
    assert Climb(Setting(3, 1), Setting(3, 64), Setting(1, 16)).setting == (3, 16)


def test_a_peer_that_refuses_is_not_asked_again_before_the_rest_is_over() -> None:
    sending = Sending(Climb(ONE, MOST), far, window=1)
    sending.send(4)
    assert sending.climb.setting == (2, 1)
    assert sending.climb.refused(1, sending.now)
    assert sending.climb.setting == ONE
    sending.send(1000)
    assert sending.used[2:] == []
    sending.now += FIRST_REST
    sending.send(4)
    assert sending.climb.setting == (2, 1)


def test_a_peer_that_takes_fewer_than_it_did_is_looked_at_anew() -> None:
    sending = Sending(Climb(ONE, MOST, MOST), far, window=16)
    assert sending.climb.setting == (4, 16)
    assert sending.climb.refused(2, sending.now)
    assert sending.climb.setting == sending.climb.kept == (2, 16)


def test_what_loses_an_association_is_taken_back_at_once() -> None:
    sending = Sending(Climb(ONE, MOST), far, window=8)
    lost = 0
    for _ in range(2000):
        sending.send(1)
        if sending.climb.setting.window > 1:
            lost += 1
            assert sending.climb.too_much(sending.now)
    assert lost == 1
    assert sending.climb.kept == (4, 1)
    assert not sending.climb.too_much(sending.now)  # nothing is on trial


def test_associations_that_do_not_come_are_done_without() -> None:
    sending = Sending(Climb(ONE, MOST), far, window=1)
    sending.send(4)
    assert sending.climb.setting == (2, 1)
    begun = sending.now
    while sending.climb.setting == (2, 1):
        sending.send(1, in_effect=False)
        assert sending.now < begun + LONGEST_OPENING + 1
    assert sending.now > begun + 0.99 * LONGEST_OPENING
    sending.send(500)
    assert sending.climb.setting == ONE


def test_without_enough_to_send_nothing_is_judged() -> None:
    sending = Sending(Climb(ONE, MOST), far)
    for _ in range(1000):
        sending.send(2)
        sending.climb.starved()
    assert sending.used == [ONE]


def test_a_few_instances_change_nothing() -> None:
    sending = Sending(Climb(ONE, MOST), far)
    sending.send(2)
    assert sending.used == [ONE]


def test_more_but_smaller_instances_are_no_gain() -> None:
    climb = Climb(ONE, MOST)
    sending = Sending(climb, lambda setting: 50.0 if setting == ONE else 500.0)
    sending.send(3)
    small = Sending(climb, lambda _: 500.0, sizes=(SIZE // 10,))
    small.now, small._sent = sending.now, sending._sent
    small.send(100)
    assert climb.kept == ONE


def test_no_more_is_on_its_way_than_memory_is_meant_for() -> None:
    sending = Sending(Climb(ONE, MOST), far, sizes=(4_000_000,))
    sending.send(3000)
    assert sending.climb.kept.concurrency * 4_000_000 <= MOST_UNDERWAY
    assert sending.climb.kept.concurrency >= 8


def test_instances_of_all_sizes() -> None:
    sending = Sending(Climb(ONE, MOST), far_up_to(1500), sizes=(SIZE, 10 * SIZE, SIZE, 3 * SIZE))
    sending.send(3000)
    assert far(sending.climb.kept) >= 1500
