"""Whoever stayed awake in vain sleeps at once for a while."""

import time

from smd_research.boundary.vigil import RESTS, Vigil


def test_after_a_vigil_in_vain_the_next_waits_sleep_at_once() -> None:
    vigil = Vigil(60.0)
    assert vigil.begin() > time.perf_counter()
    assert vigil.begin() > time.perf_counter()  # the message came: stay awake for the next one too
    vigil.in_vain()
    vigil.in_vain()  # a second sleep in the same wait changes nothing
    for _ in range(RESTS):
        assert vigil.begin() < time.perf_counter()
        vigil.in_vain()
    assert vigil.begin() > time.perf_counter()
