"""What is put around a prompt can be told from it, and a guess from what is known."""

from hypothesis import given
from hypothesis import strategies as st

from smd_research.core.guess import Guess
from smd_research.core.wrapper import BARE, Wrapper

IDS = st.lists(st.integers(0, 9), max_size=6).map(tuple)
WRAPPERS = st.builds(Wrapper, IDS, IDS)


@given(WRAPPERS, IDS)
def test_what_is_put_around_is_known(wrapper: Wrapper, ids: tuple[int, ...]) -> None:
    whole = wrapper.around(ids)
    assert whole[wrapper.place(len(whole))] == ids
    known = wrapper.known(len(whole))
    assert len(known) == len(wrapper) == len(whole) - len(ids)
    assert {place: whole[place] for place in known} == known
    assert bool(wrapper) == (wrapper != BARE)


@given(WRAPPERS, IDS, st.booleans())
def test_a_guess_is_completed_and_taken_apart_again(wrapper: Wrapper, ids: tuple[int, ...], ranks: bool) -> None:
    guess = Guess(
        ids, tuple((token, 10) for token in ids) if ranks else (), certified=True, candidates=(ids, ids[::-1])
    )
    whole = guess.wrapped(wrapper)
    assert whole.ids == wrapper.around(ids)
    assert whole.candidates == tuple(map(wrapper.around, guess.candidates))
    assert [row[0] for row in whole.ranked] == (list(whole.ids) if whole.ranked else [])
    assert whole.at(wrapper.place(len(whole.ids))) == guess
