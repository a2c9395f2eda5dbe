"""When an option counts and what it needs."""

import pytest

from experiments.composing.conditions import Condition


@pytest.mark.parametrize(
    ("said", "options", "holds"),
    [
        ("rule=energy", {"rule": "energy"}, True),
        ("rule=energy", {"rule": "fixed"}, False),
        ("bits=8|4", {"bits": 4}, True),
        ("epsilon=null", {"epsilon": None}, True),
        ("epsilon=null", {"epsilon": 0.5}, False),
        ("epsilon", {"epsilon": 0.5}, True),
        ("epsilon", {"epsilon": None}, False),
        ("epsilon", {}, False),
        ("layer above 0", {"layer": 1}, True),
        ("layer above 0", {"layer": 0}, False),
        ("layer above 0", {"layer": None}, False),
    ],
)
def test_it_holds_or_not(said: str, options: dict[str, object], holds: bool) -> None:
    assert Condition.of(said).holds(options) is holds


def test_it_is_said_as_on_the_command_line() -> None:
    assert Condition.of("bits=8|4").said("defense") == "defense.bits=8 or 4"
    assert Condition.of("layer above 0").said("defense") == "defense.layer above 0"
    assert Condition.of("task").said() == "task given"
    with pytest.raises(ValueError, match="no condition"):
        Condition.of("= 3")
