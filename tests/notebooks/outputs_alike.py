"""Whether a notebook shows what it showed: fresh outputs held against those that are committed.

Outputs come from another processor than the committed ones, so that the last digits of a float may differ.

- Words are equal, letter for letter. So are whole numbers, and how many cells, outputs and kinds of data there are.
- Decimals are equal to three significant digits: within half a percent, or one in the last digit that is shown, or both
  below a millionth, which is rounding itself.
- Pictures are there, and as large within three percent (labels are set in fonts, which are measured).
- Styles (``<style>``) are looks and not compared. Cells that are tagged ``timing`` show seconds: they only have to run.
"""

import base64
import re
import struct
from collections.abc import Iterator
from itertools import zip_longest

from nbformat import NotebookNode

RELATIVE, ROUNDING, PICTURE = 5e-3, 1e-6, 0.03

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_STYLE = re.compile(r"<style\b.*?</style>", re.DOTALL)
_PNG_SIZE = slice(16, 24)  # of the header: width and height, four bytes each


def differences(committed: NotebookNode, fresh: NotebookNode) -> Iterator[str]:
    """What differs, one line each: the id of the cell, and what was there and is there."""
    for before, after in zip_longest(committed.cells, fresh.cells):
        if before is None or after is None:
            yield f"{(before or after).id}: there on one side alone"
        elif before.cell_type == "code" and "timing" not in before.metadata.get("tags", ()):
            yield from (f"{before.id}: {line}" for line in _of_cell(before.outputs, after.outputs))


def _of_cell(before: list[NotebookNode], after: list[NotebookNode]) -> Iterator[str]:
    for one, other in zip_longest(before, after):
        shown, now = _data(one), _data(other)
        if shown.keys() != now.keys():
            yield f"{sorted(shown)} became {sorted(now)}"
            continue
        for kind, text in shown.items():
            alike = pictures_alike if kind == "image/png" else texts_alike
            if not alike(text, now[kind]):
                yield f"{kind}: " + ("another size" if kind == "image/png" else f"{text!r} became {now[kind]!r}")


def _data(output: NotebookNode | None) -> dict[str, str]:
    """What an output holds, by kind."""
    if output is None:
        return {}
    if output.output_type == "stream":
        return {output.name: output.text}
    if output.output_type == "error":
        return {"error": f"{output.ename}: {output.evalue}"}
    return dict(output.data)


def texts_alike(one: str, other: str) -> bool:
    """Whether two texts say the same in the same words, and in numbers that agree."""
    one, other = _STYLE.sub("", one), _STYLE.sub("", other)
    numbers = _NUMBER.findall(one), _NUMBER.findall(other)
    if _NUMBER.sub("#", one) != _NUMBER.sub("#", other):
        return False
    return all(numbers_alike(*pair) for pair in zip(*numbers, strict=True))


def numbers_alike(one: str, other: str) -> bool:
    """Whether two numbers agree as they are written; whole ones are equal."""
    if one.isdecimal() and other.isdecimal():
        return one == other
    first, second = float(one), float(other)
    room = max(RELATIVE * max(first, second), 1.001 * max(_last_digit(one), _last_digit(other)), ROUNDING)
    return abs(first - second) <= room


def _last_digit(number: str) -> float:
    """What one more in the last digit that is shown would add."""
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def pictures_alike(one: str, other: str) -> bool:
    """Whether two PNG pictures, in base 64, are about as wide and as high."""
    sizes = [struct.unpack(">II", base64.b64decode(picture)[_PNG_SIZE]) for picture in (one, other)]
    return all(abs(a - b) <= PICTURE * max(a, b) for a, b in zip(*sizes, strict=True))
