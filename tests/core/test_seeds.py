"""Generators of different names are different, however many there are."""

import numpy as np

from smd_research.core.seeds import generator, sequence


def test_no_two_of_many_numbers_share_a_generator() -> None:
    """Two texts with one noise between them would tell their difference; by hash alone 69,235 and 95,303 are one."""
    numbers = [*range(2**16), 69_235, 95_303, 88_277, 102_584, 3_897 + 2**17, 135_277]
    assert len({sequence(0, "text", number).spawn_key for number in numbers}) == len(numbers)
    drawn = [generator(0, "text", number).standard_normal(4) for number in (69_235, 95_303, 2**16, 2**16 - 1)]
    assert all(not np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_a_generator_hangs_on_seed_and_names_alone() -> None:
    for names in (("a", 1), ("a", 2**20), ("a", "1")):
        np.testing.assert_array_equal(generator(3, *names).random(3), generator(3, *names).random(3))
        assert not np.array_equal(generator(3, *names).random(3), generator(4, *names).random(3))


def test_small_numbers_keep_the_streams_that_records_were_made_with() -> None:
    assert sequence(0, "text", 65_535).spawn_key == (2553126462, 4076379870)
