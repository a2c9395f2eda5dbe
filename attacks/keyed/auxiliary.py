"""Public text that an attack on encoded text counts: of the data's own kind, or of quite another one."""

import numpy as np

from attacks.base import Public
from attacks.keyed.mapping import Ids
from smd_research.core.errors import ConfigError
from smd_research.data.reference import REFERENCE, stream

KINDS = ("same", REFERENCE)
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
    """About ``tokens`` tokens of public text, one array a document, as far as the text goes."""
    documents = list(public.documents(tokens)) if auxiliary == "same" else _manual(public)
    texts = [np.asarray(document, dtype=np.int64) for document in documents if len(document)]
    ends = np.cumsum([len(text) for text in texts])
    return texts[: int(np.searchsorted(ends, tokens)) + 1]


def _manual(public: Public) -> list[list[int]]:
    """Python's reference manual in the model's own tokens."""
    pages = stream(REFERENCE, "train", 4096, 0)
    texts = list(dict.fromkeys(page.text for page in pages))
    encoded: list[list[int]] = public.bundle.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return encoded
