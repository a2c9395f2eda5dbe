"""Stretches of a model's blocks that are known to compute what the stock model computes."""

from smd_research.models.bundle import Bundle
from smd_research.models.lean_decode import LeanDecode
from smd_research.models.self_check import ensure_exact, lean_serves
from smd_research.models.stretch import Stretch


class HookedModel(Stretch):
    """Blocks ``first .. last`` of a bundle's model, sharing its weights, with an attention runtime in place of its own.

    The first one of a model, and the first one of each cut, checks the family against the stock model.

    Args:
        bundle: the model.
        first: index of the first block, which takes hidden states; None starts from token ids.
        last: index after the last block; None runs to the logits.
        query_first: hand each layer's queries to the runtime (a ``QueryFirstRuntime``) before keys and values are
            computed; families that compute all three in one product hand them over together.

    Raises:
        UnsupportedModelError: for a family whose attention cannot be reached, or that comes out otherwise than stock.
    """

    def __init__(
        self, bundle: Bundle, first: int | None = None, last: int | None = None, *, query_first: bool = False
    ) -> None:
        ensure_exact(bundle, *(cut for cut in (first, last) if cut is not None))
        super().__init__(bundle, first, last, query_first=query_first)


def decoder_of(bundle: Bundle, first: int | None = None, *, query_first: bool = False) -> LeanDecode | HookedModel:
    """What takes one token of every stream from block ``first`` to the logits with an attention runtime.

    Args:
        bundle: the model.
        first: see ``HookedModel``.
        query_first: queries are wanted before keys and values.

    Returns:
        The lean form, which hands queries over first in any case, where it is known to be exact; else the hooked model.

    Raises:
        UnsupportedModelError: as ``HookedModel`` does.
    """
    hooked = HookedModel(bundle, first, query_first=query_first)
    return LeanDecode(bundle, first) if lean_serves(bundle, first or 0) else hooked
