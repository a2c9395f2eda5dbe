"""What came from outside is shown on one line, harmless and short."""

import pytest

from smd_research.core.quoting import quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 100 %", "plain text, 100 %"),
        ("\x1b[2J\r\nforged line", "\\x1b[2J\\r\\nforged line"),
        ("\u202eevil \ud800 \u00fc", "\\u202eevil \\ud800 \\xfc"),
        ("back\\slash", "back\\slash"),
        (None, "None"),
        (300 * "x", 200 * "x" + "..."),
        (100 * "\x00", 50 * "\\x00" + "..."),
    ],
)
def test_only_printable_ascii_is_shown_and_not_too_much_of_it(text: object, shown: str) -> None:
    assert quoted(text) == shown
    assert quoted(shown[:200]) == shown[:200]
