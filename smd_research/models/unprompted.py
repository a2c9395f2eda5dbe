"""What a model writes of its own accord: text of the kind that it was trained on, without that text."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from smd_research.core.errors import UnsupportedModelError
from smd_research.models.bundle import Bundle

_ROWS = 128  # texts written side by side


def unprompted(bundle: Bundle, tokens: int, seed: int = 0, length: int = 128) -> list[NDArray[np.int64]]:
    """Texts that a model writes from nothing, sampled at temperature 1 from its whole distribution.

    Args:
        bundle: the model.
        tokens: how many at least, begin tokens apart.
        seed: of the sampling.
        length: tokens after which a text is cut.

    Returns:
        A text each, without the token it begins with, up to its end token or that length.

    Raises:
        UnsupportedModelError: when the tokenizer has no token to begin a text with.
    """
    begin = bundle.tokenizer.bos_token_id
    begin = bundle.end_id if begin is None else begin
    if begin is None:
        raise UnsupportedModelError("the model writes nothing unprompted: its tokenizer has no token to begin with")
    first = torch.full((_ROWS, 1), begin, device=bundle.device)
    texts: list[NDArray[np.int64]] = []
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        while sum(map(len, texts)) < tokens:
            rows = bundle.model.generate(
                first,
                attention_mask=torch.ones_like(first),
                max_new_tokens=min(length, bundle.geometry.context - 1),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=list(bundle.end_ids) or None,
                pad_token_id=begin,
            )
            texts += [_ended(row, bundle.end_ids or (begin,)) for row in rows[:, 1:].cpu().numpy()]
    return texts


def _ended(row: NDArray[np.int64], ends: Sequence[int]) -> NDArray[np.int64]:
    """The row up to its first end token."""
    places = np.flatnonzero(np.isin(row, ends))
    return row[: int(places[0]) + 1] if len(places) else row
