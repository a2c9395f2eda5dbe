"""What a value may be: held against values, and said in words."""

import math
from typing import Any

import pytest

from experiments.composing.values import shown, takes

LAYERS = {"LAYERS": 5, "HIGH": 0.75}


@pytest.mark.parametrize(
    ("annotation", "words", "good", "bad"),
    [
        ("int", "1 or more", [1, 7], [0, True, 1.0, "1", None, 2**63, [1]]),
        ("int", "", [-1, 0], [True, "x", 0.5]),
        ("float", "above 0", [1e-9, 3], [0, -1, math.nan, math.inf, True, "half"]),
        ("float | None", "between 0 and 1", [0.5, None], [0, 1, "half"]),
        ("float", "0 to 1", [0, 1, 0.5], [-0.1, 1.1]),
        ("float", "above 0, at most 1", [1, 0.1], [0, 1.1]),
        ("float", "0 or more, below 1", [0, 0.9], [1, -1]),
        ("float", "above 0, below 6e4", [5.9e4], [6e4]),
        ("int", "0 to LAYERS", [0, 5], [6, -1]),
        ("float", "other than 0", [-1, 0.5], [0, 0.0]),
        ("int | None", "16 | 8 | 4", [16, 4, None], [5, "sixteen", True]),
        ("str", "santext | dchi", ["dchi"], ["dch", None, 3]),
        ("Sequence[int] | None", "0 or more, below LAYERS", [None, [0, 4]], [[], [5], [0, "a"], 3]),
        ("Sequence[str]", "joint | random", [["joint"]], [["joint", "odd"], "joint"]),
        ("bool", "", [True, False], [1, "yes", None]),
        ("str | None", "32 hexadecimal digits", [None, "0aF" * 10 + "12"], ["0a", "g" * 32, 12]),
        ("str | None", "HOST:PORT, or the path of a socket", ["h:7", "[::1]:7000", "./s"], ["host", "h:port", 7]),
        ("str | None", "text with {text} in it once", [None, "{text}", "a\n{text}."], ["", "text", "{text} {text}", 3]),
        ("int", "4 or more, multiple of 4", [4, 128], [0, 2, 30]),
        ("float | None", "below HIGH", [None, 0.5, -3], [0.75, 2]),
        ("str | int", "", ["a", 0], [None, True, 1.5]),
        ("Literal['a', 'b'] | None", "", ["a", None], ["c"]),
        ("Unheard", "", [None, 1, "x"], []),
        ("Unheard", "1 or more", [None, 1, 2.5], [0, "x", True]),
        ("Unheard", "32 hexadecimal digits", [None, "0aF" * 10 + "12"], ["0a", 12]),
        ("Unheard", "mode | 3", ["mode", 3], ["odd", None]),
    ],
)
def test_good_values_pass_and_bad_ones_are_told_what_is_taken(
    annotation: str, words: str, good: list[Any], bad: list[Any]
) -> None:
    asked = takes(annotation, words)
    assert [asked.wrong(value, LAYERS) for value in good] == [""] * len(good)
    assert all(asked.wrong(value, LAYERS) for value in bad)


def test_a_bound_that_is_not_known_binds_nothing() -> None:
    assert takes("int", "0 to LAYERS").wrong(99) == ""
    assert takes("int", "0 to LAYERS").wrong(-1) == "give a whole number, 0 to the model's layers"
    assert takes("int", "0 to LAYERS").wrong(9, LAYERS) == "give a whole number, 0 to 5 (the model's layers)"


@pytest.mark.parametrize(
    ("annotation", "words", "value", "said"),
    [
        ("float | None", "between 0 and 1", "half", "give a number between 0 and 1, or null"),
        ("int", "1 or more", "ten", "give a whole number, 1 or more"),
        ("Unheard", "1 or more", 0, "give a number, 1 or more"),
        ("str", "fp32 | fp16 | bf16", "float16", "is unknown: did you mean 'fp16'?"),
        ("int | None", "16 | 8", 5, "is unknown: there is 16, 8, null"),
        ("bool", "", "on", "give true or false"),
        ("list[float]", "above 0", "x", "give a list, [A,B], each a number above 0"),
    ],
)
def test_it_is_said_in_plain_words(annotation: str, words: str, value: Any, said: str) -> None:
    assert takes(annotation, words).wrong(value) == said


def test_values_are_shown_as_a_command_line_writes_them() -> None:
    assert [shown(value) for value in (None, True, 1.5, [1, None])] == ["null", "true", "1.5", "[1,null]"]
    assert len(shown("x" * 500)) == 60
