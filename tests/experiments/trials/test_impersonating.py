"""What an active attack did to its victims, as the runner tells it."""

from experiments.trials.impersonating import effect
from experiments.trials.pursuit import Shown
from smd_research.boundary import AdversaryView


def view(*outputs: int) -> AdversaryView:
    return AdversaryView((), frozenset(), 4, (outputs,))


def test_an_answer_counts_as_changed_unless_the_request_was_refused() -> None:
    honest = [view(1, 2), view(3, 4), view(5, 6), view(7, 8)]
    found = effect(honest, Shown((view(1, 2), view(3, 9), view(5), view(0)), (False, False, True, False)))
    assert found["refused"].mean == 0.25
    assert found["output_changed"].mean == 0.5
    assert found["output_changed"].n == 4


def test_where_nobody_was_impersonated_nothing_is_said() -> None:
    assert effect([view(1)], Shown((view(2),))) == {}
