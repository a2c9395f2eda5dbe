"""Texts of a record, token by token, as a person reads them."""

from collections.abc import Sequence

from smd_research.models.bundle import Bundle


def token_texts(ids: Sequence[int], bundle: Bundle) -> list[str | None]:
    """What each token adds to the text before it (by itself, a token may lose its leading space); None abstains."""
    texts: list[str | None] = []
    before, kept = "", []
    for token in map(int, ids):
        if token < 0:
            texts.append(None)
            continue
        kept.append(token)
        text = bundle.decode(kept)
        # A character split over two tokens changes what stood there: then the token is shown by itself.
        texts.append(text[len(before) :] if text.startswith(before) else bundle.decode([token]))
        before = text
    return texts
