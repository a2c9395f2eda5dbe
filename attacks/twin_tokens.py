"""Tokens that a model tells apart hardly or not at all: their rows of the embedding table are the same, or nearly.

Vocabularies have them: rows that training never touched, and tokens that were added as copies of others. What they
leave behind in keys, values and states is the same too, so that nothing seen of one of them proves that it was there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_GRAIN = 1e-5  # of a squared length, that fp32 products leave where a difference is small


@torch.inference_mode()
def twins(table: Tensor, tokens: Sequence[int], within: float) -> dict[int, tuple[int, ...]]:
    """Other tokens whose rows are nearly those of some tokens.

    Args:
        table: embedding table ``[vocab, width]``.
        tokens: that are asked about.
        within: largest difference, relative to the row of the token asked about.

    Returns:
        The twins of each token that has any.
    """
    found: dict[int, tuple[int, ...]] = {}
    rows = table.float()
    lengths = rows.square().sum(1)
    for token in dict.fromkeys(tokens):
        row, size = rows[token], lengths[token]
        near = (lengths + size - 2 * (rows @ row) <= (within**2 + _GRAIN) * size).nonzero()[:, 0]
        same = torch.linalg.vector_norm(rows[near] - row, dim=1) <= within * size.sqrt()
        others = tuple(other for other in near[same].tolist() if other != token)
        if others:
            found[token] = others
    return found
