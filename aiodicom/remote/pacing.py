"""How much at a time serves a peer best: found by trying, as long as that gains something."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

LARGEST_WINDOW: Final = 64
"""How many operations we offer to have outstanding on an association, where nothing else is said."""

GAIN: Final = 1.1
"""How many times as fast it must go for a change to be kept."""

ROUNDS: Final = 2
"""How often everything that is on its way at a time is to be answered before it is judged, at least."""

SHORTEST_LOOK: Final = 0.025
"""For how long it is looked at least, in seconds."""

LONGEST_OPENING: Final = 5.0
"""How long it may take until further associations are there, in seconds, before they are done without."""

TRIES: Final = 2
"""How often a change may fail to gain before it is left alone: what else a machine does may be mistaken for it."""

FIRST_REST: Final = 30.0
"""How long nothing is tried when nothing gained, in seconds; each further time twice as long."""

MOST_UNDERWAY: Final = 64 * 1024 * 1024
"""How many bytes may be on their way for a change to be tried: so much is held in memory."""


class Setting(NamedTuple):
    """How many associations there are, and how many operations may be outstanding on each."""

    associations: int
    window: int

    @property
    def concurrency(self) -> int:
        """How many operations that makes."""
        return self.associations * self.window


ONE: Final = Setting(1, 1)
# What is tried, in this order: a wider window costs the peer nothing, and is there at once.
_STEPS: Final = (Setting(1, 4), Setting(2, 1))


def _smaller(one: Setting, other: Setting) -> Setting:
    return Setting(min(one.associations, other.associations), min(one.window, other.window))


class Climb:
    """Looks for the best setting: it changes one thing, compares, and takes back what did not gain.

    It has no clock, and does nothing by itself: whoever sends tells it what happened, and reads `setting`. An instance that
    is larger than others counts for more, or for less: a change has gained where more instances and more bytes went out.

    Args:
        least: what there is at least.
        most: what there may be at most; what is no more than `least` remains as it is.
        start: what to begin with; by default the least.

    Attributes:
        setting: the one to use now, which may be on trial.
        kept: the best one known.
    """

    def __init__(self, least: Setting, most: Setting, start: Setting = ONE) -> None:
        self.setting = self.kept = _smaller(Setting(*map(max, start, least)), most)
        self._least = least
        self._limit = self._most = most  # of the caller; of the peer, too
        self._rates = (0.0, 0.0)  # of `kept`: instances and bytes a second
        self._step: Setting | None = None  # what is on trial
        self._failed: Counter[Setting] = Counter()
        self._harmful: set[Setting] = set()  # what was too much
        self._size = 0.0  # of an instance, on average
        self._tried_since = 0.0
        self._rest = FIRST_REST
        self._rest_until = 0.0
        self._restart()

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to look for."""
        return self._least == self._limit

    def completed(self, now: float, sent: int, *, in_effect: bool) -> bool:
        """Take note of an instance that was stored.

        Args:
            now: the time, in seconds.
            sent: how many bytes have gone out so far.
            in_effect: whether there are as many associations as `setting` says.

        Returns:
            Whether `setting` has changed.
        """
        if now < self._rest_until or self.is_fixed:
            return False
        before = self.setting
        if not in_effect:
            self._restart()
            if self._step is not None and now - self._tried_since > LONGEST_OPENING:
                self.refused(self.kept.associations, now)
        elif self._until_begin:
            self._until_begin -= 1
            self._begun = now, sent
        else:
            self._count += 1
            self._look(now, sent)
        return self.setting != before

    def starved(self) -> None:
        """Take note that there was nothing to send: what was measured tells nothing of the peer."""
        self._restart()

    def too_much(self, now: float) -> bool:
        """Take note that an association was lost, or an instance refused for want of resources.

        Returns:
            Whether `setting` has changed: what is on trial is taken back.
        """
        if self._step is None:
            self._restart()
            return False
        self._harmful.add(self._step)
        self._try_next(now)
        return True

    def refused(self, associations: int, now: float) -> bool:
        """Take note that the peer takes no more than so many associations; return whether `setting` has changed."""
        before = self.setting
        self._most = self._most._replace(associations=max(associations, self._least.associations))
        if self.kept.associations > self._most.associations:
            self.setting = self.kept = _smaller(self.kept, self._most)
            self._step = None
            self._restart()
        elif self._step is not None:
            self._failed[self._step] = TRIES
            self._try_next(now)
        return self.setting != before

    def agreed(self, window: int) -> None:
        """Take note of the operations window that the peer has agreed to; 0 is no limit."""
        window = max(min(window or self._limit.window, self._limit.window), self._least.window)
        self._most = self._most._replace(window=window)
        self.setting, self.kept = _smaller(self.setting, self._most), _smaller(self.kept, self._most)

    def _restart(self) -> None:
        """Look anew: what is on its way by now tells nothing."""
        self._until_begin = self.setting.concurrency
        self._count = 0
        self._begun = 0.0, 0

    def _look(self, now: float, sent: int) -> None:
        since, sent_before = self._begun
        seconds, width = now - since, self.setting.concurrency
        # Answers come in bursts of as many as are on their way: whole bursts are counted.
        if self._count < ROUNDS * width or self._count % width or seconds < SHORTEST_LOOK:
            return
        self._size = (sent - sent_before) / self._count
        rates = self._count / seconds, (sent - sent_before) / seconds
        if self._step is None:
            self._rates = rates
        elif all(new >= GAIN * old for new, old in zip(rates, self._rates, strict=True)):
            self.kept, self._rates = self.setting, rates
            self._failed.clear()
            self._rest = FIRST_REST
        else:
            self._failed[self._step] += 1
        self._try_next(now)

    def _try_next(self, now: float) -> None:
        """Do without what is on trial; try something that did not fail; rest where there is nothing."""
        self._step = None
        self.setting = self.kept
        for step in _STEPS:
            more = Setting(self.kept.associations * step.associations, self.kept.window * step.window)
            wanted = _smaller(more, self._most)
            is_possible = wanted != self.kept and wanted.concurrency * self._size <= MOST_UNDERWAY
            if is_possible and self._failed[step] < TRIES and step not in self._harmful:
                self._step, self.setting, self._tried_since = step, wanted, now
                break
        else:
            self._rest_until = now + self._rest
            self._rest *= 2
            self._failed.clear()
            self._harmful.clear()
            self._most = self._most._replace(associations=self._limit.associations)
        self._restart()
