"""When did each stream stop? A service that stops with one stream names it."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

# Log weight of ending exactly with the transcript while others were still going.
_TELL = 6.0


def weights(outputs: Sequence[Sequence[int]], end_ids: Collection[int], limit: int) -> Tensor:
    """Log weights ``[streams]``: raised for a stream whose end ended all the others.

    Args:
        outputs: generated tokens of every stream, as long as they were observed, padding included.
        end_ids: tokens, any of which ends a text.
        limit: tokens that were asked for, the first included.
    """
    found = torch.zeros(len(outputs))
    lengths = [_ended(output, end_ids) for output in outputs]
    last = max(map(len, outputs), default=0)
    cut_short = any(length is None for length in lengths) and last < limit
    if cut_short:
        for stream, length in enumerate(lengths):
            found[stream] = _TELL if length == last else 0.0
    shortest = min(map(len, outputs), default=0)
    if shortest < last:  # streams of unequal length: the one that went on is the one that was wanted
        found += torch.tensor([_TELL if len(output) == last else 0.0 for output in outputs])
    return found


def _ended(output: Sequence[int], end_ids: Collection[int]) -> int | None:
    """Tokens up to and including the first end token; None where there is none."""
    return next((place + 1 for place, token in enumerate(output) if token in end_ids), None)
