"""What a whole text costs by basic composition."""

import math

from smd_research.core.guarantee import Guarantee


def test_epsilons_of_units_add_up() -> None:
    bounded = Guarantee(notion="LDP", unit="token", epsilon=0.5, unit_epsilon=0.5)
    assert [bounded.of_text(n) for n in (0, 1, 16)] == [0.0, 0.5, 8.0]


def test_what_a_text_costs_is_said_beside_what_a_unit_costs() -> None:
    bounded = Guarantee(notion="LDP", unit="token", epsilon=0.5, unit_epsilon=0.5)
    assert str(bounded).endswith("16 of them at most 8 by basic composition")
    assert "16" not in str(Guarantee(notion="none", unit="token", epsilon=3.0))


def test_deltas_add_up_as_well_and_are_said() -> None:
    text = str(Guarantee(notion="LDP", unit="token", epsilon=0.5, delta=1e-5, unit_epsilon=0.5))
    assert text.endswith("16 of them at most 8 at delta=0.00016 by basic composition")


def test_what_nothing_bounds_costs_without_end() -> None:
    assert math.isinf(Guarantee(notion="none", unit="token", epsilon=3.0).of_text(1))
