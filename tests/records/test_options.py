"""Options of a cell as labels."""

from smd_research.records.options import labels_of


def test_an_option_that_only_chooses_another_says_nothing_where_that_is_given() -> None:
    given, left_open = (f'{{"epsilon": {epsilon}, "survival": 0.5}}' for epsilon in ("12.0", "null"))
    assert labels_of("defense", given) == {"defense.epsilon": 12.0, "defense.survival": None}
    chosen = labels_of("defense", left_open, '{"epsilon": 7.5}')
    assert chosen == {"defense.epsilon": 7.5, "defense.survival": 0.5}
