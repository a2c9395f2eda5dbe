"""Text that came from outside, as it may be shown: printable ASCII on one line, and cut."""

MAX_SHOWN = 200


def quoted(text: object, limit: int = MAX_SHOWN) -> str:
    """``text`` with everything but printable ASCII escaped, at most ``limit`` characters and an ellipsis.

    What is quoted already stays as it is.
    """
    given = str(text)
    shown = "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in given[:limit])
    return shown if len(shown) <= limit and len(given) <= limit else f"{shown[:limit]}..."
