"""Secret row order at the embedding of a rotary model: the rows name the tokens, the first block names their order.

Embeddings without positions give a bag of tokens exactly and say nothing of the order. But the provider also saw the
attention contexts that the client returned, row by row, and with the token of each row known it computes every row's
state after the first block, where order does show.
"""

import torch
from torch import Tensor

from attacks.base import Public
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import AttentionContext
from smd_research.models.attention import AttentionSpec
from smd_research.models.extension import ExtensionEngine
from smd_research.models.hooked import HookedModel


class _Replay:
    """Attention outputs as they were recorded."""

    def __init__(self, context: Tensor) -> None:
        self._context = context

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, spec: AttentionSpec) -> Tensor:
        return self._context.to(q).transpose(0, 1).unsqueeze(0)


def states_after_first_block(
    public: Public, engine: ExtensionEngine, view: AdversaryView, states: Tensor, *, features_permuted: bool
) -> Tensor:
    """States ``[rows, width]`` after the first block, in the order of the rows seen.

    Args:
        public: what the adversary knows.
        engine: any engine of the public model.
        view: holds the contexts the client returned.
        states: embeddings ``[rows, width]`` as seen.
        features_permuted: match by sorted values.
    """
    table = engine.embedded(0).float()
    keys, seen = (table.sort(-1).values, states.sort(-1).values) if features_permuted else (table, states)
    tokens = torch.cdist(seen, keys, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    context = view.of(AttentionContext)[0].context.to(states.device)
    positions = torch.zeros(len(states), dtype=torch.long, device=states.device)
    model = HookedModel(public.bundle, 0, 1)
    return model.forward(_Replay(context), positions, hidden=table[tokens].to(public.bundle.dtype)[None])[0].float()
