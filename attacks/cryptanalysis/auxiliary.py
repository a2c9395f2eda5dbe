"""Public text that an attack on encoded text counts: of the data's own kind, of quite another, or the model's own."""

from collections.abc import Sequence

import numpy as np

from attacks.base import Ids, Public
from attacks.cryptanalysis.ciphertext import origin
from smd_research.core.errors import ConfigError, NotApplicableError, UnsupportedModelError
from smd_research.data.reference import REFERENCE, stream
from smd_research.models.unprompted import unprompted

WRITTEN = "model"
"""Text that the public model writes unprompted: who holds it needs no other text of its kind."""

KINDS = ("same", REFERENCE, WRITTEN)
_PARAGRAPHS = 200  # of the manual, taken at a time


def check_auxiliary(auxiliary: str, tokens: int) -> None:
    """Refuse options that name no text.

    Raises:
        ConfigError: naming the option.
    """
    if auxiliary not in KINDS:
        raise ConfigError(f"attack.auxiliary={auxiliary} is unknown: use one of {', '.join(KINDS)}")
    if tokens < 1:
        raise ConfigError(f"attack.auxiliary_tokens={tokens} is out of range: give at least 1")


def auxiliary_texts(public: Public, auxiliary: str, tokens: int) -> list[Ids]:
    """About ``tokens`` tokens of public text, one array a document, as far as the text goes.

    Raises:
        NotApplicableError: when the model is to write it, and none is known or it cannot.
    """
    texts = [np.asarray(document, dtype=np.int64) for document in _documents(public, auxiliary, tokens)]
    texts = [text for text in texts if len(text)]
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, tokens)) + 1]


def _documents(public: Public, auxiliary: str, tokens: int) -> Sequence[Sequence[int] | Ids]:
    if auxiliary == "same":
        return public.documents(tokens)
    if auxiliary == REFERENCE:
        return _manual(public)
    try:
        return unprompted(origin(public), tokens)
    except UnsupportedModelError as refusal:
        raise NotApplicableError(str(refusal)) from refusal


def _manual(public: Public) -> list[list[int]]:
    """Python's reference manual in the model's own tokens."""
    pages = stream(REFERENCE, "train", 4096, 0)
    texts = list(dict.fromkeys(page.text for page in pages))
    encoded: list[list[int]] = public.bundle.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return encoded
