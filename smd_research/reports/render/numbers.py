"""How numbers are written for people."""

import math
from collections.abc import Sequence

MISSING = "–"
"""What stands where there is no figure."""

PENDING = "..."
"""What stands for a figure that has not been measured yet."""


def share(value: float) -> str:
    """A share in percent, whole numbers but for a tenth near the ends: ``97 %``, ``99.6 %``, ``0.4 %``."""
    if math.isnan(value):
        return MISSING
    percent = round(100 * value, 9) + 0.0  # no negative zero
    near_end = 0 < percent < 1 or 99 < percent < 100
    text = f"{percent:.1f}" if near_end or -1 < percent < 0 else f"{percent:.0f}"
    # Never round to an end that was not reached.
    return f"{'< 0.1' if text == '0.0' else '> 99.9' if text == '100.0' else text} %"


def quantity(value: float, unit: str = "", like: float | None = None) -> str:
    """Three significant digits, bytes in kB and MB, scientific below a thousandth.

    Args:
        value: what to write.
        unit: ``B`` for bytes; other units are left to the heading.
        like: write with as many decimals as this value has, so that an interval lines up with its mean.
    """
    if math.isnan(value):
        return MISSING
    if unit == "B":
        return byte_count(value)
    size = abs(value if like is None else like)
    if size == 0:
        return f"{value:.3g}"
    if size < 1e-3:
        return f"{value:.0e}".replace("e-0", "e-")
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}"


def byte_count(value: float) -> str:
    """Bytes in decimal units: ``312 B``, ``4.1 kB``, ``1.2 MB``."""
    for unit in ("B", "kB", "MB"):
        if abs(value) < 1000 or unit == "MB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or abs(value) >= 100 else f"{value:.2g} {unit}"


def share_interval(low: float, high: float) -> str:
    """The 95 % interval of a share in percent, ``93–99``; empty when there is none."""
    return "" if math.isnan(low) or math.isnan(high) else f"{100 * low:.0f}–{100 * high:.0f}"


def interval(low: float, high: float, mean: float) -> str:
    """The 95 % interval of a quantity, written like its mean; empty when there is none or it shows no width."""
    if math.isnan(low) or math.isnan(high):
        return ""
    ends = [quantity(end, like=mean) for end in (low, high)]
    return "" if ends[0] == ends[1] else "–".join(ends)


def label(value: str | int | float | bool | None) -> str:
    """A parameter as it stands at the head of a row."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def span(values: Sequence[int]) -> str:
    """Sorted numbers as one, or from the first to the last."""
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
